"""Whether a sequence model still uses what lies as far back as its context is said to reach."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .._checks import InputError, check_integer, check_predictions, check_real
from ..benchmark import Interval, estimate_proportion_interval


@dataclass(frozen=True)
class Recall:
    """Accuracy by the distance of what an answer depends on.

    Attributes:
        accuracy: interval by distance in steps, nearest first.
        num_examples: examples tested at each distance.
    """

    accuracy: Mapping[int, Interval]
    num_examples: int

    def find_reach(self, at_least: float) -> int:
        """Finds the farthest distance tested up to which every accuracy is high enough.

        Args:
            at_least: accuracy that the lower end of each interval must reach.

        Returns:
            The distance in steps; 0 if the nearest already falls short.
        """
        bound = check_real("at_least", at_least, at_least=0, at_most=1)
        reach = 0
        for distance, interval in self.accuracy.items():
            if interval.low < bound:
                break
            reach = distance
        return reach

    def to_dict(self) -> dict[str, Any]:
        """Returns the intervals by distance, ready for JSON."""
        intervals = {str(k): interval.to_dict() for k, interval in self.accuracy.items()}
        return {"accuracy": intervals, "num_examples": self.num_examples}

    def __str__(self) -> str:
        rows = (f"{distance:>6}  {value:.1%}" for distance, value in self.accuracy.items())
        return "\n".join((" steps  accuracy", *rows))


def measure_recall(
    predict: Callable[[Any], Any],
    make_examples: Callable[[int], tuple[Any, Any]],
    *,
    distances: Sequence[int],
    confidence: float = 0.95,
) -> Recall:
    """Tests a sequence model on answers that lie ever farther back.

    Args:
        predict: function from examples to probabilities `(num_examples, num_classes)`.
        make_examples: function from a distance in steps to examples whose answer depends on
            what lies that far back, and their class numbers, such as
            `lambda n: data.make_recall_examples(400, distance=n)`. Equally many each time.
        distances: distances to test, rising; the one that is claimed should be among them.
        confidence: confidence of each interval.

    Returns:
        The accuracy at each distance with Wilson's interval.

    Raises:
        InputError: if the distances do not rise, or `make_examples` gives unequal numbers of
            examples.

    Limits:
        Says that the model *can* use what is that far back, on these examples. What it does
        with another text is another test.

    Example:
        >>> def make(distance):  # the label, and then fillers
        ...     y = np.tile([0, 1], 100)
        ...     return np.column_stack([y, np.full((200, distance), 2)]), y
        >>> def keep_three_steps(x):
        ...     return np.eye(3)[x[:, -4:].min(axis=1)]
        >>> measure_recall(keep_three_steps, make, distances=[1, 3, 4]).find_reach(0.9)
        3
    """
    steps = [check_integer("distances", distance, at_least=1) for distance in distances]
    if not steps or steps != sorted(set(steps)):
        raise InputError("distances", "must rise", steps, "pass something like [1, 10, 100]")
    accuracy: dict[int, Interval] = {}
    counts: list[int] = []
    for distance in steps:
        x, y = make_examples(distance)
        table, labels = check_predictions(np.asarray(predict(x)), y)
        counts.append(len(labels))
        num_right = int((table.argmax(axis=1) == labels).sum())
        accuracy[distance] = estimate_proportion_interval(
            num_right, len(labels), confidence=confidence
        )
    if len(set(counts)) > 1:
        raise InputError(
            "make_examples", "must give equally many each time", counts, "fix their number"
        )
    return Recall(accuracy, counts[0])
