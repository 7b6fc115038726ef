"""The release gate: what passes, what stays open, and why."""

import json
import math
from datetime import date, timedelta
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bigmodel_utils.benchmark import estimate_proportion_interval
from bigmodel_utils.evaluation import compare_accuracy
from bigmodel_utils.standards import (
    LEVELS,
    Measurement,
    Waiver,
    check_release,
    get_clause,
    load_clauses,
    load_subjects,
)
from bigmodel_utils.standards._clauses import EVERY_RELEASE

TODAY = date(2026, 6, 1)
CLAUSES = load_clauses()


def judge(metric, measurement, level="production", **arguments):
    """The verdict on one measurement."""
    arguments = {"subjects": [], "checked_on": TODAY} | arguments
    report = check_release({metric: measurement}, level, **arguments)
    return next(verdict for verdict in report.verdicts if verdict.metric == metric)


def meet(clause, level):
    """The worst measurement that passes: on the bound, or next to it."""
    bound = clause.thresholds[level]
    return math.nextafter(bound, math.inf) if clause.direction == "above" else bound


def miss(clause, level):
    """The best measurement that does not."""
    bound = clause.thresholds[level]
    away = {"at_most": math.inf, "at_least": -math.inf, "above": bound}
    return math.nextafter(bound, away[clause.direction])


def make_waiver(clause_id, *, days=30, **changes):
    fields = {"reason": "agreed", "owner": "head", "expires": TODAY + timedelta(days=days)}
    return Waiver(clause_id, **fields | changes)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("clause", CLAUSES, ids=lambda clause: clause.id)
def test_bound_is_met_or_missed_by_a_hair(clause, level):
    assert judge(clause.metric, meet(clause, level), level).status == "passed"
    assert judge(clause.metric, miss(clause, level), level).status == "failed"


@pytest.mark.parametrize("level", LEVELS)
def test_release_that_meets_every_clause_passes(level):
    measurements = {clause.metric: meet(clause, level) for clause in CLAUSES}
    report = check_release(measurements, level, subjects=load_subjects())
    assert report.passed
    assert report.exit_status == 0
    assert report.count_statuses() == {"passed": len(CLAUSES)}


@pytest.mark.parametrize("clause", CLAUSES, ids=lambda clause: clause.id)
def test_one_clause_missed_or_left_out_keeps_the_release_back(clause):
    level = "production"
    measurements = {clause.metric: meet(clause, level) for clause in CLAUSES}
    for wrong in ({clause.metric: miss(clause, level)}, {clause.metric: math.nan}, {}):
        rest = {name: v for name, v in measurements.items() if name != clause.metric}
        report = check_release(rest | wrong, level, subjects=load_subjects(), checked_on=TODAY)
        assert [verdict.clause_id for verdict in report.open_verdicts] == [clause.id]
        assert report.exit_status == 1


# The worse end, whatever form the interval comes in.


def judged(direction, *forms):
    metric = "recall" if direction == "at_least" else "leaked_share"
    return {judge(metric, form).judged for form in forms}


def test_interval_is_judged_by_its_worse_end():
    forms = (
        (0.2, 0.6),
        [0.2, 0.6],
        Measurement(0.4, 0.2, 0.6),
        {"value": 0.4, "low": 0.2, "high": 0.6},
        {"value": 0.4, "low": 0.2, "high": 0.6, "measured_on": "2026-05-01"},
        SimpleNamespace(value=0.4, low=0.2, high=0.6),
        {"value": np.float32(0.4), "low": np.float64(0.2), "high": 0.6},
    )
    assert judged("at_least", *forms) == {0.2}
    assert judged("at_most", *forms) == {0.6}


def test_interval_of_the_library_is_taken_as_it_is():
    interval = estimate_proportion_interval(90, 100)
    assert judge("recall", interval).judged == interval.low


def test_interval_that_straddles_the_bound_does_not_pass():
    bound = get_clause("EVAL-008").thresholds["production"]
    assert judge("recall", bound).status == "passed"
    assert judge("recall", (bound - 0.01, bound + 0.2)).status == "failed"


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("metric", ["recall", "leaked_share"])
def test_no_end_may_be_infinite_or_undefined(metric, number):
    assert judge(metric, number).status == "not finite"
    ends = {"low": number} if number < 0 else {"high": number}
    assert judge(metric, {"value": 0.5, **ends}).status == "not finite"


