"""Checks that several parts of the evaluation share."""

from __future__ import annotations

from typing import Any

import numpy as np

from .._checks import InputError, check_array, check_labels, check_same_length


def check_correct(name: str, value: Any) -> np.ndarray:
    """Returns booleans of shape `(num_examples,)`: whether a prediction is right."""
    array = check_array(name, value, shape=(None,))
    if array.dtype.kind != "b" and not np.isin(array, (0, 1)).all():
        first = int(np.flatnonzero(~np.isin(array, (0, 1)))[0])
        raise InputError(
            name,
            "must hold booleans",
            f"{array[first]} at index {first}",
            "pass `predicted == y`",
        )
    return array.astype(bool)


def check_predictions(probabilities: Any, y: Any) -> tuple[np.ndarray, np.ndarray]:
    """Returns probabilities `(num_examples, num_classes)` as float64, and class numbers."""
    table = check_array("probabilities", probabilities, shape=(None, None)).astype(np.float64)
    labels = check_labels("y", y, num_classes=table.shape[1])
    check_same_length(probabilities=table, y=labels)
    # Half precision rounds each of many classes; what is no distribution is off by far more.
    wrong = (table < 0).any(axis=1) | (np.abs(table.sum(axis=1) - 1) > 1e-2)
    if wrong.any():
        first = int(np.flatnonzero(wrong)[0])
        raise InputError(
            "probabilities",
            "must be non-negative and sum to 1 in each row",
            f"{table[first][:5]} in row {first}",
            "pass the output of a softmax",
        )
    return table, labels
