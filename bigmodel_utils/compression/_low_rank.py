"""Kernels split in two thin ones, by what their outputs are on examples."""

from __future__ import annotations

from typing import Any

import numpy as np

from .._checks import InputError, check_integer, check_real
from ._models import (
    Filters,
    check_examples,
    check_model,
    choose_layers,
    compile_alike,
    has_matrix,
    matches_filters,
    to_numpy,
)
from ._result import Compressed, make_report

_CONVOLUTIONS = ("Conv1D", "Conv2D", "Conv3D")


def factorize_layers(
    model: Any,
    examples: Any,
    *,
    error_budget: float | None = None,
    rank: int | None = None,
    filters: Filters = None,
) -> Compressed:
    """Splits Dense and Conv layers in two thin layers each, where that saves parameters.

    A kernel `W` becomes `(W V) Vᵀ`, where `V` holds the first right singular vectors of the
    layer's outputs `X W` on the examples. Of all changes of that rank it moves these
    outputs least. A convolution becomes one with fewer filters and one of size 1.

    Args:
        model: a functional or sequential `keras.Model`, not quantized.
        examples: inputs of shape `(num_examples, …)` that decide, and on which the two models
            are compared.
        error_budget: largest relative error of a layer's outputs before bias and
            activation, `‖X W - X W V Vᵀ‖ / ‖X W‖` in the Frobenius norm, from 0 to below 1;
            chooses the smallest rank of each layer that keeps to it.
        rank: instead, the rank of all layers.
        filters: patterns of the names of layers to split, or a function of a layer; all if
            left out.

    Returns:
        The new model, compiled as the first, and its report; `left_out` names the layers
        with matrices that stayed, and why. The first of the two layers is called as the
        layer with `_low_rank` after it.

    Raises:
        InputError: if not exactly one of budget and rank is given, the rank is above a
            kernel, or no layer matches.

    Limits:
        The budget holds for each layer on its own: errors of layers that follow each other
        add up. It holds on the examples; others may fare worse. Two small products can be
        slower than one.

    Example:
        >>> import keras
        >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(8)])
        >>> smaller = factorize_layers(model, np.eye(8), rank=2).model
        >>> [weight.shape for weight in smaller.get_weights()]
        [(8, 2), (2, 8), (8,)]

    References:
        Eckart and Young, The Approximation of One Matrix by Another of Lower Rank (1936).
        Zhang et al., Accelerating Very Deep Convolutional Networks for Classification and
        Detection (2016), section 3.1.
    """
    check_model(model)
    inputs = check_examples(examples)
    if (error_budget is None) == (rank is None):
        raise InputError(
            "error_budget",
            "or `rank` must be given, and not both",
            f"{error_budget} and {rank}",
            "pass one of them",
        )
    chosen, left_out = choose_layers(
        filter(lambda layer: has_matrix(layer.weights), model.layers),
        filters,
        explain=lambda layer: _explain(layer, filters),
        wanted="that can be split",
    )
    if rank is not None:
        _check_rank(chosen, rank)
    elif not 0 <= check_real("error_budget", error_budget) < 1:
        raise InputError("error_budget", "must lie in [0, 1)", error_budget, "pass for example 0.1")
    splits: dict[str, np.ndarray] = {}
    for layer, gram in zip(chosen, _measure_grams(model, chosen, inputs), strict=True):
        rows, columns = int(np.prod(layer.kernel.shape[:-1])), int(layer.kernel.shape[-1])
        vectors, errors = find_directions(gram)
        count = rank if rank is not None else max(1, int(np.argmax(errors <= error_budget)))
        if count * (rows + columns) >= rows * columns:
            left_out[layer.name] = f"rank {count} of {rows} × {columns} saves nothing"
        else:
            splits[layer.name] = vectors[:, :count]
    smaller = _rebuild(model, splits)
    goal = f"rank {rank}" if rank is not None else f"relative error {error_budget:g}"
    method = f"{len(splits)} layers split in two, {goal} each"
    report = make_report(model, smaller, method=method, examples=inputs, left_out=left_out)
    return Compressed(smaller, report)


