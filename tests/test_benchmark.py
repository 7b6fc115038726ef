"""Intervals, latency and selection optimism against closed forms and other implementations."""

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from bigmodel_utils import benchmark
from bigmodel_utils._checks import InputError


def test_bootstrap_equals_scipy_percentile_bootstrap():
    values = np.random.default_rng(3).gamma(2, size=40)
    ours = benchmark.bootstrap_interval(values, num_resamples=20_000)
    theirs = stats.bootstrap(
        (values,), np.mean, method="percentile", n_resamples=20_000, rng=1
    ).confidence_interval
    assert ours.low == pytest.approx(theirs.low, rel=0.01)
    assert ours.high == pytest.approx(theirs.high, rel=0.01)
    assert ours.value == pytest.approx(values.mean())


def test_bootstrap_coverage_at_five_values_is_what_the_limits_say():
    generator = np.random.default_rng(0)
    hits = 0
    for seed in range(400):
        interval = benchmark.bootstrap_interval(
            generator.normal(size=5), num_resamples=400, seed=seed
        )
        hits += interval.low <= 0 <= interval.high
    assert 0.78 < hits / 400 < 0.88


@given(st.integers(1, 500), st.data())
@settings(max_examples=60, deadline=None)
def test_wilson_interval_equals_scipy(num_trials, drawn):
    num_successes = drawn.draw(st.integers(0, num_trials))
    ours = benchmark.estimate_proportion_interval(num_successes, num_trials)
    theirs = stats.binomtest(num_successes, num_trials).proportion_ci(method="wilson")
    assert ours.low == pytest.approx(theirs.low, abs=1e-9)
    assert ours.high == pytest.approx(theirs.high, abs=1e-9)


def test_proportion_lies_within_its_interval_where_all_or_none_succeed():
    """Rounding put an end on the wrong side, for seven of seven among others."""
    for num_trials in range(1, 3000):
        for num_successes in (0, num_trials):
            interval = benchmark.estimate_proportion_interval(num_successes, num_trials)
            assert interval.low <= interval.value <= interval.high


def test_wilson_twin_the_normal_interval_would_fail_that_test():
    theirs = stats.binomtest(10, 10).proportion_ci(method="wilson")
    normal_low = 1.0 - 1.96 * np.sqrt(1.0 * 0.0 / 10)
    assert normal_low != pytest.approx(theirs.low, abs=1e-9)


@pytest.mark.parametrize(
    ("num_candidates", "closed_form"),
    [
        (1, 0.0),
        (2, 1 / np.sqrt(np.pi)),
        (3, 3 / (2 * np.sqrt(np.pi))),
        # Harter, Expected Values of Normal Order Statistics, Biometrika 48, 1961, table 1.
        (10, 1.53875),
        (100, 2.50759),
    ],
)
def test_expected_maximum_equals_published_values(num_candidates, closed_form):
    found = benchmark.estimate_expected_maximum(num_candidates)
    assert found == pytest.approx(closed_form, abs=6e-6)


def test_optimism_formula_equals_simulation_with_shared_errors():
    generator = np.random.default_rng(5)
    rate, num_examples, num_candidates, correlation = 0.9, 400, 20, 0.4
    # Equicorrelated errors: each cell copies a draw shared by all candidates with
    # probability sqrt(correlation), so two cells agree by copying with that squared.
    reports = []
    for _ in range(400):
        shared = generator.random(num_examples) < rate
        own = generator.random((num_candidates, num_examples)) < rate
        copies = generator.random((num_candidates, num_examples)) < np.sqrt(correlation)
        reports.append(np.where(copies, shared, own).mean(axis=1).max() - rate)
    predicted = benchmark.estimate_selection_optimism(
        rate, num_examples, num_candidates=num_candidates, correlation=correlation
    )
    assert np.mean(reports) == pytest.approx(predicted, rel=0.06)
    without = benchmark.estimate_selection_optimism(
        rate, num_examples, num_candidates=num_candidates
    )
    assert np.mean(reports) != pytest.approx(without, rel=0.06)  # the twin: correlation matters


def test_measured_optimism_equals_the_formula_for_equally_good_candidates():
    table = np.random.default_rng(1).random((25, 6000)) < 0.9
    found = benchmark.measure_selection_optimism(table, 300)
    predicted = benchmark.estimate_selection_optimism(0.9, 300, num_candidates=25)
    assert found.same_set.mean() == pytest.approx(predicted, rel=0.1)
    assert abs(found.separate_set.mean()) < 0.002
    assert found.to_dict()["same_set"] == found.same_set.mean()


def test_a_truly_better_candidate_is_reported_without_much_optimism():
    generator = np.random.default_rng(2)
    table = generator.random((10, 3000)) < np.array([0.95] + [0.5] * 9)[:, None]
    assert abs(benchmark.measure_selection_optimism(table, 200).same_set.mean()) < 0.005


def test_one_candidate_cannot_be_flattered():
    table = np.random.default_rng(4).random((1, 3000)) < 0.8
    assert abs(benchmark.measure_selection_optimism(table, 500).same_set.mean()) < 0.005


def test_latency_is_interleaved_and_waits_for_the_device():
    order = []

    class Pending:
        def block_until_ready(self):
            time.sleep(0.002)

    def slow():
        order.append("slow")
        return {"outputs": [Pending()]}

    def fast():
        order.append("fast")

    measured = benchmark.measure_latency({"slow": slow, "fast": fast}, num_warmup=1, num_rounds=4)
    assert order == ["slow", "fast"] * 5
    assert len(measured["slow"].seconds) == 4
    assert measured["slow"].median >= 0.002 > measured["fast"].median
    ratio = benchmark.compare_latency(measured["fast"], measured["slow"])
    assert ratio.high < 1
    assert measured["slow"].to_dict()["num_calls"] == 4


def test_interval_formats_and_converts():
    interval = benchmark.Interval(0.5, 0.25, 0.75)
    assert f"{interval:.0%}" == "50% [25%, 75%]"
    assert str(interval) == "0.5 [0.25, 0.75]"
    assert interval.to_dict()["confidence"] == 0.95


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda: benchmark.bootstrap_interval([1.0]), "values"),
        (lambda: benchmark.bootstrap_interval([1.0, np.nan]), "values"),
        (lambda: benchmark.bootstrap_interval([]), "values"),
        (lambda: benchmark.estimate_proportion_interval(5, 3), "num_successes"),
        (lambda: benchmark.estimate_proportion_interval(0, 0), "num_trials"),
        (lambda: benchmark.estimate_expected_maximum(0), "num_candidates"),
        (lambda: benchmark.estimate_selection_optimism(1.2, 9, num_candidates=2), "accuracy"),
        (lambda: benchmark.measure_selection_optimism(np.ones((2, 10)), 5), "num_selection"),
        (lambda: benchmark.measure_latency({}), "runs"),
        (
            lambda: benchmark.compare_latency(
                benchmark.Latency((1.0,)), benchmark.Latency((1.0, 2.0))
            ),
            "baseline",
        ),
    ],
)
def test_bad_input_gets_one_clear_error(call, name):
    with pytest.raises(InputError, match=rf"`{name}` .* Received: .* Fix: "):
        call()
