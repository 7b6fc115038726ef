"""A quantized model in one file that gives the same outputs when it is loaded."""

from __future__ import annotations

import json
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from .._checks import InputError
from ._files import write_beside
from ._models import check_examples, predict
from ._quantization import _get_mode, _list_layers, make_config

DESCRIPTION = "model"


def write_quantized(model: Any, path: str | Path, *, examples: Any) -> Path:
    """Writes a quantized model to a file, and loads it again before the file gets its name.

    `model.save` keeps which layers are quantized in the configuration of each layer. A layer
    that holds other layers does not write theirs, and such a model cannot be loaded. This file
    keeps them for every layer, nested ones too.

    Args:
        model: a model of `quantize_weights`.
        path: where to write; what is there is replaced.
        examples: inputs of shape `(num_examples, …)` on which the loaded model must give the
            same outputs, bit by bit.

    Returns:
        The path.

    Raises:
        InputError: if no layer is quantized, one has LoRA, the folder cannot be written to,
            or the loaded model differs; what was at `path` is then still there.

    Limits:
        The optimizer's state, seeds of dropout and assets of layers are not in the file. Layers
        of your own must be registered with `keras.saving.register_keras_serializable`.

    Example:
        >>> import keras, tempfile
        >>> from bigmodel_utils.compression import quantize_weights
        >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4)])
        >>> quantized = quantize_weights(model, np.eye(8), mode="int8").model
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = write_quantized(quantized, folder + "/model.npz", examples=np.eye(8))
        ...     loaded = load_quantized(path)
        >>> bool(np.array_equal(loaded(np.eye(8)), quantized(np.eye(8))))
        True
    """
    import keras

    inputs = check_examples(examples)
    _check_quantized(model)
    layers = _list_layers(model)
    description = {
        "model": keras.saving.serialize_keras_object(model),
        "layers": [[layer.name, *_describe(layer)] for layer in layers],
    }
    arrays = {DESCRIPTION: np.frombuffer(json.dumps(description).encode(), np.uint8)}
    for place, layer in enumerate(layers):
        store: dict[str, Any] = {}
        layer.save_own_variables(store)
        arrays |= {
            f"{place}/{key}": keras.ops.convert_to_numpy(value) for key, value in store.items()
        }
    with write_beside(path) as beside:
        with beside.open("wb") as file:
            np.savez(file, **arrays)  # type: ignore[arg-type]
        _check_loaded(model, beside, inputs)
    return Path(path)


def load_quantized(path: str | Path) -> Any:
    """Loads a model that `write_quantized` wrote.

    Args:
        path: the file.

    Returns:
        A `keras.Model` with the same integers.

    Raises:
        InputError: if it is no such file, or a layer cannot be made again.
    """
    import keras

    try:
        with np.load(path) as file:
            arrays = {name: file[name] for name in file.files}
        description = json.loads(arrays.pop(DESCRIPTION).tobytes())
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise InputError(
            "path", "must be a file of `write_quantized`", str(error), "look at the path"
        ) from error
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            model = keras.saving.deserialize_keras_object(description["model"])
        layers = _list_layers(model)
        for layer, (_, mode, block_size) in zip(layers, description["layers"], strict=True):
            if mode is not None and _get_mode(layer) is None:
                layer.quantize(mode, config=make_config(mode, block_size))
        for place, layer in enumerate(layers):
            begin = f"{place}/"
            store = {
                name.removeprefix(begin): array
                for name, array in arrays.items()
                if name.startswith(begin)
            }
            layer.load_own_variables(store)
    except (TypeError, ValueError) as error:
        raise InputError(
            "path",
            "must hold a model of layers that can be made again",
            str(error).splitlines()[0],
            "register your layers with `keras.saving.register_keras_serializable`",
        ) from error
    return model


def _describe(layer: Any) -> tuple[str | None, int | None]:
    """How a layer is quantized, and in blocks of how many inputs."""
    block_size = getattr(layer, "_int4_block_size", None)
    return _get_mode(layer), None if block_size in (None, -1) else int(block_size)


def _check_quantized(model: Any) -> None:
    layers = _list_layers(model)
    if not any(map(_get_mode, layers)):
        raise InputError(
            "model", "must be quantized", "no layer of integers", "call `quantize_weights` first"
        )
    adapted = [layer.name for layer in layers if getattr(layer, "lora_enabled", False)]
    if adapted:
        raise InputError(
            "model",
            "must have no adapters",
            f"LoRA in {adapted[0]!r}",
            "save the adapters apart: merged into integers they are rounded again",
        )


def _check_loaded(model: Any, path: Path, inputs: np.ndarray) -> None:
    if not np.array_equal(predict(model, inputs), predict(load_quantized(path), inputs)):
        raise InputError(
            "model",
            "must give the same outputs when it is loaded",
            "others",
            "give your layers a `get_config` that says all there is to know",
        )
