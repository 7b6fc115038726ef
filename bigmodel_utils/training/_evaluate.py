"""What a trained model is measured by: each example counted once, weights that are numbers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ._settings import Examples, check_examples

EVALUATION_BATCH_SIZE = 128


def evaluate(model: Any, data: Examples) -> dict[str, float]:
    """Mean loss and metrics over examples, each example counted once.

    Args:
        model: a compiled Keras model.
        data: inputs and targets with one row per example.

    Returns:
        Metric name to value; `"loss"` is always among them.

    Raises:
        InputError: for empty, misaligned or non-finite data.

    Limits:
        For losses and metrics that are means over examples. One that is not, such as the
        area under a curve, must be computed from all predictions at once.

    Example:
        >>> from bigmodel_utils.models import build_image_classifier
        >>> x, y = np.zeros((3, 28, 28, 1), "float32"), np.eye(10)[:3]
        >>> sorted(evaluate(build_image_classifier(), (x, y)))
        ['accuracy', 'loss']
    """
    x, y = check_examples("data", data)
    mean = _WeightedMean()
    for start in range(0, len(x), EVALUATION_BATCH_SIZE):
        rows = slice(start, start + EVALUATION_BATCH_SIZE)
        mean.add(model.test_on_batch(x[rows], y[rows], return_dict=True), len(x[rows]))
    return mean.values()


def count_nonfinite_weights(model: Any) -> int:
    """Number of NaN or infinite entries among all weights of a model.

    Args:
        model: a Keras model.

    Returns:
        The count, 0 for a model fit to release.

    Example:
        >>> from bigmodel_utils.models import build_image_classifier
        >>> count_nonfinite_weights(build_image_classifier())
        0
    """
    return sum(int((~np.isfinite(weights)).sum()) for weights in model.get_weights())


class _WeightedMean:
    """Mean of metrics over examples from batches of unequal size.

    Keras' `test_on_batch` gives the metrics of its batch alone; the plain mean of these
    counts an example in a short last batch for more.
    """

    def __init__(self) -> None:
        self._sums: dict[str, float] = {}
        self._num_examples = 0

    def add(self, logs: Mapping[str, Any], num_examples: int) -> None:
        for name, value in logs.items():
            self._sums[name] = self._sums.get(name, 0.0) + float(value) * num_examples
        self._num_examples += num_examples

    def values(self) -> dict[str, float]:
        return {name: total / self._num_examples for name, total in self._sums.items()}