def agrees_with_the_definition(ends, level, clause, gate):
    """Property: passed exactly if every point of the interval is on the right side."""
    low, high = sorted(ends)
    points = np.linspace(low, high, 5)
    bound = clause.thresholds[level]
    compare = {"at_most": np.less_equal, "at_least": np.greater_equal, "above": np.greater}
    holds = compare[clause.direction](points, bound).all()
    assert (gate(clause.metric, (low, high), level).status == "passed") == holds


bounds = st.floats(-2, 2)
intervals = st.tuples(bounds, bounds)
levels, clauses = st.sampled_from(LEVELS), st.sampled_from(CLAUSES)


@given(intervals, levels, clauses)
def test_passed_means_the_whole_interval(ends, level, clause):
    agrees_with_the_definition(ends, level, clause, judge)


def test_whole_interval_twin():
    """A gate that judges the middle of the interval has the property no more."""

    def judge_middle(metric, ends, level):
        return judge(metric, sum(ends) / 2, level)

    @settings(derandomize=True)
    @given(intervals, levels, clauses)
    def check(ends, level, clause):
        agrees_with_the_definition(ends, level, clause, judge_middle)

    with pytest.raises(AssertionError):
        check()


@given(bounds, clauses)
def test_stricter_level_never_lets_pass_what_a_looser_one_holds_back(value, clause):
    passed = [judge(clause.metric, value, level).status == "passed" for level in LEVELS]
    assert passed == sorted(passed, reverse=True)


def test_a_model_does_not_beat_itself():
    """Its lead over itself is an interval from zero to zero."""
    correct = np.arange(100) % 9 > 0
    lead = compare_accuracy(correct, correct).difference
    assert judge("lead_over_simplest", lead, "critical").status == "failed"
    assert judge("architecture_lead", lead, "critical").status == "failed"


# What applies.


@pytest.mark.parametrize("subject", load_subjects())
def test_subject_brings_its_clauses_and_no_others(subject):
    report = check_release({}, "production", subjects=[subject])
    missing = {verdict.clause_id for verdict in report.verdicts if verdict.status == "missing"}
    assert missing == {c.id for c in CLAUSES if c.applies_to in (EVERY_RELEASE, subject)}
    rest = {verdict.status for verdict in report.verdicts if verdict.clause_id not in missing}
    assert rest == {"not applicable"}


def test_no_subject_leaves_the_clauses_of_every_release():
    report = check_release({}, "development", subjects=[])
    wanted = [clause.id for clause in CLAUSES if clause.applies_to == EVERY_RELEASE]
    assert [verdict.clause_id for verdict in report.open_verdicts] == wanted


def test_what_was_measured_is_judged_though_it_was_not_declared():
    """Leaving a subject out must not hide a measurement that failed."""
    assert judge("shift_consistency", 0.1).status == "failed"


# Age.


@pytest.mark.parametrize(("age_days", "status"), [(0, "passed"), (180, "passed"), (181, "stale")])
def test_measurement_grows_stale(age_days, status):
    day = TODAY - timedelta(days=age_days)
    assert judge("recall", Measurement(1.0, measured_on=day)).status == status


def test_age_that_is_allowed_can_be_set():
    day = TODAY - timedelta(days=2)
    assert judge("recall", Measurement(1.0, measured_on=day), max_age_days=1).status == "stale"


# Waivers.


@pytest.mark.parametrize("measurement", [0.0, math.nan, None])
def test_waiver_settles_what_is_open_and_says_why(measurement):
    measurements = {} if measurement is None else {"recall": measurement}
    report = check_release(
        measurements,
        "production",
        subjects=["language_model"],
        waivers=[make_waiver("EVAL-008", reason="texts are short", owner="editor")],
        checked_on=TODAY,
    )
    verdict = next(verdict for verdict in report.verdicts if verdict.clause_id == "EVAL-008")
    assert verdict.status == "waived"
    for part in ("texts are short", "editor", "2026-07-01"):
        assert part in verdict.reason


