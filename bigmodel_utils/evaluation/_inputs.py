"""Checks that several parts of the evaluation share."""

from __future__ import annotations

from typing import Any

import numpy as np

from .._checks import InputError, check_array


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
