"""How much a unit matters: by the norm of its weights, by its scale, by the loss."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from .._checks import InputError, check_array, check_same_length
from ._channels import ChannelMap

RANKINGS = ("norm", "batch_norm", "taylor")
BATCH_SIZE = 32


def measure_importance(
    model: Any, channels: ChannelMap, *, ranking: str, data: tuple[np.ndarray, Any]
) -> dict[int, float]:
    """Importance of every unit, by its label.

    Args:
        model: the model that was mapped.
        channels: its map.
        ranking: one of `RANKINGS`.
        data: inputs and targets; the latter for `"taylor"` only.

    Returns:
        Label to a number that is not negative, comparable within a layer.

    Raises:
        InputError: if the ranking needs what the model or the data do not have.
    """
    if ranking == "taylor":
        return _measure_taylor(model, channels, data)
    if ranking == "batch_norm":
        return _measure_scales(model, channels)
    squares = {
        name: [array.astype(np.float64) ** 2 for array in model.get_layer(name).get_weights()]
        for name in channels.producers
    }
    return {unit: float(np.sqrt(total)) for unit, total in _add_up(channels, squares).items()}


def _add_up(channels: ChannelMap, values: Mapping[str, list[np.ndarray]]) -> dict[int, float]:
    """Sums what belongs to the weights that make a unit, over all layers that make it."""
    totals = dict.fromkeys(map(channels.find, range(len(channels.parents))), 0.0)
    for name in channels.producers:
        output = channels.uses[name][1]
        for value, cut in zip(values[name], channels.cuts[name], strict=True):
            axes = [axis for axis, labels in cut.items() if labels is output]
            for axis in axes:
                others = tuple(other for other in range(value.ndim) if other != axis)
                for root, part in zip(
                    channels.find_all(output).tolist(), value.sum(axis=others), strict=True
                ):
                    totals[root] += float(part)
    return totals


def _measure_scales(model: Any, channels: ChannelMap) -> dict[int, float]:
    totals: dict[int, float] = {}
    for layer in model.layers:
        if type(layer).__name__ == "BatchNormalization" and layer.scale:
            inputs, _ = channels.uses[layer.name]
            scales = np.abs(layer.get_weights()[0]).tolist()
            for root, scale in zip(channels.find_all(inputs[0]).tolist(), scales, strict=True):
                totals[root] = totals.get(root, 0.0) + scale
    for name in channels.producers:
        for root in channels.find_all(channels.uses[name][1]).tolist():
            if root not in totals and root not in channels.held:
                raise InputError(
                    "ranking",
                    "must fit the model: `batch_norm` needs a BatchNormalization after each unit",
                    f"none after {name!r}",
                    "pass ranking='norm'",
                )
    return totals


def _measure_taylor(
    model: Any, channels: ChannelMap, data: tuple[np.ndarray, Any]
) -> dict[int, float]:
    x, targets = data
    if targets is None or not model.compiled:
        raise InputError(
            "targets",
            "must be given, and the model compiled with a loss, for ranking='taylor'",
            "None" if targets is None else "a model that is not compiled",
            "pass the targets of the examples",
        )
    y = check_array("targets", targets)
    check_same_length(examples=x, targets=y)
    makers = [model.get_layer(name) for name in channels.producers]
    totals: dict[int, float] = {}
    for start in range(0, len(x), BATCH_SIZE):
        rows = slice(start, start + BATCH_SIZE)
        gradients = iter(compute_gradients(model, (x[rows], y[rows]), layers=makers))
        products = {
            layer.name: [
                weight.astype(np.float64) * next(gradients) for weight in layer.get_weights()
            ]
            for layer in makers
        }
        for unit, total in _add_up(channels, products).items():
            totals[unit] = totals.get(unit, 0.0) + total**2
    return totals


def compute_gradients(
    model: Any, data: tuple[np.ndarray, np.ndarray], *, layers: list[Any]
) -> list[np.ndarray]:
    """Gradients of the compiled loss by the weights of the given layers, in inference mode.

    Raises:
        InputError: on a backend other than TensorFlow and JAX.
    """
    import keras

    x, y = data
    weights = [weight for layer in layers for weight in layer.trainable_weights]
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        with tf.GradientTape() as tape:
            loss = model.compute_loss(x=x, y=y, y_pred=model(x, training=False), training=False)
        found = tape.gradient(loss, [weight.value for weight in weights])
        return [np.asarray(tf.convert_to_tensor(gradient)) for gradient in found]
    if keras.backend.backend() == "jax":
        import jax

        def compute_loss(values: list[Any]) -> Any:
            with keras.StatelessScope(list(zip(weights, values, strict=True))):
                return model.compute_loss(x=x, y=y, y_pred=model(x, training=False), training=False)

        return [
            np.asarray(gradient)
            for gradient in jax.grad(compute_loss)([weight.value for weight in weights])
        ]
    raise InputError(
        "KERAS_BACKEND",
        "must be tensorflow or jax",
        repr(keras.backend.backend()),
        "set it and start again",
    )
