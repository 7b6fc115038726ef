"""Checks of arguments: what they let through, and all four parts of what they say."""

import math
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from bigmodel_utils import _checks
from bigmodel_utils._checks import InputError, MissingExtraError

NAN, INFINITY = math.nan, math.inf


def test_message_has_four_parts():
    error = InputError("x", "must be small", 7, "pass 1")
    assert str(error) == "`x` must be small. Received: 7. Fix: pass 1"
    assert error.name == "x"
    assert isinstance(error, ValueError)


# check, arguments, keyword arguments, then the message: requirement, received, fix.
REFUSED = [
    ("check_array", [[1], [1, 2]], {}, "must be rectangular", "rows of unequal length"),
    ("check_real", 10**400, {}, "must be a finite number", "inf"),
    ("check_choice", "TPU", {"choices": ("cpu", "gpu")}, "must be one of 'cpu', 'gpu'", "'TPU'"),
    ("check_choice", 1, {"choices": ("cpu",)}, "must be one of 'cpu'", "1"),
    ("check_choice", ["cpu"], {"choices": ("cpu",)}, "must be one of 'cpu'", r"['cpu']"),
    ("check_integer", True, {}, "must be an integer", "True"),
    ("check_integer", 2.0, {"at_least": 1}, "must be an integer of at least 1", "2.0"),
    ("check_integer", "2", {"at_most": 9}, "must be an integer of at most 9", "'2'"),
    ("check_integer", None, {}, "must be an integer", "None"),
    ("check_integer", 0, {"at_least": 1}, "must be an integer of at least 1", "0"),
    (
        "check_integer",
        np.int64(10),
        {"at_least": 1, "at_most": 9},
        "must be an integer from 1 to 9",
        "10",
    ),
    ("check_real", False, {}, "must be a number", "False"),
    ("check_real", "0.5", {"at_most": 1}, "must be a number of at most 1", "'0.5'"),
    ("check_real", 1j, {}, "must be a number", "1j"),
    ("check_real", NAN, {}, "must be a finite number", "nan"),
    ("check_real", -INFINITY, {"at_most": 0}, "must be a finite number of at most 0", "-inf"),
    (
        "check_real",
        np.float32(1.5),
        {"at_least": 0, "at_most": 1},
        "must be a finite number from 0 to 1",
        "1.5",
    ),
    ("check_array", ["a"], {}, "must be numeric", "dtype <U1"),
    ("check_array", [None], {}, "must be numeric", "dtype object"),
    ("check_array", [1j], {}, "must be numeric", "dtype complex128"),
    (
        "check_array",
        [[1, 2]],
        {"shape": (None, 3)},
        "must have shape (any, 3)",
        "shape (1, 2)",
    ),
    ("check_array", [1], {"shape": (None, 1)}, "must have shape (any, 1)", "shape (1,)"),
    ("check_array", [], {}, "must not be empty", "shape (0,)"),
    ("check_array", np.zeros((0, 3)), {"shape": (None, 3)}, "must not be empty", "shape (0, 3)"),
    ("check_array", [[0.0, 1.0], [0.0, NAN]], {}, "must be finite", "nan at index (1, 1)"),
    ("check_array", [INFINITY], {}, "must be finite", "inf at index (0,)"),
    ("check_labels", [0, 3, 9], {"num_classes": 3}, "must lie in 0 … 2", "3 at index 1"),
    ("check_labels", [0, -1], {"num_classes": 3}, "must lie in 0 … 2", "-1 at index 1"),
    ("check_labels", [0.0, 0.5], {"num_classes": 3}, "must hold integers", "0.5 at index 1"),
    ("check_labels", [[0]], {"num_classes": 3}, "must have shape (any)", "shape (1, 1)"),
    ("check_labels", [], {"num_classes": 3}, "must not be empty", "shape (0,)"),
    ("check_labels", [NAN], {"num_classes": 3}, "must be finite", "nan at index (0,)"),
]


@pytest.mark.parametrize(("check", "value", "options", "requirement", "received"), REFUSED)
def test_refusal_says_name_requirement_received_and_fix(
    check, value, options, requirement, received
):
    with pytest.raises(InputError) as raised:
        getattr(_checks, check)("argument", value, **options)
    start, _, fix = str(raised.value).partition(". Fix: ")
    assert start == f"`argument` {requirement}. Received: {received}"
    assert fix
    assert raised.value.name == "argument"


