"""Load with known answers; percentile intervals against the binomial; answers by whom they name."""

import threading
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from bigmodel_utils._checks import InputError
from bigmodel_utils.evaluation import (
    LoadReport,
    count_misattributed,
    estimate_percentile_interval,
    measure_load,
)


def test_each_request_is_sent_once_and_reported_in_its_place():
    sent = []

    def send(number):
        sent.append(number)
        return 200 + number

    report = measure_load(send, 50, num_clients=4)
    assert sorted(sent) == list(range(50))
    assert report.statuses == tuple(range(200, 250))
    assert len(report.seconds) == 50


def test_outcomes_of_statuses():
    statuses = [200, 204, 429, 503, 400, 404, 422, 500, 302, 0]
    report = LoadReport((0.1,) * 10, tuple(statuses), wall_seconds=2.0, num_clients=1)
    assert report.outcomes == {
        "answered": 2,
        "refused": 2,
        "rejected": 3,
        "failed": 2,
        "lost": 1,
    }
    assert report.requests_per_second == 1
    assert "2 answered, 2 refused" in str(report)
    assert report.to_dict()["num_lost"] == 1


def test_as_many_clients_as_were_asked_for():
    now, most, lock = [0], [0], threading.Lock()

    def send(number):
        with lock:
            now[0] += 1
            most[0] = max(most[0], now[0])
        time.sleep(0.005)
        with lock:
            now[0] -= 1
        return 200

    report = measure_load(send, 40, num_clients=5)
    assert most[0] == 5
    # Little's law: those in flight are the answers of a second times the seconds of an answer.
    in_flight = report.requests_per_second * report.answered_seconds.mean()
    assert in_flight == pytest.approx(5, rel=0.15)


def test_what_raises_is_lost_and_the_others_go_on():
    def send(number):
        if number % 3 == 0:
            raise ConnectionResetError
        return 200

    report = measure_load(send, 30, num_clients=3)
    assert report.outcomes["lost"] == 10
    assert report.outcomes["answered"] == 20
    assert np.isinf(report.seconds).sum() == 10
    assert np.isfinite(report.answered_seconds).all()


def test_a_load_is_bounded_in_time():
    gate = threading.Event()

    def send(number):
        if number == 2:
            gate.wait(10)
        return 200

    started = time.perf_counter()
    report = measure_load(send, 6, num_clients=2, timeout_seconds=0.3)
    assert time.perf_counter() - started < 2
    assert report.statuses[2] == 0
    gate.set()
    time.sleep(0.05)
    assert report.statuses[2] == 0  # an answer after the end does not change the report


def stall(number):
    """A service that answers at once, except that it once stands still."""
    time.sleep(0.3 if number == 10 else 0)
    return 200


def test_a_rate_shows_who_waited_behind_a_stall_and_a_loop_hides_it():
    """One client: those that were due during the stall are late, by the clock of the due."""
    due = measure_load(stall, 60, num_clients=1, requests_per_second=100)
    loop = measure_load(stall, 60, num_clients=1)
    assert np.sum(np.array(due.seconds) > 0.05) == pytest.approx(25, abs=5)
    assert np.sum(np.array(loop.seconds) > 0.05) == 1
    assert due.wall_seconds > 0.55


@pytest.mark.parametrize(
    "wrong",
    [
        {"num_requests": 0},
        {"num_clients": 0},
        {"num_clients": 1.5},
        {"requests_per_second": 0},
        {"timeout_seconds": 0},
    ],
)
def test_bad_load_is_refused(wrong):
    given_ = {"num_requests": 3, "num_clients": 1} | wrong
    with pytest.raises(InputError, match=next(iter(wrong))):
        measure_load(lambda _: 200, given_.pop("num_requests"), **given_)


