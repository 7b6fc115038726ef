"""Two models on the same examples: which is better, and how surely a test set can tell."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from statistics import NormalDist
from typing import Any

import numpy as np

from .._checks import InputError, check_integer, check_real, check_same_length
from ..benchmark import Interval
from ._inputs import check_correct


@dataclass(frozen=True)
class Comparison:
    """A model against a baseline on the same examples.

    Attributes:
        difference: accuracy of the model minus that of the baseline, as a fraction.
        num_won: examples that only the model has right.
        num_lost: examples that only the baseline has right.
        num_examples: all examples.
        p_value: exact probability, if both were equally good, of a split of the examples
            on which they disagree that is at least as uneven.
    """

    difference: Interval
    num_won: int
    num_lost: int
    num_examples: int
    p_value: float

    @property
    def disagreement(self) -> float:
        """Share of examples that exactly one of the two has right."""
        return (self.num_won + self.num_lost) / self.num_examples

    def to_dict(self) -> dict[str, Any]:
        """Returns the comparison as a plain dictionary, ready for JSON."""
        return asdict(self) | {"disagreement": self.disagreement}


def compare_accuracy(
    correct: Any,
    baseline: Any,
    *,
    confidence: float = 0.95,
    num_resamples: int = 10_000,
    seed: int = 0,
) -> Comparison:
    """Compares two models example by example: paired bootstrap interval and exact test.

    Examples that both have right, or both wrong, say nothing about which is better. The
    exact test of McNemar looks at the others: if the models were equally good, each of them
    would be won or lost by the toss of a coin.

    Args:
        correct: whether the model is right on each example, `(num_examples,)`.
        baseline: the same for the baseline, on the same examples in the same order.
        confidence: probability mass of the interval, in (0, 1).
        num_resamples: resamples of the examples, drawn with replacement.
        seed: seed of the resampling.

    Returns:
        The comparison; a positive difference is in favour of the model.

    Raises:
        InputError: if lengths differ or an entry is no boolean.

    Limits:
        Compares two sets of predictions, not two ways of training: another seed gives other
        predictions. One comparison; with several, divide the level of the test by their
        number. Where no example tells the two apart, the bootstrap interval has no width.

    Example:
        >>> won = compare_accuracy([1, 1, 1, 1, 1, 0], [0, 0, 0, 0, 0, 0])
        >>> won.num_won, won.num_lost, won.p_value
        (5, 0, 0.0625)

    References:
        McNemar, Note on the Sampling Error of the Difference Between Correlated Proportions
        or Percentages, Psychometrika 12, 1947. Dietterich, Approximate Statistical Tests for
        Comparing Supervised Classification Learning Algorithms, Neural Computation 10, 1998.
    """
    right, other = _check_pair(correct, baseline)
    check_real("confidence", confidence, at_least=0.001, at_most=0.999)
    check_integer("num_resamples", num_resamples, at_least=1)
    num_examples = len(right)
    counts = _count_outcomes(right, other)
    # A resample is fixed by how often it holds a win, a loss and a draw.
    draws = np.random.default_rng(seed).multinomial(
        num_examples, counts / num_examples, size=num_resamples
    )
    differences = (draws[:, 0] - draws[:, 1]) / num_examples
    tail = (1 - confidence) / 2
    low, high = np.quantile(differences, [tail, 1 - tail])
    won, lost = int(counts[0]), int(counts[1])
    difference = Interval((won - lost) / num_examples, float(low), float(high), confidence)
    return Comparison(difference, won, lost, num_examples, _test_coin(won, lost))


@dataclass(frozen=True)
class FlipRate:
    """How often small test sets rank two models like the large one; shares that sum to 1."""

    agreed: float
    tied: float
    flipped: float

    def to_dict(self) -> dict[str, float]:
        """Returns the three shares."""
        return asdict(self)


def measure_flip_rate(
    correct: Any, baseline: Any, *, num_examples: int, num_draws: int = 10_000, seed: int = 0
) -> FlipRate:
    """Measures how often a small test set names the other model the better one.

    Test sets of the given size are drawn from the examples without replacement. Each ranks
    the two models by accuracy, and all examples together say which is better.

    Args:
        correct: whether the one model is right on each example, `(num_total,)`.
        baseline: the same for the other, on the same examples in the same order.
        num_examples: examples in a small test set, at most `num_total`.
        num_draws: number of test sets drawn.
        seed: seed of the draws.

    Returns:
        The shares of test sets that agree, tie, and name the other.

    Raises:
        InputError: if the two are equally accurate on all examples, so that there is no
            better one, or `num_examples` exceeds what is there.

    Limits:
        All examples are a sample too: they may name the wrong model themselves.

    Example:
        >>> one, other = [1] * 60 + [0] * 40, [0] * 45 + [1] * 35 + [0] * 20
        >>> measure_flip_rate(one, other, num_examples=100).agreed
        1.0
    """
    right, other = _check_pair(correct, baseline)
    size = check_integer("num_examples", num_examples, at_least=1, at_most=len(right))
    counts = _count_outcomes(right, other)
    if counts[0] == counts[1]:
        raise InputError(
            "baseline",
            "must be better or worse than `correct`",
            f"{int(right.sum())} right in both",
            "there is no ranking to flip",
        )
    # A test set is fixed by how many wins, losses and draws it holds.
    drawn = np.random.default_rng(seed).multivariate_hypergeometric(
        counts, size, size=check_integer("num_draws", num_draws, at_least=1)
    )
    leads = np.sign(drawn[:, 0] - drawn[:, 1]) * np.sign(counts[0] - counts[1])
    return FlipRate(*(float(np.mean(leads == sign)) for sign in (1, 0, -1)))


def estimate_num_test_examples(
    difference: float,
    disagreement: float,
    *,
    num_comparisons: int = 1,
    confidence: float = 0.95,
    power: float = 0.8,
) -> int:
    r"""Test examples needed for a paired comparison to resolve a difference in accuracy.

    With disagreement :math:`d`, true difference :math:`\delta` and normal quantiles
    :math:`z`, McNemar's test at level :math:`\alpha/k` finds it with the stated power from

    .. math:: n = \frac{\bigl(z_{1-\alpha/2k}\sqrt{d} +
        z_{\text{power}}\sqrt{d-\delta^2}\bigr)^2}{\delta^2} .

    Args:
        difference: true difference in accuracy, above 0 (0.001 is a tenth of a point).
        disagreement: share of examples that exactly one of the two models has right; at
            least `difference`.
        num_comparisons: comparisons `k` made on the same test set (Bonferroni).
        confidence: :math:`1 - \alpha` for all comparisons together.
        power: probability of finding the difference.

    Returns:
        The number of examples, rounded up.

    Raises:
        InputError: if an argument lies outside its range.

    Limits:
        Normal approximation, for independent examples. A few more are needed where fewer
        than about twenty examples tell the models apart.

    Example:
        >>> estimate_num_test_examples(0.01, 0.03)
        2353

    References:
        Connor, Sample Size for Testing Differences in Proportions for the Paired-Sample
        Design, Biometrics 43, 1987.
    """
    gap = check_real("difference", difference, at_least=1e-9, at_most=1)
    apart = check_real("disagreement", disagreement, at_least=gap, at_most=1)
    count = check_integer("num_comparisons", num_comparisons, at_least=1)
    level = 1 - check_real("confidence", confidence, at_least=0.001, at_most=0.999999)
    chance = check_real("power", power, at_least=0.5, at_most=0.999999)
    normal = NormalDist()
    width = -normal.inv_cdf(level / (2 * count)) * math.sqrt(apart)
    width += normal.inv_cdf(chance) * math.sqrt(apart - gap**2)
    return math.ceil(width**2 / gap**2)


def _check_pair(correct: Any, baseline: Any) -> tuple[np.ndarray, np.ndarray]:
    right, other = check_correct("correct", correct), check_correct("baseline", baseline)
    check_same_length(correct=right, baseline=other)
    return right, other


def _count_outcomes(right: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Examples won, lost and drawn by the first."""
    return np.array([(right & ~other).sum(), (other & ~right).sum(), (right == other).sum()])


def _test_coin(heads: int, tails: int) -> float:
    """Two-sided exact probability of so uneven a split of tosses of a fair coin."""
    tosses = heads + tails
    logarithms = [
        math.lgamma(tosses + 1) - math.lgamma(k + 1) - math.lgamma(tosses - k + 1)
        for k in range(min(heads, tails) + 1)
    ]
    tail = math.fsum(math.exp(value - tosses * math.log(2)) for value in logarithms)
    return min(1.0, 2 * tail)