@pytest.mark.parametrize(("days", "status"), [(0, "waived"), (-1, "waiver expired")])
def test_waiver_holds_on_its_last_day_and_no_longer(days, status):
    waiver = make_waiver("EVAL-008", days=days)
    assert judge("recall", 0.0, waivers=[waiver]).status == status


def test_waiver_of_a_clause_that_is_met_changes_nothing():
    assert judge("recall", 1.0, waivers=[make_waiver("EVAL-008")]).status == "passed"


def test_must_cannot_be_waived_where_it_is_critical():
    verdict = judge("recall", 0.0, "critical", waivers=[make_waiver("EVAL-008")])
    assert verdict.status == "failed"
    assert "cannot be waived" in verdict.reason
    should = judge("seed_difference", 1.0, "critical", waivers=[make_waiver("REPRO-001")])
    assert should.status == "waived"


# Bad input.


@pytest.mark.parametrize(
    ("measurements", "arguments", "message"),
    [
        ({"recalled": 0.9}, {}, "`measurements` must be one of .*recall"),
        ({"recall": "high"}, {}, "`measurements` must hold numbers. Received: recall: 'high'"),
        ({"recall": True}, {}, "`measurements` must hold numbers"),
        ({"recall": None}, {}, "`measurements` must hold numbers"),
        ({"recall": {"low": 0.1, "high": 0.2}}, {}, "`measurements` must hold numbers"),
        ({"recall": {"value": 0.1, "hi": 0.2}}, {}, "`measurements` must hold numbers"),
        ({"recall": (0.9, 0.8)}, {}, "ends of an interval on both sides"),
        ({"recall": Measurement(0.9, low=0.95)}, {}, "ends of an interval on both sides"),
        (
            {"recall": {"value": 1.0, "measured_on": "May"}},
            {},
            "`measurements` must be dated by day. Received: recall measured on 'May'",
        ),
        (
            {"recall": Measurement(1.0, measured_on=TODAY + timedelta(days=1))},
            {},
            "must not be dated after the verdict",
        ),
        ({}, {"level": "strict"}, "`level` must be one of 'development', 'production', 'critical'"),
        ({}, {"subjects": ["net"]}, "`subjects` must be one of 'classifier'"),
        ({}, {"max_age_days": -1}, "`max_age_days` must be an integer of at least 0"),
        ({}, {"waivers": [make_waiver("EVAL-999")]}, "`clause_id` must be the id of a clause"),
        ({}, {"waivers": [make_waiver("EVAL-001")] * 2}, "must hold one for a clause"),
        ({}, {"waivers": [make_waiver("EVAL-001", reason=" ")]}, "must state their reason"),
        ({}, {"waivers": [make_waiver("EVAL-001", owner="")]}, "must state their owner"),
    ],
)
def test_bad_input_is_named(measurements, arguments, message):
    arguments = {"level": "production", "subjects": [], "checked_on": TODAY} | arguments
    with pytest.raises(ValueError, match=message):
        check_release(measurements, arguments.pop("level"), **arguments)


# What the report says.


@pytest.fixture
def report():
    return check_release(
        {"recall": (0.9, 0.95), "future_dependence": math.nan, "cache_difference": 1.0},
        "production",
        subjects=["language_model"],
        waivers=[make_waiver("EFFI-001")],
        checked_on=TODAY,
    )


def test_report_survives_strict_json(report):
    plain = report.to_dict()
    assert json.loads(json.dumps(plain, allow_nan=False)) == plain
    verdict = next(v for v in plain["verdicts"] if v["clause_id"] == "GEN-002")
    assert verdict["measurement"]["value"] == "nan"


def test_text_and_html_hold_every_clause_that_applies(report):
    for shown in (str(report), report._repr_html_()):
        assert "Not passed at level production" in shown
        for verdict in report.verdicts:
            assert (verdict.clause_id in shown) == (verdict.status != "not applicable")


def test_open_clauses_come_first(report):
    lines = str(report).splitlines()[2:]
    is_open = [line.split()[1] in ("missing", "not", "failed") for line in lines]
    assert is_open == sorted(is_open, reverse=True)
