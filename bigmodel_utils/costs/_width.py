"""The width at which a model costs a given budget."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

from .._checks import InputError, check_choice, check_integer
from ._layers import estimate_flops

LARGEST_WIDTH = 1 << 20


def find_width(
    build: Callable[[int], Any], *, budget: int, unit: str = "parameters", tolerance: float = 0.05
) -> int:
    """Finds the width at which a builder's model comes closest to a budget.

    Two architectures can be compared fairly only if they may spend the same. The width is
    doubled until the model is too large and then halved in on; nothing is trained or run.

    Args:
        build: function from a width, an integer from 1 up, to a built Keras model whose cost
            rises with it.
        budget: what the model may cost.
        unit: "parameters", or "operations" of the forward pass of one example.
        tolerance: share of the budget by which the closest model may miss it.

    Returns:
        The width.

    Raises:
        InputError: if no width comes close enough, the unit is unknown, or the operations of a
            layer are not known.

    Limits:
        Operations are those that `estimate_flops` counts. A backward pass takes about twice as
        many again, in every architecture alike, so that equal operations forward are equal
        operations of training.

    Example:
        >>> import keras
        >>> def build(width):
        ...     return keras.Sequential([keras.Input((9,)), keras.layers.Dense(width)])
        >>> find_width(build, budget=10_000)
        1000
    """
    wanted = check_integer("budget", budget, at_least=1)
    check_choice("unit", unit, ("parameters", "operations"))

    @cache
    def measure(width: int) -> int:
        return _count(build(width), unit)

    low, high = 0, 1  # the model of width `low` fits
    while high <= LARGEST_WIDTH and measure(high) <= wanted:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if measure(middle) <= wanted else (low, middle)
    width = min((w for w in (low, high) if w), key=lambda w: abs(measure(w) - wanted))
    cost = measure(width)
    if abs(cost - wanted) > tolerance * wanted:
        fix = "take another budget, or change what else decides the size"
        raise InputError(
            "budget", f"must be met to within {tolerance:.0%}", f"{cost} for {wanted}", fix
        )
    return width


def _count(model: Any, unit: str) -> int:
    if unit == "parameters":
        return int(model.count_params())
    report = estimate_flops(model)
    if report.not_counted:
        fix = "use layers that `estimate_flops` knows"
        raise InputError("build", "must use layers of known cost", report.not_counted, fix)
    return report.total
