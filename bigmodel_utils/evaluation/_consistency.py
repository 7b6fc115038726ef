"""Whether predictions stay the same under changes that should not matter."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from .._checks import InputError, check_array, check_same_length
from ..benchmark import Interval, estimate_proportion_interval


@dataclass(frozen=True)
class Consistency:
    """Share of predictions that a change leaves as they were.

    Attributes:
        kept: interval by name of the change.
        num_examples: examples predicted.
    """

    kept: Mapping[str, Interval]
    num_examples: int

    @property
    def worst(self) -> str:
        """Name of the change that moves the most predictions; the first of several."""
        return min(self.kept, key=lambda name: self.kept[name].value)

    def to_dict(self) -> dict[str, Any]:
        """Returns the intervals by change and the worst, ready for JSON."""
        kept = {name: interval.to_dict() for name, interval in self.kept.items()}
        return {"kept": kept, "worst": self.worst, "num_examples": self.num_examples}

    def __str__(self) -> str:
        width = max(map(len, self.kept))
        return "\n".join(f"{name:<{width}}  {value:.1%}" for name, value in self.kept.items())


def measure_consistency(
    predict: Callable[[Any], Any],
    x: Any,
    *,
    changes: Mapping[str, Callable[[Any], Any]],
    confidence: float = 0.95,
) -> Consistency:
    """Predicts examples as they are and changed, and counts the classes that stay.

    Labels are not needed: a prediction that turns with a change that should not matter was
    wrong before or is wrong after. That makes it a test for examples nobody has labelled.

    Args:
        predict: function from examples to class scores `(num_examples, num_classes)`.
        x: examples `(num_examples, …)`.
        changes: functions from examples to changed examples, by name, such as
            `{"right": lambda x: data.shift_images(x, right=1)}`.
        confidence: confidence of each interval.

    Returns:
        Share of predictions kept under each change, with Wilson's interval.

    Raises:
        InputError: if there is no change, or a change drops examples.

    Limits:
        A model that always says the same is perfectly consistent; report it with accuracy.

    Example:
        >>> points = np.array([[-2.0], [0.5], [3.0]])
        >>> report = measure_consistency(
        ...     lambda x: np.hstack([-x, x]), points, changes={"up": lambda x: x + 1,
        ...                                                    "down": lambda x: x - 1})
        >>> report.worst, round(report.kept["down"].value, 2)
        ('down', 0.67)

    References:
        Zhang, Making Convolutional Networks Shift-Invariant Again, ICML 2019, section 4.
    """
    examples = check_array("x", x)
    if not changes:
        raise InputError("changes", "must name a change", "none", "pass at least one function")
    before = _predict_classes(predict, examples)
    kept = {}
    for name, change in changes.items():
        after = _predict_classes(predict, change(examples))
        check_same_length(x=before, **{f"changes[{name!r}]": after})
        num_kept = int((before == after).sum())
        kept[name] = estimate_proportion_interval(num_kept, len(before), confidence=confidence)
    return Consistency(kept, len(before))


def _predict_classes(predict: Callable[[Any], Any], x: Any) -> np.ndarray:
    scores = check_array("predict(x)", np.asarray(predict(x)), shape=(None, None))
    return np.asarray(scores.argmax(axis=1))
