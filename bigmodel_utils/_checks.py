"""Checks of what a caller passed in, with one shape of message.

Every error of the library names the argument, says what is required, shows what was
received, and says how to mend it. Checks return the value, converted where that is safe,
so a caller can write ``batch_size = check_integer("batch_size", batch_size, at_least=1)``.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Collection, Sequence, Sized
from numbers import Integral, Real
from types import ModuleType
from typing import TYPE_CHECKING, Any

# Loaded where arrays are checked, so that a gate over plain numbers can run without it.
if TYPE_CHECKING:
    import numpy as np


class InputError(ValueError):
    """An argument that cannot be used; the message says which, why, and what to do."""

    def __init__(self, name: str, requirement: str, received: object, fix: str) -> None:
        super().__init__(f"`{name}` {requirement}. Received: {received}. Fix: {fix}")
        self.name = name


class MissingExtraError(ImportError):
    """An optional library is not installed; the message names the extra that brings it."""


def import_extra(module: str, *, extra: str) -> ModuleType:
    """Imports an optional library, or says which extra of this package installs it.

    Args:
        module: dotted name of the module to import.
        extra: the extra of ``bigmodel_utils`` that installs it.

    Returns:
        The imported module.

    Raises:
        MissingExtraError: if the library is not installed.

    Example:
        >>> import_extra("json", extra="data").__name__
        'json'
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        # A library that is there but lacks a part of its own is another fault: pass it on.
        if error.name is not None and error.name.split(".")[0] != module.split(".", maxsplit=1)[0]:
            raise
        raise MissingExtraError(
            f"`{module}` must be installed for this function. Received: no such module. "
            f'Fix: pip install "bigmodel_utils[{extra}]"'
        ) from error


def check_choice(name: str, value: object, choices: Collection[str]) -> str:
    """Returns `value` if it is one of `choices`.

    Raises:
        InputError: if it is not, listing the choices.

    Example:
        >>> check_choice("tier", "cpu", ("cpu", "gpu"))
        'cpu'
    """
    if isinstance(value, str) and value in choices:
        return value
    listed = ", ".join(repr(choice) for choice in choices)
    raise InputError(name, f"must be one of {listed}", repr(value), "choose one of these")


def check_integer(
    name: str, value: object, *, at_least: int | None = None, at_most: int | None = None
) -> int:
    """Returns `value` as an `int` within the closed bounds; `True` and `2.0` are refused.

    Raises:
        InputError: if it is no integer or lies outside the bounds.

    Example:
        >>> check_integer("batch_size", 32, at_least=1)
        32
    """
    bounds = _describe_bounds(at_least, at_most)
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise InputError(name, f"must be an integer{bounds}", repr(value), "pass an int")
    number = int(value)
    if _is_outside(number, at_least, at_most):
        raise InputError(name, f"must be an integer{bounds}", number, f"pass one{bounds}")
    return number


def check_real(
    name: str, value: object, *, at_least: float | None = None, at_most: float | None = None
) -> float:
    """Returns `value` as a finite `float` within the closed bounds.

    Raises:
        InputError: if it is no number, not finite, or outside the bounds.

    Example:
        >>> check_real("confidence", 0.95, at_least=0, at_most=1)
        0.95
    """
    bounds = _describe_bounds(at_least, at_most)
    if isinstance(value, bool) or not isinstance(value, Real):
        raise InputError(name, f"must be a number{bounds}", repr(value), "pass a float")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number) or _is_outside(number, at_least, at_most):
        raise InputError(name, f"must be a finite number{bounds}", number, f"pass one{bounds}")
    return number


