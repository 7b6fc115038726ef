"""Does a run that adds up the gradients of small parts take the update of the whole batch?"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .._checks import InputError, check_integer
from ._settings import Examples, check_examples


def measure_accumulation_difference(
    build_model: Callable[[int], Any],
    data: Examples,
    *,
    num_parts: int,
    num_updates: int = 1,
    seed: int = 0,
) -> float:
    r"""Trains once by parts of batches, once by whole batches, and compares the updates.

    With :math:`\Delta` the change of all trainable weights, the relative difference is
    :math:`\lVert \Delta_{parts} - \Delta_{whole} \rVert / \lVert \Delta_{whole} \rVert`.

    Args:
        build_model: function from the number of parts to a compiled `keras.Model` that takes
            one update per that many calls of `train_on_batch`; of 1 it makes the model that
            the other must equal.
        data: inputs and targets of all updates in order, each with one row per example.
        num_parts: equal parts of a batch.
        num_updates: whole batches to cut the data into. One shows a loss or a layer that looks
            at its part; several also show a schedule or an average that counts parts.
        seed: seed of the initial weights.

    Returns:
        The relative difference: some 1e-7, the rounding of float32, if the parts make up the
        whole; near 1 if the updates have little in common.

    Raises:
        InputError: if the data cannot be cut evenly, or whole batches move no weight.

    Limits:
        Dropout draws other masks for parts than for the whole and counts as a difference:
        switch it off here. Adam's first steps divide each gradient by its own size, so that
        they magnify small differences, of rounding too. So does a rate that is small for the
        weights: what they round away is part of the difference.

    Example:
        >>> import keras
        >>> def build(num_parts):
        ...     model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
        ...     parts = num_parts if num_parts > 1 else None
        ...     model.compile(keras.optimizers.SGD(0.1, gradient_accumulation_steps=parts), "mse")
        ...     return model
        >>> x, y = np.arange(24.0).reshape(8, 3) / 24, np.ones((8, 1))
        >>> measure_accumulation_difference(build, (x, y), num_parts=4) < 1e-6
        True
    """
    x, y = check_examples("data", data)
    check_integer("num_parts", num_parts, at_least=2)
    check_integer("num_updates", num_updates, at_least=1)
    if len(x) % (num_updates * num_parts):
        raise InputError(
            "data",
            f"must be a multiple of {num_updates} updates of {num_parts} parts",
            f"{len(x)} examples",
            "drop the last ones",
        )
    by_parts, by_wholes = (
        _train(build_model, (x, y), parts=parts, num_updates=num_updates, seed=seed)
        for parts in (num_parts, 1)
    )
    size = float(np.linalg.norm(by_wholes))
    if size == 0:
        raise InputError(
            "num_updates", "must be enough to move a weight", num_updates, "pass more updates"
        )
    return float(np.linalg.norm(by_parts - by_wholes)) / size


def _train(
    build_model: Callable[[int], Any], data: Examples, *, parts: int, num_updates: int, seed: int
) -> np.ndarray:
    """Trains on equal slices of the data in order; returns the change of all weights."""
    import keras

    keras.utils.set_random_seed(seed)
    model = build_model(parts)
    before = _join(model)
    slices = (np.split(part, parts * num_updates) for part in data)
    for x, y in zip(*slices, strict=True):
        model.train_on_batch(x, y)
    change: np.ndarray = _join(model) - before
    return change


def _join(model: Any) -> np.ndarray:
    """All trainable weights as one vector, in double precision."""
    arrays = (np.asarray(weight, np.float64) for weight in model.trainable_weights)
    joined: np.ndarray = np.concatenate([array.ravel() for array in arrays])
    return joined
