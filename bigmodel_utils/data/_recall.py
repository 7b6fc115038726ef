"""Sequences whose answer lies a known number of steps back."""

from __future__ import annotations

import numpy as np

from .._checks import InputError, check_integer


def make_recall_examples(
    num_examples: int,
    *,
    distance: int,
    length: int | None = None,
    num_symbols: int = 2,
    seed: int = 0,
) -> tuple[np.ndarray, np.ndarray]:
    """Makes sequences in which one symbol, then only fillers, and asks which symbol it was.

    The symbol stands `distance` steps before the last; every step after it is a filler drawn
    at random, which says nothing about the answer. Steps before the symbol are zero, to be
    masked, so that sequences of several distances share a length.

    Args:
        num_examples: number of sequences.
        distance: steps between the symbol and the end of the sequence, at least 1.
        length: steps of every sequence; `distance + 1` if left out.
        num_symbols: number of symbols, and of fillers, each equally likely.
        seed: seed of symbols and fillers.

    Returns:
        One-hot inputs of shape `(num_examples, length, 2 * num_symbols)`, float32, symbols
        first and fillers after, and the symbols as class numbers `(num_examples,)`.

    Raises:
        InputError: if a number is too small or the symbol would stand before the start.

    Limits:
        One fact to keep, and fillers that look unlike it. Real text asks for more.

    Example:
        >>> x, y = make_recall_examples(1, distance=2, length=4, seed=1)
        >>> x[0].astype(int).tolist(), y.tolist()
        ([[0, 0, 0, 0], [1, 0, 0, 0], [0, 0, 0, 1], [0, 0, 0, 1]], [0])

    References:
        Bengio, Simard and Frasconi, Learning Long-Term Dependencies with Gradient Descent Is
        Difficult, IEEE Transactions on Neural Networks 5, 1994, section II; Hochreiter and
        Schmidhuber, Long Short-Term Memory, Neural Computation 9, 1997, section 5.2.
    """
    count = check_integer("num_examples", num_examples, at_least=1)
    steps = check_integer("distance", distance, at_least=1)
    symbols = check_integer("num_symbols", num_symbols, at_least=2)
    total = steps + 1 if length is None else check_integer("length", length, at_least=2)
    if total <= steps:
        raise InputError(
            "distance", "must be less than `length`", f"{steps} of {total} steps", "lengthen"
        )
    generator = np.random.default_rng(check_integer("seed", seed, at_least=0))
    y = generator.integers(symbols, size=count)
    tokens = symbols + generator.integers(symbols, size=(count, steps + 1))
    tokens[:, 0] = y
    x = np.zeros((count, total, 2 * symbols), np.float32)
    x[:, total - steps - 1 :] = np.eye(2 * symbols, dtype=np.float32)[tokens]
    return x, y
