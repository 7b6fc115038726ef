"""Whether a loss is smallest where the model gives the answer it is trained towards."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .._checks import check_array, check_integer, check_real

# From a nudge to an answer that has nothing left of the right one.
NOISE = (0.1, 1.0, 10.0)
FACTORS = (0.01, 0.5, 2.0, 10.0)
SHIFTS = (-10.0, -1.0, 1.0, 10.0)


def measure_loss_fall(
    loss: Callable[[Any, Any], Any], scores: Any, *, num_draws: int = 30, seed: int = 0
) -> float:
    """Largest fall of a loss when the right answer is replaced by a wrong one.

    Training goes where the loss is smallest. If some wrong answer costs less than the right
    one, a run can end there, and its curve looks the better for it. The wrong answers tried
    are the right one shrunk, stretched, shifted, and hidden under noise of three sizes.

    Args:
        loss: function from target scores and given scores, both of the shape of `scores`, to a
            loss. Put the last activation of the model into it: what is compared are scores.
        scores: the right answer, `(num_examples, num_scores)`, such as a teacher's logits.
        num_draws: draws of noise of each size.
        seed: seed of the noise.

    Returns:
        Loss of the right answer minus the smallest loss of a wrong one, in the loss's unit;
        at most rounding, if no change paid.

    Raises:
        InputError: if the scores are not finite or a loss is not.

    Limits:
        A search finds no pocket of lower loss that it does not try: a value above rounding is
        a fault, none is no proof.

    Example:
        >>> def squared(target, given):
        ...     return ((target - given) ** 2).mean()
        >>> def signed(target, given):  # an error below zero looks like progress
        ...     return (given - target).mean()
        >>> scores = [[1.0, -1.0], [0.5, 2.0]]
        >>> measure_loss_fall(squared, scores) < 0, measure_loss_fall(signed, scores) > 1
        (True, True)

    References:
        Gneiting and Raftery, Strictly Proper Scoring Rules, Prediction, and Estimation, Journal
        of the American Statistical Association 102, 2007.
    """
    right = check_array("scores", scores, shape=(None, None)).astype(np.float32)
    count = check_integer("num_draws", num_draws, at_least=1)
    generator = np.random.default_rng(seed)

    def evaluate(given: np.ndarray) -> float:
        return check_real("loss(scores, given)", float(loss(right, given.astype(np.float32))))

    wrong = [factor * right for factor in FACTORS] + [right + shift for shift in SHIFTS]
    wrong += [
        right + size * generator.normal(size=right.shape) for size in NOISE for _ in range(count)
    ]
    return evaluate(right) - min(map(evaluate, wrong))
