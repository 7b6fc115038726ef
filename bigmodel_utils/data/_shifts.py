"""Moving images by whole pixels."""

from __future__ import annotations

from typing import Any

import numpy as np

from .._checks import check_array, check_integer


def shift_images(images: Any, *, down: int = 0, right: int = 0) -> np.ndarray:
    """Moves images by whole pixels; what leaves the frame is lost and 0 comes in.

    Args:
        images: `(num_examples, height, width, channels)`.
        down: rows to move by; negative is up.
        right: columns to move by; negative is left.

    Returns:
        A new array of the same shape and type.

    Raises:
        InputError: if images have another shape, or a shift leaves nothing of them.

    Limits:
        The background is taken to be 0. By parts of a pixel an image cannot be moved without
        resampling, which changes more than its place.

    Example:
        >>> row = np.array([1, 2, 3]).reshape(1, 1, 3, 1)
        >>> shift_images(row, right=1).ravel().tolist()
        [0, 1, 2]
    """
    given = check_array("images", images, shape=(None, None, None, None))
    height, width = given.shape[1:3]
    rows = check_integer("down", down, at_least=1 - height, at_most=height - 1)
    columns = check_integer("right", right, at_least=1 - width, at_most=width - 1)
    moved = np.zeros_like(given)
    to_rows, from_rows = _overlap(height, rows)
    to_columns, from_columns = _overlap(width, columns)
    moved[:, to_rows, to_columns] = given[:, from_rows, from_columns]
    return moved


def _overlap(length: int, steps: int) -> tuple[slice, slice]:
    """Where what stays in the frame goes to, and where it comes from."""
    first, last = max(steps, 0), min(length, length + steps)
    return slice(first, last), slice(first - steps, last - steps)
