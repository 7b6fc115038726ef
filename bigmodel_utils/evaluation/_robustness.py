"""How accuracy and confidence fall when the examples get worse."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .._checks import InputError, check_array, check_integer, check_predictions


@dataclass(frozen=True, eq=False)
class Robustness:
    """What became of every prediction under every corruption.

    Attributes:
        kinds: names of the corruptions.
        severities: severities, rising, from 0, which is the clean example.
        correct: booleans `(num_kinds, num_severities, num_examples)`.
        confidence: probability of the predicted class, of the same shape.
    """

    kinds: tuple[str, ...]
    severities: tuple[int, ...]
    correct: np.ndarray = field(repr=False)
    confidence: np.ndarray = field(repr=False)

    @property
    def accuracy(self) -> dict[str, list[float]]:
        """Accuracy by kind, one entry per severity."""
        means = self.correct.mean(axis=2).tolist()
        return dict(zip(self.kinds, means, strict=True))

    @property
    def retained(self) -> float:
        """Accuracy under the worst kind at the highest severity, over clean accuracy."""
        means = self.correct.mean(axis=2)
        clean = means[0, 0]
        return float(means[:, -1].min() / clean) if clean else 0.0

    def to_dict(self) -> dict[str, Any]:
        """Returns accuracies and mean confidences as plain lists, ready for JSON."""
        confidence = self.confidence.mean(axis=2).tolist()
        return {
            "severities": list(self.severities),
            "accuracy": self.accuracy,
            "confidence": dict(zip(self.kinds, confidence, strict=True)),
            "retained": self.retained,
        }


def measure_robustness(
    predict: Callable[[Any], Any],
    data: tuple[Any, Any],
    *,
    corrupt: Callable[..., Any],
    kinds: Sequence[str],
    severities: Sequence[int] = (0, 1, 2, 3, 4, 5),
) -> Robustness:
    """Predicts the same examples again and again, each time more corrupted.

    Args:
        predict: function from examples to probabilities `(num_examples, num_classes)`.
        data: examples `(num_examples, …)` and class numbers `(num_examples,)`.
        corrupt: function called as `corrupt(x, kind, severity=severity)`, such as
            `data.corrupt_images`. At severity 0 it is not called.
        kinds: names of the corruptions.
        severities: severities to try, rising from 0.

    Returns:
        The outcome for every kind, severity and example.

    Raises:
        InputError: if there is no kind, the severities do not rise from 0, or labels and
            examples do not fit.

    Limits:
        Tells about the corruptions tried. Those of the service must be found there.

    Example:
        >>> def drop(x, kind, *, severity):
        ...     return np.where(np.arange(len(x))[:, None] < severity, 1 - x, x)
        >>> report = measure_robustness(
        ...     lambda x: x, (np.eye(2), [0, 1]), corrupt=drop, kinds=["swap"], severities=[0, 1])
        >>> report.accuracy, report.retained
        ({'swap': [1.0, 0.5]}, 0.5)

    References:
        Hendrycks and Dietterich, Benchmarking Neural Network Robustness to Common
        Corruptions and Perturbations, ICLR 2019.
    """
    x, y = check_array("data[0]", data[0]), data[1]
    levels = [check_integer("severities", level, at_least=0) for level in severities]
    if not kinds:
        raise InputError("kinds", "must name a corruption", "none", "pass at least one name")
    if levels != sorted(set(levels)) or not levels or levels[0] != 0:
        raise InputError("severities", "must rise from 0", levels, "pass (0, 1, 2, 3, 4, 5)")
    clean = _judge(predict, x, y)
    outcomes = [
        [clean, *(_judge(predict, corrupt(x, kind, severity=level), y) for level in levels[1:])]
        for kind in kinds
    ]
    table = np.array(outcomes)  # (num_kinds, num_severities, 2, num_examples)
    return Robustness(
        tuple(kinds), tuple(levels), table[:, :, 0].astype(bool), table[:, :, 1].copy()
    )


def _judge(predict: Callable[[Any], Any], x: Any, y: Any) -> np.ndarray:
    """Whether each prediction is right, and its confidence, shape `(2, num_examples)`."""
    probabilities, labels = check_predictions(np.asarray(predict(x)), y)
    return np.stack([probabilities.argmax(axis=1) == labels, probabilities.max(axis=1)])