def find_directions(gram: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Singular vectors of outputs `Y`, and the error that is left by the first of them.

    Args:
        gram: `Yᵀ Y`, of shape `(num_outputs, num_outputs)`.

    Returns:
        `V` of the gram's shape, largest first; and for each rank, from 0, the relative
        Frobenius error `‖Y - Y V Vᵀ‖ / ‖Y‖`.

    Example:
        >>> _, errors = find_directions(np.diag([9.0, 16.0]))
        >>> errors.tolist()
        [1.0, 0.6, 0.0]
    """
    values, vectors = np.linalg.eigh(gram)
    values = np.maximum(values[::-1], 0)
    total = values.sum()
    if total == 0:
        return vectors[:, ::-1], np.zeros(len(values) + 1)
    tails = np.append(np.cumsum(values[::-1])[::-1], 0)
    return vectors[:, ::-1], np.sqrt(tails / total)


def _explain(layer: Any, filters: Filters) -> str | None:
    """Why a layer with a matrix is not split, or None."""
    kind = type(layer).__name__
    if kind != "Dense" and kind not in _CONVOLUTIONS:
        return f"a {kind} is not split"
    if not matches_filters(layer, filters):
        return "the filters do not match it"
    if len(layer._inbound_nodes) != 1:
        return "it is called more than once"
    return "it has groups" if getattr(layer, "groups", 1) > 1 else None


def _check_rank(layers: list[Any], rank: int) -> None:
    check_integer("rank", rank, at_least=1)
    for layer in layers:
        largest = min(int(np.prod(layer.kernel.shape[:-1])), int(layer.kernel.shape[-1]))
        if rank > largest:
            raise InputError(
                "rank",
                f"must be at most {largest}, for layer {layer.name!r}",
                rank,
                "lower it, or leave the layer out by `filters`",
            )


def _measure_grams(model: Any, layers: list[Any], inputs: np.ndarray) -> list[np.ndarray]:
    """`Yᵀ Y` of each layer's outputs `Y` before bias and activation, on the examples."""
    import keras

    walked = keras.Model(model.inputs, [layer.input for layer in layers])
    batch_size = 64
    grams = [np.zeros((layer.kernel.shape[-1],) * 2) for layer in layers]
    for start in range(0, len(inputs), batch_size):
        batches = walked.predict_on_batch(inputs[start : start + batch_size])
        batches = batches if isinstance(batches, list | tuple) else [batches]
        for gram, layer, batch in zip(grams, layers, batches, strict=True):
            outputs = _multiply(layer, keras.ops.convert_to_tensor(batch))
            rows = to_numpy(outputs).astype(np.float64)
            if getattr(layer, "data_format", None) == "channels_first":
                rows = np.moveaxis(rows, 1, -1)
            rows = rows.reshape(-1, gram.shape[0])
            np.add(gram, rows.T @ rows, out=gram)
    return grams


def _multiply(layer: Any, batch: Any) -> Any:
    from keras import ops

    kernel = ops.cast(layer.kernel, batch.dtype)
    if type(layer).__name__ == "Dense":
        return ops.matmul(batch, kernel)
    if layer.padding == "causal":
        batch = ops.pad(batch, layer._compute_causal_padding())
    return ops.conv(
        batch,
        kernel,
        strides=list(layer.strides),
        padding="valid" if layer.padding == "causal" else layer.padding,
        dilation_rate=layer.dilation_rate,
        data_format=layer.data_format,
    )


def _rebuild(model: Any, splits: dict[str, np.ndarray]) -> Any:
    import keras

    def call(layer: Any, *tensors: Any, **options: Any) -> Any:
        if layer.name not in splits:
            return layer(*tensors, **options)
        first, second = _split(layer, splits[layer.name].shape[1])
        return second(first(*tensors))

    walked = keras.Model(model.inputs, model.outputs, name=model.name)
    smaller = keras.models.clone_model(walked, call_function=call)
    for layer in filter(lambda layer: layer.weights, model.layers):
        weights = layer.get_weights()
        if layer.name in splits:
            vectors = splits[layer.name]
            kernel = weights[0].astype(np.float64) @ vectors
            smaller.get_layer(f"{layer.name}_low_rank").set_weights([kernel])
            shape = smaller.get_layer(layer.name).kernel.shape
            weights[0] = vectors.T.reshape(shape)
        smaller.get_layer(layer.name).set_weights(weights)
    compile_alike(smaller, model)
    return smaller


def _split(layer: Any, rank: int) -> tuple[Any, Any]:
    """Two layers for one: the first makes `rank` outputs, the second the layer's own of them."""
    config = layer.get_config()
    size = "units" if type(layer).__name__ == "Dense" else "filters"
    plain = {"activation": "linear", "use_bias": False, "name": f"{layer.name}_low_rank"}
    regularizers = {"bias_regularizer": None, "bias_constraint": None}
    first = type(layer).from_config({**config, **plain, **regularizers, size: rank})
    if size == "filters":
        config |= {"kernel_size": 1, "strides": 1, "dilation_rate": 1, "padding": "valid"}
    return first, type(layer).from_config(config)
