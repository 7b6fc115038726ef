"""Where the errors lie: confusions, slices with joint intervals, the worst single errors."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from .._checks import (
    InputError,
    check_integer,
    check_labels,
    check_predictions,
    check_real,
    check_same_length,
)
from ..benchmark import Interval, estimate_proportion_interval
from ._inputs import check_correct


def count_confusions(y: Any, predicted: Any, *, num_classes: int) -> np.ndarray:
    """Counts how often each class was taken for each other.

    Args:
        y: true class numbers, `(num_examples,)`.
        predicted: predicted class numbers, `(num_examples,)`.
        num_classes: number of classes, at least 2.

    Returns:
        Counts `(num_classes, num_classes)`, int64: rows are true, columns predicted.

    Raises:
        InputError: if lengths differ or a class number is out of range.

    Limits:
        Counts, not rates: a rare class has a short row.

    Example:
        >>> count_confusions([0, 0, 1], [0, 1, 1], num_classes=2).tolist()
        [[1, 1], [0, 1]]
    """
    classes = check_integer("num_classes", num_classes, at_least=2)
    true = check_labels("y", y, num_classes=classes)
    guess = check_labels("predicted", predicted, num_classes=classes)
    check_same_length(y=true, predicted=guess)
    flat = np.bincount(true * classes + guess, minlength=classes**2)
    return flat.reshape(classes, classes)


@dataclass(frozen=True)
class SliceReport:
    """Accuracy of the whole and of each slice.

    Attributes:
        overall: accuracy over all examples, with an interval of its own at `confidence`.
        slices: accuracy by name of the slice. The intervals hold together: that all of
            them hold the true value has probability `confidence` at least.
        num_examples: examples by name of the slice.
        confidence: joint confidence of the intervals in `slices`.
    """

    overall: Interval
    slices: dict[str, Interval]
    num_examples: dict[str, int]
    confidence: float

    @property
    def worst(self) -> str:
        """Name of the slice with the lowest accuracy; the first of equals."""
        return min(self.slices, key=lambda name: self.slices[name].value)

    def to_dict(self) -> dict[str, Any]:
        """Returns the report as plain dictionaries, ready for JSON."""
        return {
            "overall": self.overall.to_dict(),
            "slices": {name: interval.to_dict() for name, interval in self.slices.items()},
            "num_examples": dict(self.num_examples),
            "confidence": self.confidence,
            "worst": self.worst,
        }


def measure_slices(
    correct: Any, slices: Mapping[str, Any], *, confidence: float = 0.95
) -> SliceReport:
    r"""Accuracy of every slice, with intervals that hold for all slices together.

    The worst of `k` slices is picked because it is low, so an interval made for one slice
    is too narrow for it. Each slice therefore gets an interval at confidence
    :math:`1 - \alpha/k` instead of :math:`1 - \alpha`: by Bonferroni's inequality all `k`
    hold at once with probability :math:`1 - \alpha` or more. They are the exact intervals
    of Clopper and Pearson, because normal approximations such as Wilson's fail so far out.

    Args:
        correct: whether each prediction is right, `(num_examples,)`.
        slices: name to a mask `(num_examples,)`. Slices may overlap. For classes pass
            `{name: y == number}`. Choose slices before looking at the errors.
        confidence: joint confidence of all slices, in (0, 1).

    Returns:
        The report; its `worst` names the slice with the lowest accuracy.

    Raises:
        InputError: if there is no slice, one is empty, or a mask has another length.

    Limits:
        The intervals cover luck, not choice: the value of the worst slice is still too
        low on average, the more so the smaller the slices. Both exactness and overlap make
        the intervals wider than needed.

    Example:
        >>> report = measure_slices([1, 1, 1, 0], {"a": [1, 1, 0, 0], "b": [0, 0, 1, 1]})
        >>> report.worst, f"{report.slices['b']:.2f}"
        ('b', '0.50 [0.01, 0.99]')

    References:
        Clopper and Pearson, The Use of Confidence or Fiducial Limits Illustrated in the Case
        of the Binomial, Biometrika 26, 1934. Dunn, Multiple Comparisons Among Means, Journal
        of the American Statistical Association 56, 1961.
    """
    right = check_correct("correct", correct)
    check_real("confidence", confidence, at_least=0.001, at_most=0.999)
    if not slices:
        raise InputError("slices", "must name at least one slice", "{}", "pass {name: mask}")
    masks = {name: check_correct(f"slices[{name!r}]", mask) for name, mask in slices.items()}
    for name, mask in masks.items():
        check_same_length(**{"correct": right, f"slices[{name!r}]": mask})
        if not mask.any():
            raise InputError(
                f"slices[{name!r}]", "must hold an example", "none", "drop or widen the slice"
            )
    each = 1 - (1 - confidence) / len(masks)
    return SliceReport(
        estimate_proportion_interval(int(right.sum()), len(right), confidence=confidence),
        {
            name: _estimate_exact_interval(int(right[mask].sum()), int(mask.sum()), each)
            for name, mask in masks.items()
        },
        {name: int(mask.sum()) for name, mask in masks.items()},
        confidence,
    )


def find_worst_errors(probabilities: Any, y: Any, *, num_errors: int = 10) -> np.ndarray:
    """Finds the wrong predictions that gave the true class the least probability.

    Args:
        probabilities: `(num_examples, num_classes)`.
        y: true class numbers, `(num_examples,)`.
        num_errors: how many to return at most.

    Returns:
        Indices of wrong predictions, the largest loss first, equal losses in their order;
        shorter than `num_errors` if there are fewer errors.

    Raises:
        InputError: if rows are no probabilities or labels do not fit them.

    Limits:
        A large loss may be the label's fault: look at the example before the model.

    Example:
        >>> table = [[0.9, 0.1], [0.2, 0.8], [0.4, 0.6]]
        >>> find_worst_errors(table, [1, 1, 0]).tolist()
        [0, 2]
    """
    count = check_integer("num_errors", num_errors, at_least=1)
    table, labels = check_predictions(probabilities, y)
    wrong = np.flatnonzero(table.argmax(axis=1) != labels)
    order = np.argsort(table[wrong, labels[wrong]], kind="stable")
    return wrong[order][:count]


def measure_batch_size_spread(
    evaluate: Callable[[int], float], batch_sizes: Sequence[int]
) -> float:
    """How far a metric of fixed data moves with the size of the batches it is computed in.

    A mean over examples does not move. A mean of batch means counts an example in a short
    last batch for more.

    Args:
        evaluate: function from a batch size to the metric.
        batch_sizes: sizes to try, at least two; take one that leaves a short last batch.

    Returns:
        Largest minus smallest value, in the unit of the metric.

    Raises:
        InputError: if fewer than two sizes are given or a value is not finite.

    Limits:
        Shows only what the sizes tried can show: sizes that divide the data agree.

    Example:
        >>> values = np.array([1.0, 1.0, 1.0, 0.0])
        >>> def mean_of_means(size):
        ...     return np.mean([values[i : i + size].mean() for i in range(0, 4, size)])
        >>> measure_batch_size_spread(mean_of_means, [2, 3])
        0.25
    """
    if len(batch_sizes) < 2:
        raise InputError("batch_sizes", "must hold two sizes", len(batch_sizes), "pass more")
    values = [
        check_real(f"evaluate({size})", evaluate(check_integer("batch_size", size, at_least=1)))
        for size in batch_sizes
    ]
    return max(values) - min(values)


def _estimate_exact_interval(successes: int, trials: int, confidence: float) -> Interval:
    """Interval of Clopper and Pearson: it holds the truth with `confidence` or more."""
    tail = (1 - confidence) / 2
    low = _find_rate(successes, trials, tail)
    high = 1 - _find_rate(trials - successes, trials, tail)
    return Interval(successes / trials, low, high, confidence)


@lru_cache(maxsize=1024)  # slices of one size share their counts, and resamples even more
def _find_rate(successes: int, trials: int, tail: float) -> float:
    """The rate at which so many successes or more have probability `tail`, by bisection."""
    if successes == 0:
        return 0.0
    counts = np.arange(successes, trials + 1)
    logarithms = np.array([math.lgamma(k + 1) + math.lgamma(trials - k + 1) for k in counts])
    choices = math.lgamma(trials + 1) - logarithms
    low, high = 0.0, 1.0
    while high - low > 1e-12:
        rate = (low + high) / 2
        terms = choices + counts * math.log(rate) + (trials - counts) * math.log1p(-rate)
        low, high = (rate, high) if np.exp(terms).sum() < tail else (low, rate)
    return low
