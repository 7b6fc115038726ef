"""Adapters: a low-rank change of chosen kernels, trained and stored apart from the model."""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from .._checks import InputError, check_choice, check_integer, check_real
from ._files import write_beside
from ._models import (
    Filters,
    check_examples,
    check_model,
    choose_layers,
    compile_alike,
    copy_model,
    has_matrix,
    matches_filters,
    to_numpy,
)
from ._quantization import MODES
from ._result import Compressed, make_report

_ADAPTABLE = ("Dense", "EinsumDense", "Conv1D", "Conv2D", "Conv3D")


def add_adapters(
    model: Any,
    examples: Any,
    *,
    rank: int,
    alpha: float | None = None,
    filters: Filters = None,
    quantize: str | None = None,
) -> Compressed:
    """Adds a trainable low-rank change to kernels, and freezes all else (LoRA, QLoRA).

    A kernel `W` acts as `W + (alpha / rank) A B`, where `A` has `rank` columns and `B`,
    which begins at nought, `rank` rows.

    Args:
        model: a functional or sequential `keras.Model`, not quantized.
        examples: inputs of shape `(num_examples, …)`, on which the two models are compared.
        rank: columns of `A`; at most the smaller side of each kernel seen as a matrix.
        alpha: strength of the change; `rank` if left out.
        filters: patterns of the names of layers to adapt, or a function of a layer; all
            Dense, EinsumDense and Conv layers if left out.
        quantize: `"int8"` or `"int4"` to quantize the adapted Dense layers first.

    Returns:
        The adapted model, compiled as the first, and its report; `left_out` names layers
        with weights that got no adapter, or stayed float.

    Raises:
        InputError: if no layer matches, a number is out of bounds, or the rank is above a
            kernel.

    Limits:
        Fewer numbers are trained; the model grows by the adapters, until `merge_adapters`.
        `model.save` merges them, rounds again where the kernel is quantized, and forgets that
        biases were frozen: store them with `write_adapters`. Models nested as a layer are left
        as they are.

    Example:
        >>> import keras
        >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(8)])
        >>> adapted = add_adapters(model, np.eye(8), rank=2)
        >>> sum(weight.shape[0] * weight.shape[1] for weight in adapted.model.trainable_weights)
        32
        >>> adapted.report.agreement.largest_difference
        0.0

    References:
        Hu et al., LoRA: Low-Rank Adaptation of Large Language Models (2022), equation 3.
        Dettmers et al., QLoRA: Efficient Finetuning of Quantized LLMs (2023).
    """
    check_model(model)
    inputs = check_examples(examples)
    check_integer("rank", rank, at_least=1)
    strength = float(rank) if alpha is None else check_real("alpha", alpha, at_least=0)
    if quantize is not None:
        check_choice("quantize", quantize, MODES)
    chosen, left_out = choose_layers(
        filter(lambda layer: has_matrix(layer.weights), model.layers),
        filters,
        explain=lambda layer: _explain(layer, filters),
        wanted="that takes an adapter",
    )
    for layer in chosen:
        rows, columns = _measure_matrix(layer.kernel.shape)
        if rank > min(rows, columns):
            raise InputError(
                "rank",
                f"must be at most {min(rows, columns)}, for layer {layer.name!r}",
                rank,
                "lower it, or leave the layer out by `filters`",
            )
        if quantize and type(layer).__name__ != "Dense":
            left_out[layer.name] = f"a {type(layer).__name__} is adapted and stays float"
    adapted = _adapt(
        model, [layer.name for layer in chosen], rank=rank, alpha=strength, mode=quantize
    )
    method = f"adapters of rank {rank} on {len(chosen)} layers" + (
        f" over {quantize}" if quantize else ""
    )
    report = make_report(model, adapted, method=method, examples=inputs, left_out=left_out)
    return Compressed(adapted, report)


