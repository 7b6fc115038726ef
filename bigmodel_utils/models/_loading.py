"""Loading a model that somebody else saved, without running what they may have put into it.

Three things are looked at before Keras sees the file: the archive, the configuration and the
weights. Keras then reads a copy that holds only what was looked at.
"""

from __future__ import annotations

import importlib
import io
import json
import math
import re
import shutil
import stat
import sys
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from os import PathLike
from pathlib import Path, PurePosixPath
from typing import Any, NoReturn

from .._checks import InputError, check_integer

_CONFIG, _WEIGHTS, _ASSETS = "config.json", "model.weights.h5", "assets"
_MAX_ENTRIES = 10_000
_MAX_CONFIG_BYTES = 2**24
_MAX_READ_BYTES = 2**22
# Keras stores entries as they are; JSON shrinks to a tenth, zeros to a thousandth.
_MAX_RATIO, _SMALL_BYTES = 100, 2**20

_PICKLES = (".pkl", ".pickle", ".joblib", ".dill", ".pt", ".pth", ".bin", ".ckpt", ".npy", ".npz")
_LEGACY = (".h5", ".hdf5", ".pb", ".tf")
_CODE = {
    "Lambda": "a function",
    "__lambda__": "a function",
    "TFSMLayer": "a TensorFlow graph",
    "TorchModuleWrapper": "a pickle",
    "JaxLayer": "a function",
    "FlaxLayer": "a function",
}
"""Classes whose configuration is code, and what it holds."""
_VALUES = ("__keras_tensor__", "__tensor__", "__numpy__", "__bytes__", "__ellipsis__", "__slice__")
_NUMBERS = re.compile(r"bool|(u?int|b?float)\d+\w*")
_FUNCTIONS = "activations|constraints|initializers|losses|metrics|ops|quantizers|regularizers"
_FUNCTION_MODULE = re.compile(rf"builtins|keras(\.src)?\.({_FUNCTIONS})(\.\w+)*")
_CLASS_MODULE = re.compile(
    rf"keras|keras(\.src)?\.({_FUNCTIONS}|dtype_policies|layers|models)(\.\w+)*"
)


def load_model_safely(
    path: str | PathLike[str], *, custom_objects: Sequence[Any] = (), max_bytes: int = 2**31
) -> Any:
    """Loads a `.keras` file from an untrusted source; refuses what could run or flood.

    Loading a model is running code: a lambda is bytecode, a pickle is a program, and a class
    is built with whatever arguments the file states. So only `.keras` archives are read, with
    Keras' safe mode on even where the process has switched it off. Nothing is decompressed
    before names, sizes and ratios of all entries are checked. Only Keras' own modeling classes
    and those passed here are built, first without values, so that a model that is too large
    is refused before it takes any memory.

    Args:
        path: the file, ending in `.keras`.
        custom_objects: classes and functions of yours that the file may name, such as
            `[RotaryAttention, approximate_gelu]`. One that is registered with Keras but not
            listed here is refused.
        max_bytes: most bytes of the file, of its entries together, and of the model's
            variables.

    Returns:
        The `keras.Model`, not compiled: optimizers and losses of the file are left out.

    Raises:
        InputError: if the file is of another kind or damaged, an entry leads outside or
            expands beyond measure, the configuration names code or a class that is not
            allowed, or the model is larger than `max_bytes`.

    Limits:
        What a listed class does with the settings of the file is its own affair. HDF5's
        native code reads the weights. Time is not bounded, and running the model can take more
        memory than loading it. A model can still be wrong on purpose: this says that loading
        it ran nothing, not what it predicts.

    Example:
        >>> import keras
        >>> model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     model.save(f"{folder}/model.keras")
        ...     loaded = load_model_safely(f"{folder}/model.keras")
        >>> loaded.count_params()
        8

    References:
        MITRE, Common Weakness Enumeration (2024): CWE-502, deserialization of untrusted data;
        CWE-409, decompression bombs; CWE-22, path traversal.
    """
    limit = check_integer("max_bytes", max_bytes, at_least=1)
    file = Path(path)
    _check_kind(file)
    if not file.is_file():
        raise InputError("path", "must be a file", file, "pass the path of a saved model")
    allowed = _list_names(custom_objects)
    with tempfile.TemporaryDirectory(prefix="bigmodel-") as folder:
        clean = Path(folder)
        try:
            _copy_checked(file, clean, allowed, limit)
            # Keras keeps its safe mode, scopes and unfinished variables by thread: a new one
            # has none that the caller or an earlier file has set.
            with ThreadPoolExecutor(max_workers=1) as apart:
                apart.submit(_check_size, clean, allowed, limit).result()
            with ThreadPoolExecutor(max_workers=1) as apart:
                return apart.submit(_load, clean, allowed).result()
        except InputError:
            raise
        except Exception as error:  # a damaged file fails anywhere, in ways of its own
            reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
            _refuse("must hold a model that Keras can build", reason, error)


