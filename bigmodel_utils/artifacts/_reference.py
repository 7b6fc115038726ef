"""One way to a trained model: the shipped weights, the cached ones, or a training."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from .._checks import InputError, check_choice, check_integer, import_extra
from ..data import find_cache, load_digits, load_standard_library
from ..training import CheckpointSettings
from . import _classifiers, _language, _student
from ._provenance import TrainedModel, hash_code, hash_file, list_versions

SHIPPED = Path(__file__).parent / "shipped"
WEIGHTS, PROVENANCE, TOKENIZER = "weights.npz", "provenance.json", "tokenizer.json"
_COMMON_CODE = ("data/_splits.py",)


@dataclass(frozen=True)
class ReferenceModel:
    """A trained model and where it came from.

    Attributes:
        name: one of `list_reference_models()`.
        model: the compiled `keras.Model` with its weights.
        tokenizer: its `tokenizers.Tokenizer`, or `None`.
        origin: `"shipped"`, `"cached"`, or `"trained now"`.
        provenance: data with licence, training history, test metrics, versions, hashes.
    """

    name: str
    model: Any = field(repr=False)
    tokenizer: Any = field(repr=False)
    origin: str
    provenance: Mapping[str, Any] = field(repr=False)

    def to_dict(self) -> dict[str, Any]:
        """Returns name, origin and provenance as plain data."""
        return {"name": self.name, "origin": self.origin, **self.provenance}


@dataclass(frozen=True)
class _Builder:
    build: Callable[[], Any]
    train: Callable[..., TrainedModel]  # of a seed and, by keyword, of `checkpoints`
    data_sha256: Callable[[], str]
    code: tuple[str, ...]
    is_shipped: bool = False


_IMAGE_CODE = ("models/_image.py", "data/_datasets.py", "artifacts/_classifiers.py")
_LANGUAGE_CODE = (
    *("models/_transformer.py", "models/_attention.py"),
    *("data/_corpus.py", "data/_tokens.py", "artifacts/_language.py"),
)
_STUDENT_CODE = (
    "artifacts/_student.py",
    *(f"compression/_{name}.py" for name in ("depth", "structured", "channels", "importance")),
    *("compression/_distillation.py", "compression/_distiller.py"),
)
_BUILDERS = {
    "language_model": _Builder(
        _language.build,
        _language.train_language_model,
        lambda: load_standard_library("source").sha256,
        _LANGUAGE_CODE,
        is_shipped=True,
    ),
    "language_model_student": _Builder(
        _student.build_student,
        partial(
            _student.train_student, load_teacher=lambda: load_reference_model("language_model")
        ),
        lambda: load_standard_library("source").sha256,
        (*_LANGUAGE_CODE, *_STUDENT_CODE),
        is_shipped=True,
    ),
    "digits_teacher": _Builder(
        _classifiers.build_teacher,
        partial(_classifiers.train_classifier, _classifiers.build_teacher),
        lambda: load_digits().sha256,
        _IMAGE_CODE,
    ),
    "digits_student": _Builder(
        _classifiers.build_student,
        partial(_classifiers.train_classifier, _classifiers.build_student),
        lambda: load_digits().sha256,
        _IMAGE_CODE,
    ),
}


def list_reference_models() -> tuple[str, ...]:
    """Names that `load_reference_model` takes.

    Example:
        >>> list_reference_models()
        ('language_model', 'language_model_student', 'digits_teacher', 'digits_student')
    """
    return tuple(_BUILDERS)


def load_reference_model(name: str) -> ReferenceModel:
    """Loads a trained model: the shipped one, the cached one, or one trained now.

    The small models train on first use, in seconds, and are cached under a key made of
    their code, their data and the versions they were made with. Another key, another model:
    a cached one is never stale.

    Args:
        name: one of `list_reference_models()`: a language model of Python source and its
            distilled student of less than half its size (both shipped), the article's image
            classifier as a teacher, and a student of a sixteenth of its size.

    Returns:
        The model with its provenance.

    Raises:
        InputError: for an unknown name, or if stored weights do not have the hash that their
            provenance states.

    Limits:
        The shipped weights are stored in float16; their provenance says what that costs.
        Caches in `~/.cache/bigmodel_utils`, or where `BIGMODEL_CACHE` says.

    Example:
        >>> load_reference_model("digits_student").model.count_params()
        14410
    """
    builder = _BUILDERS[check_choice("name", name, list_reference_models())]
    if builder.is_shipped:
        return _read(SHIPPED / name, name, "shipped")
    folder = find_cache() / "models" / f"{name}-{_make_key(builder)[:16]}"
    if (folder / PROVENANCE).is_file():
        return _read(folder, name, "cached")
    write_reference_model(name, folder, dtype="float32")
    return _read(folder, name, "trained now")


def train_reference_model(
    name: str, *, seed: int = 0, checkpoints: CheckpointSettings | None = None
) -> TrainedModel:
    """Trains a reference model anew.

    Args:
        name: one of `list_reference_models()`.
        seed: seed of weights and order.
        checkpoints: as in `training.train`; the language model takes an hour on one core.

    Returns:
        Model, tokenizer and report.

    Raises:
        InputError: for an unknown name or a negative seed.

    Example:
        >>> train_reference_model("language_model")  # doctest: +SKIP
    """
    builder = _BUILDERS[check_choice("name", name, list_reference_models())]
    return builder.train(check_integer("seed", seed, at_least=0), checkpoints=checkpoints)


def write_reference_model(
    name: str, folder: Path, *, dtype: str, checkpoints: CheckpointSettings | None = None
) -> None:
    """Trains a reference model and stores it; the folder appears whole or not at all.

    Args:
        name: one of `list_reference_models()`.
        folder: where weights, tokenizer and provenance go; replaced if it is there.
        dtype: type the weights are stored in.
        checkpoints: as in `training.train`.
    """
    builder = _BUILDERS[check_choice("name", name, list_reference_models())]
    code = hash_code((*_COMMON_CODE, *builder.code))  # before training: it may be edited meanwhile
    trained = train_reference_model(name, checkpoints=checkpoints)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as made:
        beside = Path(made) / folder.name
        beside.mkdir()
        test = trained.measure(trained.model)
        weights = [array.astype(dtype) for array in trained.model.get_weights()]
        trained.model.set_weights([array.astype(np.float32) for array in weights])
        np.savez(beside / WEIGHTS, *weights)
        if trained.tokenizer is not None:
            (beside / TOKENIZER).write_text(trained.tokenizer.to_str(), encoding="utf-8")
        provenance = {
            **trained.report,
            "test": test,
            "test_as_stored": trained.measure(trained.model),
            "dtype": dtype,
            "num_parameters": trained.model.count_params(),
            "weights_sha256": hash_file(beside / WEIGHTS),
            "code_sha256": code,
            "data_sha256": builder.data_sha256(),
            "versions": list_versions(),
        }
        text = json.dumps(provenance, indent=1, ensure_ascii=False)
        (beside / PROVENANCE).write_text(text + "\n", encoding="utf-8")
        shutil.rmtree(folder, ignore_errors=True)
        beside.replace(folder)


def find_stale_parts(name: str) -> list[str]:
    """Says what of a shipped model no longer fits the code and data that are here.

    Args:
        name: name of a shipped model.

    Returns:
        One sentence per fault; empty if there is none. Code and data are compared only on
        the minor version of Python that made the model, whose library it was trained on.

    Raises:
        InputError: for a name that is not shipped.

    Example:
        >>> find_stale_parts("language_model")
        []
    """
    shipped = tuple(name for name, builder in _BUILDERS.items() if builder.is_shipped)
    builder = _BUILDERS[check_choice("name", name, shipped)]
    folder = SHIPPED / name
    stored = json.loads((folder / PROVENANCE).read_text(encoding="utf-8"))
    faults = []
    if hash_file(folder / WEIGHTS) != stored["weights_sha256"]:
        faults.append("the weights are not those that the provenance describes")
    python = list_versions()["python"]
    same_parser = python.split(".")[:2] == stored["versions"]["python"].split(".")[:2]
    if same_parser and hash_code((*_COMMON_CODE, *builder.code)) != stored["code_sha256"]:
        faults.append("its code has changed since it was trained: run `make artifacts`")
    if python == stored["versions"]["python"] and builder.data_sha256() != stored["data_sha256"]:
        faults.append("its data have changed since it was trained: run `make artifacts`")
    return faults


def _make_key(builder: _Builder) -> str:
    parts = {
        "code": hash_code((*_COMMON_CODE, *builder.code)),
        "data": builder.data_sha256(),
        "versions": list_versions(),
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _read(folder: Path, name: str, origin: str) -> ReferenceModel:
    provenance = json.loads((folder / PROVENANCE).read_text(encoding="utf-8"))
    if hash_file(folder / WEIGHTS) != provenance["weights_sha256"]:
        raise InputError(
            "name",
            "must have the weights that its provenance describes",
            f"another SHA-256 for {folder / WEIGHTS}",
            "delete the folder; it is made anew or comes with the package",
        )
    model = _BUILDERS[name].build()
    with np.load(folder / WEIGHTS, allow_pickle=False) as stored:
        model.set_weights([stored[key].astype(np.float32) for key in stored.files])
    tokenizer = None
    if (folder / TOKENIZER).is_file():
        tokenizers = import_extra("tokenizers", extra="data")
        tokenizer = tokenizers.Tokenizer.from_file(str(folder / TOKENIZER))
    return ReferenceModel(name, model, tokenizer, origin, provenance)
