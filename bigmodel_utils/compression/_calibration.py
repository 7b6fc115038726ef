"""Which numbers an integer grid spans: affine quantization, and three ways to fix its range."""

from __future__ import annotations

from typing import Any

import numpy as np

from .._checks import InputError, check_array, check_choice, check_integer, check_real

CLIPPING_METHODS = ("minmax", "percentile", "mse")

NUM_CANDIDATES = 200
SMALLEST_FACTOR = 1e-3
"""The ranges tried by `"mse"`: the whole one, and each next one 3.4 % narrower."""


def round_to_grid(values: Any, *, low: float, high: float, num_bits: int) -> np.ndarray:
    """Rounds numbers to the nearest of the `2**num_bits` that an integer can stand for.

    An integer `q` from 0 to `2**num_bits - 1` stands for `(q - zero_point) * scale`. The scale
    is the length of the range over the number of steps, and the zero point is an integer, so
    that nought is exact.

    Args:
        values: numbers of any shape.
        low: smallest number of the range, at most 0.
        high: largest number, at least 0 and above `low`.
        num_bits: bits of an integer, 2 to 16.

    Returns:
        The rounded numbers as float64, in the shape of `values`.

    Raises:
        InputError: if the range is empty or does not hold nought.

    Limits:
        The zero point is rounded, which moves both ends of the range by up to half a step.
        Inside the range the error is at most half a step; outside it is not bounded.

    Example:
        >>> round_to_grid([-1.0, 0.0, 0.3, 9.0], low=-1.0, high=2.0, num_bits=2)
        array([-1.,  0.,  0.,  2.])

    References:
        Jacob et al., Quantization and Training of Neural Networks for Efficient
        Integer-Arithmetic-Only Inference (2018), section 2.1.
    """
    array = check_array("values", values).astype(np.float64)
    check_integer("num_bits", num_bits, at_least=2, at_most=16)
    if not low <= 0 <= high or low == high:
        raise InputError(
            "low and high",
            "must be two ends of a range that holds nought",
            (low, high),
            "extend the range to 0, which an integer must stand for exactly",
        )
    largest = 2**num_bits - 1
    scale = (high - low) / largest
    zero_point = np.clip(np.rint(-low / scale), 0, largest)
    integers = np.clip(np.rint(array / scale) + zero_point, 0, largest)
    return np.asarray((integers - zero_point) * scale)


def find_clipping_range(
    values: Any, *, method: str = "minmax", num_bits: int = 8, share: float = 0.999
) -> tuple[float, float]:
    """Finds the range of numbers that an integer grid should span.

    Args:
        values: numbers seen at one place of a network, of any shape.
        method: `"minmax"` spans all of them; `"percentile"` cuts both tails alike, until
            `share` is left; `"mse"` narrows the whole range by the factor that makes the mean
            squared error of `round_to_grid` least.
        num_bits: bits of an integer; used by `"mse"` alone.
        share: share of the numbers inside the range; used by `"percentile"` alone.

    Returns:
        The ends `(low, high)`, with 0 between them.

    Raises:
        InputError: if there are no numbers, one is not finite, all are 0, the method is
            unknown, or `share` lies outside (0, 1].

    Limits:
        `"mse"` tries 200 factors between 0.001 and 1 and narrows both ends alike. A small
        error of the numbers is not a small loss of the network: measure it.

    Example:
        >>> values = np.append(np.linspace(-1, 1, 1000), 50.0)
        >>> find_clipping_range(values)
        (-1.0, 50.0)
        >>> low, high = find_clipping_range(values, method="percentile", share=0.99)
        >>> low > -1, high < 1
        (True, True)

    References:
        Max, Quantizing for Minimum Distortion (1960), IRE Transactions on Information Theory;
        Banner et al., Post Training 4-bit Quantization of Convolutional Networks for
        Rapid-Deployment (2019).
    """
    array = check_array("values", values).astype(np.float64).ravel()
    check_choice("method", method, CLIPPING_METHODS)
    check_integer("num_bits", num_bits, at_least=2, at_most=16)
    check_real("share", share, at_least=1e-6, at_most=1)
    tail = (1 - share) / 2 if method == "percentile" else 0.0
    low, high = (float(end) for end in np.quantile(array, [tail, 1 - tail]))
    low, high = min(low, 0.0), max(high, 0.0)
    if low == high:
        raise InputError(
            "values", "must not all be 0", "nothing else", "pass what the layer gives on examples"
        )
    if method != "mse":
        return low, high

    def measure_error(factor: float) -> float:
        rounded = round_to_grid(array, low=factor * low, high=factor * high, num_bits=num_bits)
        return float(np.mean((rounded - array) ** 2))

    best = float(min(np.geomspace(1, SMALLEST_FACTOR, NUM_CANDIDATES), key=measure_error))
    return best * low, best * high