def _refuse(requirement: str, received: object, cause: Exception | None = None) -> NoReturn:
    fix = "do not load this file; ask its author for one saved by `model.save`"
    raise InputError("path", requirement, received, fix) from cause


def _check_kind(file: Path) -> None:
    suffix = file.suffix.lower()
    if suffix == ".keras":
        return
    received = file.name
    if suffix in _PICKLES:
        received += ", which may be a pickle: a program that reading it runs"
    elif suffix in _LEGACY or file.is_dir():
        received += ", a format that may hold lambdas or graphs"
    raise InputError(
        "path", "must end in .keras", received, "load it where you trust it, and `model.save` it"
    )


def _list_names(custom_objects: Sequence[Any]) -> dict[str, Any]:
    """Every name by which a file may call an allowed object, and the object."""
    import keras

    names = {}
    for custom in custom_objects:
        if not hasattr(custom, "__name__"):
            fix = "pass classes and functions, not instances"
            raise InputError("custom_objects", "must be named", repr(custom), fix)
        names[custom.__name__] = custom
        names[keras.saving.get_registered_name(custom)] = custom
    return names


# The archive


class _ShortReads(io.FileIO):
    """A file that is read in short parts.

    `zipfile` reads the directory of an archive at once, at the length that the archive
    states. Here a directory of more entries than any model has ends early, which is an error.
    """

    def read(self, size: int | None = -1, /) -> bytes:
        """Reads a few megabytes at most."""
        short = size is not None and 0 <= size <= _MAX_READ_BYTES
        return super().read(size if short else _MAX_READ_BYTES) or b""


def _copy_checked(file: Path, clean: Path, allowed: dict[str, Any], max_bytes: int) -> None:
    """Writes configuration, weights and assets to a folder, each after its check."""
    if file.stat().st_size > max_bytes:
        _refuse(f"must have at most {max_bytes} bytes", f"{file.stat().st_size} bytes")
    with _ShortReads(file) as source, zipfile.ZipFile(source) as archive:
        entries = archive.infolist()
        _check_entries(entries, max_bytes)
        config = _strip(json.loads(archive.read(_CONFIG)))
        _check_config(config, allowed)
        (clean / _CONFIG).write_text(json.dumps(config), encoding="utf-8")
        (clean / "metadata.json").write_text("{}", encoding="utf-8")
        for entry in entries:
            if entry.is_dir() or not entry.filename.startswith((_WEIGHTS, f"{_ASSETS}/")):
                continue
            target = clean / entry.filename
            target.parent.mkdir(parents=True, exist_ok=True)
            with archive.open(entry) as content, target.open("xb") as copy:
                shutil.copyfileobj(content, copy)
    _check_weights(clean / _WEIGHTS, max_bytes)


def _check_entries(entries: list[zipfile.ZipInfo], max_bytes: int) -> None:
    """Refuses by what the directory of the archive states; nothing is decompressed."""
    names = [entry.filename for entry in entries]
    if len(entries) > _MAX_ENTRIES or len(set(names)) < len(names):
        _refuse(f"must have at most {_MAX_ENTRIES} entries, each once", f"{len(entries)} entries")
    for name in (_CONFIG, _WEIGHTS):
        if name not in names:
            _refuse(f"must hold {name}", f"no such entry among {len(names)}")
    for entry in entries:
        name = entry.filename
        parts = PurePosixPath(name).parts
        is_known = name in (_CONFIG, _WEIGHTS, "metadata.json") or parts[:1] == (_ASSETS,)
        if not is_known or ".." in parts or re.search(r"[\\:\x00]", name):
            _refuse("must hold the entries of a Keras model and no other", repr(name)[:100])
        if stat.S_ISLNK(entry.external_attr >> 16) or entry.flag_bits & 1:
            _refuse("must hold neither links nor encrypted entries", repr(name)[:100])
        if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            _refuse("must be stored or deflated", f"{name!r} by method {entry.compress_type}")
        ratio = entry.file_size / max(entry.compress_size, 1)
        if entry.file_size > _SMALL_BYTES and ratio > _MAX_RATIO:
            _refuse(f"must expand at most {_MAX_RATIO} times", f"{name!r} by {ratio:.0f} times")
        if name == _CONFIG and entry.file_size > _MAX_CONFIG_BYTES:
            _refuse(f"must have {_MAX_CONFIG_BYTES} bytes in {name} at most", entry.file_size)
    total = sum(entry.file_size for entry in entries)
    if total > max_bytes:
        _refuse(f"must expand to at most {max_bytes} bytes", f"{total} bytes")


# The configuration


def _strip(node: Any) -> Any:
    """Leaves out what compiles the model: it is not needed, and it names more classes."""
    if isinstance(node, dict):
        return {key: _strip(value) for key, value in node.items() if key != "compile_config"}
    return [_strip(part) for part in node] if isinstance(node, list) else node


def _walk(node: Any) -> Iterator[Any]:
    waiting = [node]
    while waiting:
        found = waiting.pop()
        yield found
        if isinstance(found, dict):
            waiting += found.values()
        elif isinstance(found, list):
            waiting += found