def check_array(
    name: str, value: Any, *, shape: Sequence[int | None] | None = None, finite: bool = True
) -> np.ndarray:
    """Returns `value` as a non-empty numeric array.

    Args:
        name: the argument's name, for the message.
        value: anything `numpy.asarray` takes.
        shape: required length of each axis, `None` for "any"; no requirement if left out.
        finite: refuse NaN and infinity.

    Returns:
        The array, not copied where it was one already.

    Raises:
        InputError: if it is empty, not numeric, of another shape, or not finite; the
            message gives the first index that is wrong.

    Example:
        >>> check_array("x", [[1.0, 2.0]], shape=(None, 2)).shape
        (1, 2)
    """
    import numpy as np

    try:
        array = np.asarray(value)
    except ValueError:  # rows of unequal length
        raise InputError(
            name, "must be rectangular", "rows of unequal length", "pad or cut the rows"
        ) from None
    if array.dtype.kind not in "biuf":
        raise InputError(
            name, "must be numeric", f"dtype {array.dtype}", "convert it to float32 or int64"
        )
    if shape is not None:
        wanted = "(" + ", ".join("any" if n is None else str(n) for n in shape) + ")"
        matches = len(shape) == array.ndim and all(
            n is None or n == m for n, m in zip(shape, array.shape, strict=True)
        )
        if not matches:
            raise InputError(
                name, f"must have shape {wanted}", f"shape {array.shape}", "reshape or slice it"
            )
    if array.size == 0:
        raise InputError(
            name, "must not be empty", f"shape {array.shape}", "pass at least one example"
        )
    if finite and array.dtype.kind == "f" and not np.isfinite(array).all():
        first = tuple(int(i) for i in np.argwhere(~np.isfinite(array))[0])
        raise InputError(
            name,
            "must be finite",
            f"{array[first]} at index {first}",
            "drop or impute the examples that hold NaN or infinity",
        )
    return array


def check_labels(name: str, value: Any, *, num_classes: int) -> np.ndarray:
    """Returns class labels as an `int64` array of shape `(num_examples,)`.

    Raises:
        InputError: if a label is no integer or outside ``0 … num_classes - 1``.

    Example:
        >>> check_labels("y", [0, 2, 1], num_classes=3)
        array([0, 2, 1])
    """
    import numpy as np

    array = check_array(name, value, shape=(None,))
    if array.dtype.kind == "f" and not np.equal(np.mod(array, 1), 0).all():
        first = int(np.argwhere(np.mod(array, 1) != 0)[0, 0])
        raise InputError(
            name, "must hold integers", f"{array[first]} at index {first}", "pass class numbers"
        )
    outside = (array < 0) | (array >= num_classes)
    if outside.any():
        first = int(np.argwhere(outside)[0, 0])
        raise InputError(
            name,
            f"must lie in 0 … {num_classes - 1}",
            f"{array[first]} at index {first}",
            "relabel the examples or raise `num_classes`",
        )
    return array.astype(np.int64)


def check_same_length(**arrays: Sized) -> int:
    """Returns the common length of the named arrays.

    Raises:
        InputError: if their lengths differ.

    Example:
        >>> check_same_length(x=[1, 2], y=[3, 4])
        2
    """
    lengths = {name: len(array) for name, array in arrays.items()}
    if len(set(lengths.values())) != 1:
        names = " and ".join(f"`{name}`" for name in lengths)
        received = ", ".join(f"{length} in `{name}`" for name, length in lengths.items())
        first = next(iter(lengths))
        raise InputError(
            first, f"must have one entry per example ({names} alike)", received, "align them"
        )
    return next(iter(lengths.values()))


def check_predictions(probabilities: Any, y: Any) -> tuple[np.ndarray, np.ndarray]:
    """Returns probabilities `(num_examples, num_classes)` as float64, and class numbers.

    Raises:
        InputError: if a row is no distribution, a label no class, or the lengths differ.

    Example:
        >>> check_predictions([[0.25, 0.75]], [1])
        (array([[0.25, 0.75]]), array([1]))
    """
    import numpy as np

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


def _describe_bounds(at_least: float | None, at_most: float | None) -> str:
    if at_least is not None and at_most is not None:
        return f" from {at_least} to {at_most}"
    if at_least is not None:
        return f" of at least {at_least}"
    if at_most is not None:
        return f" of at most {at_most}"
    return ""


def _is_outside(number: float, at_least: float | None, at_most: float | None) -> bool:
    return (at_least is not None and number < at_least) or (
        at_most is not None and number > at_most
    )