def test_every_check_has_its_refusals():
    checks = {name for name in dir(_checks) if name.startswith("check_")}
    of_several = {"check_same_length", "check_predictions"}  # have tests of their own, below
    assert checks - of_several == {entry[0] for entry in REFUSED}


@pytest.mark.parametrize(
    ("probabilities", "y", "message"),
    [
        ([[0.5, 0.6]], [0], "`probabilities` must be non-negative and sum to 1 in each row"),
        ([[0.5, 0.5], [-0.1, 1.1]], [0, 1], r"Received: \[-0.1  1.1\] in row 1"),
        ([0.5, 0.5], [0], r"`probabilities` must have shape \(any, any\)"),
        ([[0.5, 0.5]], [2], "`y` must lie in 0 … 1"),
        ([[0.5, 0.5]], [0, 1], "`probabilities` must have one entry per example"),
    ],
)
def test_predictions_that_are_none(probabilities, y, message):
    with pytest.raises(InputError, match=rf"{message}.* Fix: "):
        _checks.check_predictions(probabilities, y)


def test_lengths_that_differ():
    with pytest.raises(InputError) as raised:
        _checks.check_same_length(x=[1, 2], y=[1])
    assert str(raised.value) == (
        "`x` must have one entry per example (`x` and `y` alike). "
        "Received: 2 in `x`, 1 in `y`. Fix: align them"
    )
    assert _checks.check_same_length(x=[1], y=np.zeros((1, 5)), z="a") == 1


def test_missing_library_names_its_extra():
    with pytest.raises(MissingExtraError) as raised:
        _checks.import_extra("no_such_library.part", extra="explain")
    assert str(raised.value) == (
        "`no_such_library.part` must be installed for this function. Received: no such module. "
        'Fix: pip install "bigmodel_utils[explain]"'
    )
    assert isinstance(raised.value, ImportError)


