"""Comparing architectures: the width that meets a budget, the interval over seeds."""

import json

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import layers
from scipy import stats

from bigmodel_utils import costs, evaluation
from bigmodel_utils._checks import InputError

# The interval

share = st.integers(0, 64).map(lambda number: number / 64)
scores = st.lists(share, min_size=2, max_size=9)


def check_interval(ours, theirs, confidence, compare=evaluation.compare_over_seeds):
    report = compare(ours, theirs, budgets=(100, 104), confidence=confidence)
    differences = np.array(ours) - theirs
    expected = stats.ttest_1samp(differences, 0).confidence_interval(confidence)
    np.testing.assert_allclose(report.lead.value, differences.mean(), atol=1e-12)
    # An end near nought is a small rest of the mean and the margin, both at most some units.
    np.testing.assert_allclose([report.lead.low, report.lead.high], expected, rtol=1e-6, atol=1e-7)
    reversed_pairs = [
        (one - other) * report.lead.value < 0
        for one in ours
        for other in theirs
        if report.lead.value
    ]
    assert report.reversed_share == pytest.approx(np.mean(reversed_pairs or [0]))


@settings(deadline=None, max_examples=30)
@given(st.data(), scores, st.sampled_from([0.5, 0.9, 0.95, 0.99]))
def test_interval_is_that_of_scipy(drawn, ours, confidence):
    theirs = drawn.draw(st.lists(share, min_size=len(ours), max_size=len(ours)))
    if np.ptp(np.array(ours) - theirs):  # scipy warns where there is no spread
        check_interval(ours, theirs, confidence)


def test_twin_an_interval_of_the_normal_distribution_is_noticed():
    def compare(ours, theirs, *, budgets, confidence):
        report = evaluation.compare_over_seeds(ours, theirs, budgets=budgets, confidence=confidence)
        differences = np.array(ours) - theirs
        half = stats.norm.ppf(0.5 + confidence / 2) * stats.sem(differences)
        narrow = type(report.lead)(report.lead.value, report.lead.value - half, 0.0, confidence)
        return type(report)(narrow, report.reversed_share, report.budget_ratio, report.num_seeds)

    with pytest.raises(AssertionError):
        check_interval([0.5, 0.75, 0.25], [0.25, 0.25, 0.25], 0.95, compare)


def test_interval_holds_the_truth_as_often_as_it_says():
    generator = np.random.default_rng(0)
    draws = generator.normal(0.1, 1, (400, 5))
    held = [
        report.lead.low <= 0.1 <= report.lead.high
        for report in (
            evaluation.compare_over_seeds(draw, np.zeros(5), budgets=(1, 1)) for draw in draws
        )
    ]
    assert 0.92 <= np.mean(held) <= 0.98


def test_report_is_plain_and_says_what_it_holds():
    report = evaluation.compare_over_seeds([0.9, 0.7], [0.8, 0.5], budgets=(103, 100))
    assert report.budget_ratio == pytest.approx(1.03)
    assert report.reversed_share == 0.25
    assert report.num_seeds == 2
    assert json.loads(json.dumps(report.to_dict()))["lead"]["confidence"] == 0.95
    assert "25% of single pairs reversed" in str(report)


def test_equal_runs_have_no_lead():
    report = evaluation.compare_over_seeds([0.5, 0.6], [0.5, 0.6], budgets=(1, 1))
    assert (report.lead.low, report.lead.value, report.lead.high) == (0, 0, 0)
    assert report.reversed_share == 0


@pytest.mark.parametrize(
    ("changed", "name"),
    [
        ({"budgets": (100, 106)}, "budgets"),
        ({"budgets": (0, 0)}, "budgets"),
        ({"budgets": (1, 1, 1)}, "budgets"),
        ({"scores": [0.5], "baseline": [0.5]}, "scores"),
        ({"scores": [0.5, 0.6, 0.7]}, "scores"),
        ({"scores": [0.5, np.nan]}, "scores"),
        ({"confidence": 1.0}, "confidence"),
    ],
)
def test_bad_comparisons_are_refused(changed, name):
    arguments = {"scores": [0.5, 0.6], "baseline": [0.4, 0.5], "budgets": (1, 1)} | changed
    with pytest.raises(InputError, match=rf"^`{name}`"):
        evaluation.compare_over_seeds(
            arguments.pop("scores"), arguments.pop("baseline"), **arguments
        )


# The width


def build_dense(width):
    return keras.Sequential([keras.Input((7,)), layers.Dense(width), layers.Dense(3)])


def build_lstm(width):
    return keras.Sequential([keras.Input((6, 5)), layers.LSTM(width)])


COUNTS = {
    (build_dense, "parameters"): lambda w: 7 * w + w + 3 * w + 3,
    (build_dense, "operations"): lambda w: 2 * (7 * w + 3 * w),
    (build_lstm, "parameters"): lambda w: 4 * w * (5 + w + 1),
    (build_lstm, "operations"): lambda w: 2 * 6 * 4 * w * (5 + w),
}


def check_width(width, budget, count):
    """No width costs a number nearer to the budget."""
    misses = [abs(count(w) - budget) for w in range(1, 2_000)]
    assert abs(count(width) - budget) == min(misses)


@settings(deadline=None, max_examples=6)
@given(st.sampled_from(list(COUNTS)), st.integers(2_000, 12_000))
def test_no_other_width_comes_closer(case, budget):
    (build, unit), count = case, COUNTS[case]
    check_width(costs.find_width(build, budget=budget, unit=unit, tolerance=1), budget, count)


def test_twin_another_width_is_noticed():
    count = COUNTS[build_dense, "parameters"]
    width = costs.find_width(build_dense, budget=5_000)
    with pytest.raises(AssertionError):
        check_width(width + 1, 5_000, count)


def test_the_smallest_width_may_be_the_closest():
    assert costs.find_width(build_dense, budget=13, tolerance=0.1) == 1


@pytest.mark.parametrize(
    ("changed", "name"),
    [
        ({"budget": 0}, "budget"),
        ({"budget": 3}, "budget"),  # the smallest model costs more
        ({"unit": "flops"}, "unit"),
        ({"build": lambda w: keras.Sequential([keras.Input((4,)), Odd(w)])}, "build"),
    ],
)
def test_budgets_that_cannot_be_met_are_refused(changed, name):
    arguments = {"build": build_dense, "budget": 1_000, "unit": "operations"} | changed
    with pytest.raises(InputError, match=rf"^`{name}`"):
        costs.find_width(arguments.pop("build"), **arguments)


class Odd(layers.Layer):
    """A layer whose operations nobody knows."""

    def __init__(self, width):
        super().__init__()
        self.width = width

    def build(self, shape):
        self.kernel = self.add_weight(shape=(shape[-1], self.width))

    def call(self, x):
        return x @ self.kernel
