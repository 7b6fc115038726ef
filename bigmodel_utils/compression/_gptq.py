"""Rounding that knows the inputs: GPTQ, on the integer grids that Keras stores."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .._checks import InputError, check_array, check_integer, check_real

EPSILON = 1e-7
"""What Keras adds to a range, so that a row of zeros has a scale."""


@dataclass(frozen=True)
class IntegerKernel:
    """A kernel as integers: `(integers - zeros) * steps` stands for the weights.

    Attributes:
        integers: `(num_inputs, num_outputs)` of int8.
        steps: distance of two neighbors, `(num_blocks, num_outputs)`; a block is as many
            inputs as `block_size` says, or all of them.
        zeros: the integer that stands for nought, in the shape of `steps`.
        block_size: inputs of a block, the last block may have fewer; `None` is one block.
    """

    integers: np.ndarray = field(repr=False)
    steps: np.ndarray = field(repr=False)
    zeros: np.ndarray = field(repr=False)
    block_size: int | None

    def decode(self) -> np.ndarray:
        """The weights that the integers stand for, `(num_inputs, num_outputs)`."""
        steps, zeros = self._spread()
        return np.asarray((self.integers - zeros) * steps)

    def _spread(self) -> tuple[np.ndarray, np.ndarray]:
        """Steps and zeros of every weight."""
        rows = np.arange(len(self.integers)) // (self.block_size or len(self.integers))
        return self.steps[rows], self.zeros[rows].astype(np.int32)


def quantize_to_nearest(
    kernel: Any, *, num_bits: int = 4, block_size: int | None = 128
) -> IntegerKernel:
    """Rounds each weight of a kernel to the nearest integer of its grid, as Keras does.

    Args:
        kernel: weights of shape `(num_inputs, num_outputs)`.
        num_bits: bits of an integer, 2 to 8; Keras stores 4.
        block_size: inputs that share a step and a zero point in each output's column. With
            `None` a column has one step and no zero point.

    Returns:
        Integers from `-2**(num_bits - 1)` to `2**(num_bits - 1) - 1`, and what they stand for.

    Raises:
        InputError: if the kernel is no finite matrix or a size is out of range.

    Example:
        >>> quantize_to_nearest([[0.7], [-0.32], [0.04]], block_size=None).integers.ravel()
        array([ 7, -3,  0], dtype=int8)
    """
    weights = check_array("kernel", kernel, shape=(None, None)).astype(np.float32)
    return _round(weights, _make_grid(weights, num_bits, block_size), num_bits)


def quantize_with_gptq(
    kernel: Any,
    inputs: Any,
    *,
    num_bits: int = 4,
    block_size: int | None = 128,
    damping: float = 0.01,
) -> IntegerKernel:
    """Rounds the weights of a kernel so that its outputs on the inputs change little.

    The grid is that of `quantize_to_nearest`. The weights are rounded one input after the
    other, and the error of each is made up for by those not yet rounded, as far as the inputs
    go together: with `U` the upper Cholesky factor of the inverse of `H = inputsᵀ inputs`,
    the weights `w_j` that follow change by `-(w_i - q_i) / U_ii * U_ij`.

    Args:
        kernel: weights of shape `(num_inputs, num_outputs)`.
        inputs: what the layer is given, `(num_examples, num_inputs)`.
        num_bits: bits of an integer, 2 to 8.
        block_size: as in `quantize_to_nearest`.
        damping: share of the mean of `H`'s diagonal that is added to the diagonal, above 0.

    Returns:
        Integers on the same grid, of the same size.

    Raises:
        InputError: if the shapes do not fit, a number is not finite, or all inputs are 0.

    Limits:
        The order is by falling diagonal of `H`, the largest inputs first. It is greedy: on
        most layers the error is far below that of the nearest integers, on a few tiny ones
        it is above. Few examples make weights that fit these alone.

    Example:
        >>> kernel = np.array([[0.7], [0.34], [0.34]])
        >>> inputs = np.array([[1.0, 1, 1], [1, 1, 1.1]])
        >>> quantize_with_gptq(kernel, inputs, block_size=None).integers.ravel()
        array([7, 4, 3], dtype=int8)

    References:
        Frantar et al., GPTQ: Accurate Post-Training Quantization for Generative Pre-trained
        Transformers (2023), algorithm 1.
    """
    weights = check_array("kernel", kernel, shape=(None, None)).astype(np.float32)
    seen = check_array("inputs", inputs, shape=(None, len(weights))).astype(np.float64)
    check_real("damping", damping, at_least=1e-8)
    grid = _make_grid(weights, num_bits, block_size)
    steps, zeros = grid._spread()
    order, factor = factor_inverse(seen, damping=damping)
    rest = weights[order].astype(np.float64)
    integers = np.empty(weights.shape, np.int8)
    for place, row in enumerate(order):
        wanted = rest[place] / steps[row] + zeros[row]
        integers[row] = _to_integers(wanted, num_bits)
        error = (rest[place] - (integers[row] - zeros[row]) * steps[row]) / factor[place, place]
        rest[place + 1 :] -= np.outer(factor[place, place + 1 :], error)
    return IntegerKernel(integers, grid.steps, grid.zeros, block_size)


def factor_inverse(inputs: np.ndarray, *, damping: float) -> tuple[np.ndarray, np.ndarray]:
    """The order of rounding, and `U` of `H⁻¹ = UᵀU` with rows and columns in that order.

    Raises:
        InputError: if all inputs are 0.
    """
    hessian = inputs.T @ inputs
    mean = float(np.trace(hessian)) / len(hessian)
    if mean == 0:
        raise InputError(
            "inputs", "must not all be 0", "nothing else", "pass inputs that the layer is given"
        )
    order = np.argsort(-np.diag(hessian), kind="stable")
    damped = hessian[np.ix_(order, order)] + damping * mean * np.eye(len(hessian))
    return order, np.linalg.cholesky(np.linalg.inv(damped)).T


def _make_grid(weights: np.ndarray, num_bits: int, block_size: int | None) -> IntegerKernel:
    """Steps and zero points of a kernel, as Keras computes them; the integers are all 0."""
    check_integer("num_bits", num_bits, at_least=2, at_most=8)
    none = np.zeros(weights.shape, np.int8)
    smallest, largest = -(2 ** (num_bits - 1)), 2 ** (num_bits - 1) - 1
    if block_size is None:
        scales = np.float32(largest) / (np.abs(weights).max(axis=0) + np.float32(EPSILON))
        steps = 1 / scales[None]
        return IntegerKernel(none, steps, np.zeros(steps.shape, np.int8), None)
    check_integer("block_size", block_size, at_least=1)
    # Keras fills the last block up with zeros, which then belong to its range.
    filled = np.pad(weights, ((0, -len(weights) % block_size), (0, 0)))
    blocks = filled.reshape(-1, block_size, weights.shape[1])
    low, high = blocks.min(axis=1), blocks.max(axis=1)
    steps = (high - low + np.float32(EPSILON)) / np.float32(largest - smallest)
    zeros = np.clip(np.rint(-low / steps) + smallest, smallest, largest).astype(np.int8)
    return IntegerKernel(none, steps, zeros, block_size)


def _round(weights: np.ndarray, grid: IntegerKernel, num_bits: int) -> IntegerKernel:
    steps, zeros = grid._spread()
    integers = _to_integers(np.rint(weights / steps) + zeros, num_bits)
    return IntegerKernel(integers, grid.steps, grid.zeros, grid.block_size)


def _to_integers(wanted: np.ndarray, num_bits: int) -> np.ndarray:
    half = 2 ** (num_bits - 1)
    return np.asarray(np.clip(np.rint(wanted), -half, half - 1), np.int8)