def test_fault_inside_a_library_is_passed_on(tmp_path, monkeypatch):
    """A library that is there but lacks a part of its own must not be called missing."""
    (tmp_path / "half_library.py").write_text("import no_such_dependency\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="no_such_dependency") as raised:
        _checks.import_extra("half_library", extra="explain")
    assert not isinstance(raised.value, MissingExtraError)


def test_library_that_is_there_is_returned():
    assert _checks.import_extra("json.decoder", extra="data").__name__ == "json.decoder"


@pytest.mark.parametrize(
    ("check", "value", "kind"),
    [
        ("check_integer", 3, int),
        ("check_integer", np.uint8(3), int),
        ("check_real", 3, float),
        ("check_real", np.float32(0.5), float),
        ("check_real", np.int16(3), float),
    ],
)
def test_numbers_become_plain(check, value, kind):
    number = getattr(_checks, check)("argument", value)
    assert type(number) is kind
    assert number == value


def test_bounds_are_closed():
    assert _checks.check_integer("n", 1, at_least=1, at_most=1) == 1
    assert _checks.check_real("p", 1, at_least=1, at_most=1) == 1


def test_array_is_not_copied():
    x = np.arange(3.0)
    assert _checks.check_array("x", x) is x


def test_array_may_hold_infinity_if_asked():
    assert math.isinf(_checks.check_array("x", [INFINITY], finite=False)[0])


@pytest.mark.parametrize("labels", [[0, 2], [0.0, 2.0], np.array([0, 2], "uint8"), [False, True]])
def test_labels_become_int64(labels):
    checked = _checks.check_labels("y", labels, num_classes=3)
    assert checked.dtype == np.int64
    assert checked.tolist() == list(labels)


# Properties. Each takes the check as an argument, so that a twin can hand it a broken one.


def accepts(check, *arguments, **options):
    try:
        check("argument", *arguments, **options)
    except InputError:
        return False
    return True


def has_counterexample(property_, check, *strategies):
    """Whether hypothesis finds an input on which the property fails for this check."""

    @settings(derandomize=True, max_examples=500, report_multiple_bugs=False)
    @given(st.tuples(*strategies))
    def search(values):
        property_(check, *values)

    try:
        search()
    except AssertionError:
        return True
    return False


bounds = st.none() | st.integers(-3, 3)
small_numbers = st.integers(-5, 5)


def integer_passes_within_bounds(check, value, low, high):
    within = (low is None or value >= low) and (high is None or value <= high)
    assert accepts(check, value, at_least=low, at_most=high) == within


@given(small_numbers, bounds, bounds)
def test_integer_passes_within_bounds(value, low, high):
    integer_passes_within_bounds(_checks.check_integer, value, low, high)


def test_integer_bounds_twin():
    def excludes_upper(name, value, *, at_least, at_most):
        return _checks.check_integer(
            name, value, at_least=at_least, at_most=None if at_most is None else at_most - 1
        )

    case = (small_numbers, bounds, bounds)
    assert has_counterexample(integer_passes_within_bounds, excludes_upper, *case)
    assert not has_counterexample(integer_passes_within_bounds, _checks.check_integer, *case)


any_float = st.floats()


def real_passes_if_finite_and_within_bounds(check, value, low, high):
    within = (low is None or value >= low) and (high is None or value <= high)
    expected = math.isfinite(value) and within
    assert accepts(check, value, at_least=low, at_most=high) == expected


@given(any_float, bounds, bounds)
def test_real_passes_if_finite_and_within_bounds(value, low, high):
    real_passes_if_finite_and_within_bounds(_checks.check_real, value, low, high)


def test_real_twin():
    def forgets_nan(name, value, *, at_least, at_most):
        if math.isnan(value):  # every comparison with NaN is false: no bound catches it
            return value
        return _checks.check_real(name, value, at_least=at_least, at_most=at_most)

    case = (any_float, bounds, bounds)
    assert has_counterexample(real_passes_if_finite_and_within_bounds, forgets_nan, *case)


some_array = arrays.arrays(
    np.float64,
    arrays.array_shapes(min_dims=1, max_dims=3, min_side=0, max_side=3),
    elements=st.sampled_from([0.0, 1.0, NAN, INFINITY]),
)


def array_is_refused_at_its_first_fault(check, array):
    faulty = [(index, value) for index, value in np.ndenumerate(array) if not math.isfinite(value)]
    message, result = "", None
    try:
        result = check("argument", array)
    except InputError as error:
        message = str(error)
    if array.size == 0:
        assert "must not be empty" in message
    elif faulty:
        index, value = faulty[0]
        assert f"Received: {value} at index {index}" in message
    else:
        assert result is array


@given(some_array)
def test_array_is_refused_at_its_first_fault(array):
    array_is_refused_at_its_first_fault(_checks.check_array, array)


def test_array_twin():
    def looks_at_the_sum(name, array):
        # Catches NaN and infinity, but says nothing of where, and lets the empty one through.
        if not np.isfinite(array.sum()):
            raise InputError(name, "must be finite", "a sum that is not", "drop it")
        return array

    assert has_counterexample(array_is_refused_at_its_first_fault, looks_at_the_sum, some_array)


some_labels = st.lists(small_numbers, min_size=1, max_size=5)


def labels_pass_if_all_are_classes(check, labels, num_classes):
    expected = set(labels) <= set(range(num_classes))
    assert accepts(check, labels, num_classes=num_classes) == expected


@given(some_labels, st.integers(1, 6))
def test_labels_pass_if_all_are_classes(labels, num_classes):
    labels_pass_if_all_are_classes(_checks.check_labels, labels, num_classes)


def test_labels_twin():
    def counts_from_one(name, labels, *, num_classes):
        return _checks.check_labels(name, [max(0, y - 1) for y in labels], num_classes=num_classes)

    case = (some_labels, st.integers(1, 6))
    assert has_counterexample(labels_pass_if_all_are_classes, counts_from_one, *case)


some_lengths = st.lists(st.integers(0, 3), min_size=1, max_size=4)


def lengths_pass_if_equal(check, lengths):
    columns = {f"column_{i}": [0] * length for i, length in enumerate(lengths)}
    try:
        common = check(**columns)
    except InputError as error:
        message = str(error)
        assert len(set(lengths)) > 1
        assert [int(n) for n in re.findall(r"(\d+) in `", message)] == lengths
    else:
        assert lengths == [common] * len(lengths)


@given(some_lengths)
def test_lengths_pass_if_equal(lengths):
    lengths_pass_if_equal(_checks.check_same_length, lengths)


def test_lengths_twin():
    def compares_the_first_two(**columns):
        return _checks.check_same_length(**dict(list(columns.items())[:2]))

    assert has_counterexample(lengths_pass_if_equal, compares_the_first_two, some_lengths)
