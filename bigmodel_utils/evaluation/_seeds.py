"""Whether one way to build a model beats another, over seeds and at an equal budget."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from .._checks import InputError, check_array, check_real, check_same_length
from ..benchmark import Interval

LARGEST_BUDGET_RATIO = 1.05


@dataclass(frozen=True)
class SeedComparison:
    """How far one architecture leads another over the runs of several seeds.

    Attributes:
        lead: mean difference of the scores, with its interval; above 0 if the first is better.
        reversed_share: share of all pairs of one run of each in which the other one is better:
            how often a comparison of single runs would have named it.
        budget_ratio: the larger budget over the smaller.
        num_seeds: runs of each.
    """

    lead: Interval
    reversed_share: float
    budget_ratio: float
    num_seeds: int

    def to_dict(self) -> dict[str, Any]:
        """Returns the fields as a plain dictionary, ready for JSON."""
        return asdict(self)

    def __str__(self) -> str:
        return (
            f"lead {self.lead:.3g} over {self.num_seeds} seeds, budgets 1 : "
            f"{self.budget_ratio:.3f}, {self.reversed_share:.0%} of single pairs reversed"
        )


def compare_over_seeds(
    scores: Any,
    baseline: Any,
    *,
    budgets: Sequence[float],
    confidence: float = 0.95,
) -> SeedComparison:
    r"""Compares two architectures by runs that differ in nothing but the seed.

    Run :math:`i` of both has seed :math:`i`: the same examples in the same order. With
    :math:`\bar d` and :math:`s` the mean and the standard deviation of the differences of
    :math:`n` pairs, the interval is :math:`\bar d \pm t_{n-1}\, s / \sqrt n`, Student's.

    Args:
        scores: score of each run of the architecture, higher is better, `(num_seeds,)`.
        baseline: the same for the other, with the same seeds in the same order.
        budgets: what one model of each costs, in one unit: parameters, or operations of an
            example as `costs.estimate_flops` counts them.
        confidence: probability mass of the interval, in (0, 1).

    Returns:
        The lead with its interval, and how often single runs would have said the contrary.

    Raises:
        InputError: if a budget exceeds the other by more than 5 %, so that a lead may be the
            budget's; if there are fewer than two seeds, or the numbers of runs differ.

    Limits:
        Speaks of these builders on these examples, trained as they were: another learning
        rate, size or amount of data is another comparison. Assumes differences that are about
        normal, which a few seeds cannot show.

    Example:
        >>> report = compare_over_seeds([0.9, 0.8, 0.9], [0.7, 0.8, 0.6], budgets=(1000, 1010))
        >>> f"{report.lead:.2f}", round(report.reversed_share, 2)
        ('0.17 [-0.21, 0.55]', 0.0)

    References:
        Student, The Probable Error of a Mean, Biometrika 6, 1908. Henderson et al., Deep
        Reinforcement Learning That Matters, AAAI 2018, for single runs that mislead.
    """
    ours, theirs = (
        check_array(name, value, shape=(None,)).astype(np.float64)
        for name, value in (("scores", scores), ("baseline", baseline))
    )
    num_seeds = check_same_length(scores=ours, baseline=theirs)
    if num_seeds < 2:
        raise InputError("scores", "must hold at least two seeds", num_seeds, "repeat the runs")
    mass = check_real("confidence", confidence, at_least=0.001, at_most=0.999)
    ratio = _find_ratio(budgets)
    differences = ours - theirs
    mean = float(differences.mean())
    half = _find_quantile(mass, num_seeds - 1) * differences.std(ddof=1) / math.sqrt(num_seeds)
    return SeedComparison(
        lead=Interval(mean, float(mean - half), float(mean + half), mass),
        reversed_share=float(np.mean(np.sign(ours[:, None] - theirs) == -np.sign(mean)))
        if mean
        else 0.0,
        budget_ratio=ratio,
        num_seeds=num_seeds,
    )


def _find_ratio(budgets: Sequence[float]) -> float:
    pair = check_array("budgets", budgets, shape=(2,))
    low, high = sorted(check_real("budgets", float(budget), at_least=1) for budget in pair)
    if high > LARGEST_BUDGET_RATIO * low:
        raise InputError(
            "budgets",
            f"must be equal to within {LARGEST_BUDGET_RATIO - 1:.0%}",
            f"{low:g} and {high:g}",
            "change a width until they are, such as by `costs.find_width`",
        )
    return high / low


def _find_quantile(mass: float, freedom: int) -> float:
    """Half-width that holds a share of Student's distribution.

    With t = √n tan θ the density becomes cosⁿ⁻¹ θ on a finite range, which is summed up.
    """
    angles = np.linspace(0, math.pi / 2, 20_001)
    density = np.cos(angles) ** (freedom - 1)
    summed = np.concatenate([[0], np.cumsum((density[1:] + density[:-1]) / 2)])
    angle = np.interp(mass, summed / summed[-1], angles)
    return math.sqrt(freedom) * math.tan(float(angle))