def check_interval_is_exact(estimate, num_values, percent):
    """The ends are the closest that miss rarely enough, by the binomial of SciPy."""
    found = estimate(np.arange(1, num_values + 1), percent)
    law = stats.binom(num_values, percent / 100)
    low = 0 if np.isinf(found.low) else int(found.low)
    high = num_values + 1 if np.isinf(found.high) else int(found.high)
    assert low == 0 or law.cdf(low - 1) <= 0.025 + 1e-12
    assert law.cdf(low) > 0.025 - 1e-12  # one rank further in would miss too often
    assert high == num_values + 1 or law.sf(high - 1) <= 0.025 + 1e-12
    assert law.sf(high - 2) > 0.025 - 1e-12


counts, percents = st.integers(1, 600), st.floats(1, 99)


@given(counts, percents)
@settings(deadline=None)
def test_percentile_interval_is_exact(num_values, percent):
    check_interval_is_exact(estimate_percentile_interval, num_values, percent)


def test_percentile_interval_twin():
    """The interval of the normal approximation is found out."""

    def approximate(values, percent):
        spread = 1.96 * np.sqrt(len(values) * percent / 100 * (1 - percent / 100))
        centre = len(values) * percent / 100
        found = estimate_percentile_interval(values, percent)
        low, high = np.clip([centre - spread, centre + spread], 1, len(values)).round()
        return type(found)(found.value, low, high)

    @settings(derandomize=True, deadline=None, report_multiple_bugs=False)
    @given(counts, percents)
    def check(num_values, percent):
        check_interval_is_exact(approximate, num_values, percent)

    with pytest.raises(AssertionError):
        check()


def test_the_upper_end_of_the_tail_takes_as_many_values_as_the_docstring_says():
    assert np.isinf(estimate_percentile_interval(np.arange(367.0), 99).high)
    assert estimate_percentile_interval(np.arange(368.0), 99).high == 367


def test_percentile_interval_covers():
    generator = np.random.default_rng(0)
    truth = stats.expon.ppf(0.9)
    hits = 0
    for _ in range(1000):
        found = estimate_percentile_interval(generator.exponential(size=200), 90)
        hits += found.low <= truth <= found.high
    assert 0.94 < hits / 1000 < 0.985


@pytest.mark.parametrize(
    ("values", "percent", "name"),
    [([], 50, "values"), ([1.0, np.nan], 50, "values"), ([1.0], 0, "percent")],
)
def test_bad_percentile_is_refused(values, percent, name):
    with pytest.raises(InputError, match=name):
        estimate_percentile_interval(values, percent)


TABLES = {"a": np.arange(12.0).reshape(6, 2), "b": 100 + np.arange(12.0).reshape(6, 2)}


def check_count(count, truly, says):
    outputs = np.stack([TABLES[model][row] for row, model in enumerate(truly)])
    wrong = sum(one != other for one, other in zip(truly, says, strict=True))
    assert count(says, outputs, expected=TABLES) == wrong


six_models = st.lists(st.sampled_from(["a", "b"]), min_size=6, max_size=6)


@given(six_models, six_models)
def test_answers_of_another_model_are_counted(truly, says):
    check_count(count_misattributed, truly, says)


def test_answers_of_another_model_twin():
    """A count that lets an answer be any model's is found out."""

    def lenient(names, outputs, *, expected):
        unlike = [
            count_misattributed([model] * len(names), outputs, expected=expected)
            for model in expected
        ]
        return min(unlike)

    @settings(derandomize=True)
    @given(six_models, six_models)
    def check(truly, says):
        check_count(lenient, truly, says)

    with pytest.raises(AssertionError):
        check()


def test_an_unknown_name_and_a_number_that_is_none_are_counted():
    outputs = TABLES["a"].copy()
    outputs[3] = np.nan
    assert count_misattributed(["a"] * 5 + ["c"], outputs, expected=TABLES) == 2


def test_outputs_must_fit_what_is_expected():
    with pytest.raises(InputError, match="names"):
        count_misattributed(["a"], TABLES["a"], expected=TABLES)
    with pytest.raises(InputError, match=r"expected\['a'\]"):
        count_misattributed(["a"] * 6, TABLES["a"], expected={"a": TABLES["a"][:5]})