def _check_config(config: Any, allowed: dict[str, Any]) -> None:
    """Refuses a configuration that names code, or a class that was not allowed."""
    import keras

    if not isinstance(config, dict) or "class_name" not in config:
        _refuse("must describe a model", f"a {type(config).__name__} without a class")
    # A bare string can name what other code of this process has registered.
    registered = [name for name in keras.saving.get_custom_objects() if name not in allowed]
    hidden = {alias for name in registered for alias in (name, name.split(">")[-1])} - set(allowed)
    for node in _walk(config):
        if isinstance(node, str) and node in hidden:
            _refuse_class(node)
        if isinstance(node, dict) and "class_name" in node:
            _check_object(node, allowed)
        if isinstance(node, dict):
            for call in node.get("inbound_nodes") or ():
                # Without a symbolic input, an operation is computed here and now.
                if not any(
                    isinstance(part, dict) and part.get("class_name") == "__keras_tensor__"
                    for part in _walk(call)
                ):
                    _refuse("must apply each layer to tensors", f"a call of {node.get('name')!r}")


def _check_object(node: dict[str, Any], allowed: dict[str, Any]) -> None:
    name, module, settings = node["class_name"], node.get("module"), node.get("config")
    registered = node.get("registered_name")
    if name in _CODE:
        _refuse("must hold no code", f"{name}, which stores {_CODE[name]}")
    if name in _VALUES:
        dtype = settings.get("dtype", "bool") if isinstance(settings, dict) else "bool"
        if name in ("__tensor__", "__numpy__") and not _NUMBERS.fullmatch(dtype):
            _refuse("must hold arrays of numbers", f"dtype {dtype!r}"[:100])
        return
    # Keras looks a function up by its name and a class by the name it is registered under.
    target, key = (settings, settings) if name == "function" else (name, registered)
    if "module" in node and key in allowed:
        return
    pattern = _FUNCTION_MODULE if name == "function" else _CLASS_MODULE
    is_plain = isinstance(target, str) and target.isidentifier() and not target.startswith("__")
    if not is_plain or registered not in (None, name, target):
        _refuse_class(registered or target)
    # A module that is not loaded would be imported for the file.
    if not (isinstance(module, str) and pattern.fullmatch(module) and module in sys.modules):
        _refuse_class(f"{module}.{target}")


def _refuse_class(name: object) -> NoReturn:
    raise InputError(
        "path",
        "must name classes of Keras' modeling modules or of `custom_objects` only",
        repr(name)[:100],
        "list the class in `custom_objects` if its code is yours; else do not load this file",
    )


# The weights


def _check_weights(file: Path, max_bytes: int) -> None:
    """Refuses arrays that lie outside the file, hold no numbers, or are larger than allowed."""
    h5py = importlib.import_module("h5py")  # comes with Keras
    total, num_objects = 0, 0
    with h5py.File(file, "r") as root:
        waiting = [root]
        while waiting:
            group = waiting.pop()
            for name in group:
                num_objects += 1
                if num_objects > 100 * _MAX_ENTRIES:  # or a group that holds itself
                    _refuse("must hold fewer arrays", f"more than {num_objects - 1}")
                if not isinstance(group.get(name, getlink=True), h5py.HardLink):
                    _refuse("must hold no links in its weights", repr(name)[:100])
                found = group[name]
                if isinstance(found, h5py.Group):
                    waiting.append(found)
                    continue
                if not isinstance(found, h5py.Dataset) or found.dtype.kind not in "biufV":
                    _refuse("must hold numbers as weights", repr(name)[:100])
                if found.external or found.is_virtual:
                    _refuse("must hold its weights itself", f"{name!r}, which lies elsewhere"[:120])
                total += math.prod(found.shape) * found.dtype.itemsize
                if total > max_bytes:
                    _refuse(f"must hold at most {max_bytes} bytes of weights", f"{total} or more")


# The model


def _check_size(clean: Path, allowed: dict[str, Any], max_bytes: int) -> None:
    """Builds the model without values, and adds up what its variables would take."""
    import keras

    config = json.loads((clean / _CONFIG).read_text(encoding="utf-8"))
    with keras.StatelessScope(initialize_variables=False):
        model = keras.saving.deserialize_keras_object(
            config, custom_objects=allowed, safe_mode=True
        )
    if not isinstance(model, keras.Model):
        _refuse("must hold a model", type(model).__name__)
    sizes = (math.prod(v.shape) * _count_dtype_bytes(v.dtype) for v in model.variables)
    total = sum(sizes)
    if total > max_bytes:
        _refuse(f"must be a model of at most {max_bytes} bytes", f"{total} bytes of variables")


def _count_dtype_bytes(dtype: str) -> int:
    digits = re.search(r"\d+", dtype)
    return max(int(digits.group()) // 8, 1) if digits else 1


def _load(clean: Path, allowed: dict[str, Any]) -> Any:
    import keras

    return keras.saving.load_model(
        str(clean), custom_objects=allowed, compile=False, safe_mode=True
    )