def write_adapters(model: Any, path: str | Path) -> Path:
    """Writes the adapters of a model alone, with a hash of the model that they belong to.

    Args:
        model: a model of `add_adapters`, trained or not.
        path: the file to write, whole or not at all.

    Returns:
        The path.

    Raises:
        InputError: if the model has no adapters, or the file cannot be written.

    Example:
        >>> import keras, tempfile
        >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(8)])
        >>> adapted = add_adapters(model, np.eye(8), rank=2).model
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = write_adapters(adapted, Path(folder) / "adapters.npz")
        ...     again = load_adapters(model, path)
        >>> bool((again.get_weights()[-1] == adapted.get_weights()[-1]).all())
        True
    """
    layers = _list_adapted(model)
    first = layers[0]
    modes = {layer.quantization_mode for layer in layers if type(layer).__name__ == "Dense"}
    about = {
        "layers": [layer.name for layer in layers],
        "rank": first.lora_rank,
        "alpha": first.lora_alpha,
        "mode": next(iter(modes), None),
        "base_sha256": _hash_base(model),
    }
    arrays = {"about": np.array(json.dumps(about))}
    for number, layer in enumerate(layers):
        arrays[f"{number}_a"] = to_numpy(layer.lora_kernel_a)
        arrays[f"{number}_b"] = to_numpy(layer.lora_kernel_b)
    with write_beside(path) as beside, beside.open("wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]
    return Path(path)


def load_adapters(model: Any, path: str | Path) -> Any:
    """Makes an adapted model from the one that adapters were trained on, and their file.

    Args:
        model: the model that was passed to `add_adapters`, as it was then.
        path: a file of `write_adapters`.

    Returns:
        A new adapted model, compiled as the first.

    Raises:
        InputError: if the file holds no adapters, or they belong to another model.

    Limits:
        Over a quantized kernel the adapters fit the backend that quantized it; another may
        round a weight the other way, and is refused.

    Example:
        See `write_adapters`.
    """
    check_model(model)
    try:
        with Path(path).open("rb") as stream, np.load(stream, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        about = json.loads(str(arrays["about"]))
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(
            "path", "must be a file of `write_adapters`", str(error), "write the adapters again"
        ) from error
    unknown = sorted(set(about["layers"]) - {layer.name for layer in model.layers})
    adapted = None
    if not unknown:
        adapted = _adapt(
            model, about["layers"], rank=about["rank"], alpha=about["alpha"], mode=about["mode"]
        )
    if adapted is None or _hash_base(adapted) != about["base_sha256"]:
        raise InputError(
            "model",
            "must be the one that the adapters were trained on",
            f"no layers {unknown}" if unknown else "other weights",
            "load the base model that was passed to `add_adapters`",
        )
    for number, name in enumerate(about["layers"]):
        layer = adapted.get_layer(name)
        layer.lora_kernel_a.assign(arrays[f"{number}_a"])
        layer.lora_kernel_b.assign(arrays[f"{number}_b"])
    return adapted


def merge_adapters(model: Any, examples: Any) -> Compressed:
    """Adds the adapters to the kernels: a plain float model of the size it had without them.

    Args:
        model: a model of `add_adapters` or `load_adapters`.
        examples: inputs of shape `(num_examples, …)`, on which the two models are compared.

    Returns:
        The plain model, compiled as the first, and its report.

    Raises:
        InputError: if the model has no adapters.

    Limits:
        Quantized kernels become float ones, and the inputs of an int8 layer are no longer
        rounded: `report.agreement` says by how much outputs move.

    Example:
        >>> import keras
        >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(8)])
        >>> adapted = add_adapters(model, np.eye(8), rank=2).model
        >>> merge_adapters(adapted, np.eye(8)).model.count_params() == model.count_params()
        True
    """
    import keras

    inputs = check_examples(examples)
    adapted = {layer.name for layer in _list_adapted(model)}

    def clone(layer: Any) -> Any:
        config = layer.get_config()
        if layer.name in adapted:
            config.pop("lora_rank"), config.pop("lora_alpha")
            config.pop("quantization_config", None)
            config["dtype"] = keras.DTypePolicy(layer.dtype_policy.name.split("_from_")[-1])
        return type(layer).from_config(config)

    walked = keras.Model(model.inputs, model.outputs, name=model.name)
    merged = keras.models.clone_model(walked, clone_function=clone)
    for layer in filter(lambda layer: layer.weights, model.layers):
        weights = layer.get_weights()
        if layer.name in adapted:
            weights = [merge_kernel(layer), *([] if layer.bias is None else [layer.bias])]
            weights = [to_numpy(weight) for weight in weights]
        merged.get_layer(layer.name).set_weights(weights)
        # What was frozen for the adapters' sake may learn again.
        merged.get_layer(layer.name).trainable = True
    compile_alike(merged, model)
    method = f"adapters of {len(adapted)} layers merged"
    return Compressed(merged, make_report(model, merged, method=method, examples=inputs))


def merge_kernel(layer: Any) -> np.ndarray:
    """The kernel `W + (alpha / rank) A B` of an adapted layer, in its own format's float.

    Args:
        layer: a layer with adapters; its `W` is what a quantized kernel stands for.

    Returns:
        An array of the kernel's shape.
    """
    from keras import ops, quantizers

    if layer.quantization_mode is None:
        return to_numpy(layer.kernel)
    kernel = layer._kernel
    if layer.quantization_mode == "int4":
        kernel = quantizers.unpack_int4(kernel, layer._orig_output_dim, axis=-1)
    kernel, scale = (to_numpy(each).astype("float32") for each in (kernel, layer.kernel_scale))
    if hasattr(layer, "kernel_zero"):  # a scale and a zero for each block of inputs
        block = to_numpy(layer.g_idx).astype(int)
        kernel = (kernel - to_numpy(layer.kernel_zero).astype("float32")[block]) * scale[block]
    else:
        kernel = kernel / scale
    change = ops.matmul(layer.lora_kernel_a, layer.lora_kernel_b)
    return np.asarray(kernel + layer.lora_alpha / layer.lora_rank * to_numpy(change))


def _explain(layer: Any, filters: Filters) -> str | None:
    """Why a layer with a matrix gets no adapter, or None."""
    if type(layer).__name__ not in _ADAPTABLE:
        return f"a {type(layer).__name__} takes no adapter"
    if not matches_filters(layer, filters):
        return "the filters do not match it"
    return None if layer.kernel_constraint is None else "its kernel has a constraint"


def _adapt(model: Any, names: Iterable[str], *, rank: int, alpha: float, mode: str | None) -> Any:
    adapted = copy_model(model, is_compiled=False)
    chosen = set(names)
    for layer in adapted.layers:
        if layer.name not in chosen:
            layer.trainable = False
            continue
        layer.trainable = True
        if mode is not None and type(layer).__name__ == "Dense":
            layer.quantize(mode)
        layer.enable_lora(rank, lora_alpha=alpha)
        if layer.bias is not None:
            layer.bias.trainable = False
    compile_alike(adapted, model)
    return adapted


def _list_adapted(model: Any) -> list[Any]:
    layers = [
        layer for layer in getattr(model, "layers", []) if getattr(layer, "lora_enabled", False)
    ]
    if not layers:
        raise InputError(
            "model", "must have adapters", "a model without", "pass it to `add_adapters` first"
        )
    return layers


def _measure_matrix(shape: tuple[int, ...]) -> tuple[int, int]:
    return int(np.prod(shape[:-1])), int(shape[-1])


def _hash_base(model: Any) -> str:
    """Hash of all weights but the adapters."""
    digest = hashlib.sha256()
    for layer in model.layers:
        adapters = {id(weight) for weight in _get_adapters(layer).values()}
        for weight in layer.weights:
            if id(weight) not in adapters:
                array = to_numpy(weight)
                digest.update(f"{layer.name} {array.dtype} {array.shape}".encode())
                digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def _get_adapters(layer: Any) -> Mapping[str, Any]:
    names = ("lora_kernel_a", "lora_kernel_b")
    return {name: getattr(layer, name) for name in names if hasattr(layer, name)}
