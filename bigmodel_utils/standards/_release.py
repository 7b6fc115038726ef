"""The release gate: measurements held against the clauses that a release falls under."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, date, datetime, timedelta
from numbers import Real
from typing import Any

from .._checks import InputError, check_choice, check_integer
from .._report import Table, render_html, render_text
from ._clauses import EVERY_RELEASE, LEVELS, Clause, get_clause, load_clauses, load_subjects

MAX_AGE_DAYS = 180
"""Age in days above which a measurement is stale, unless the caller says otherwise."""

OPEN_STATUSES = ("missing", "not finite", "stale", "failed", "waiver expired")
"""What keeps a release from passing."""
_SETTLED_STATUSES = ("passed", "waived", "not applicable")


@dataclass(frozen=True)
class Measurement:
    """What was measured for one metric.

    Attributes:
        value: the estimate, in the unit of the metric.
        low: lower end of its interval; `None` for a value that is exact.
        high: upper end of its interval; `None` likewise.
        measured_on: day of the measurement; `None` for one made in the run that asks.
    """

    value: float
    low: float | None = None
    high: float | None = None
    measured_on: date | None = None

    def to_dict(self) -> dict[str, Any]:
        """Returns the fields ready for JSON, which knows a number only if it is finite."""
        ends = {name: _write_number(getattr(self, name)) for name in ("value", "low", "high")}
        day = None if self.measured_on is None else self.measured_on.isoformat()
        return ends | {"measured_on": day}


@dataclass(frozen=True)
class Waiver:
    """A decision to release although a clause is not met.

    Attributes:
        clause_id: the clause that is waived.
        reason: why the release is made all the same.
        owner: role that answers for it, such as `"head of radiology"`.
        expires: last day on which the waiver holds.
    """

    clause_id: str
    reason: str
    owner: str
    expires: date

    def to_dict(self) -> dict[str, Any]:
        """Returns the fields as a plain dictionary, ready for JSON."""
        return asdict(self) | {"expires": self.expires.isoformat()}


@dataclass(frozen=True)
class ClauseVerdict:
    """What the gate says about one clause.

    Attributes:
        clause_id: the clause.
        metric: what it bounds.
        status: `"passed"`, `"waived"`, `"not applicable"`, or one of `OPEN_STATUSES`.
        judged: the end of the interval that was judged, in the unit of the metric; `None`
            where nothing was.
        requirement: the bound in words, such as `"at most 0.03 fraction"`.
        reason: why the status is what it is.
        measurement: what was measured; `None` where nothing was.
    """

    clause_id: str
    metric: str
    status: str
    judged: float | None
    requirement: str
    reason: str
    measurement: Measurement | None

    @property
    def is_open(self) -> bool:
        """Whether it keeps the release from passing."""
        return self.status in OPEN_STATUSES

    def to_dict(self) -> dict[str, Any]:
        """Returns the fields as a plain dictionary, ready for JSON."""
        measurement = None if self.measurement is None else self.measurement.to_dict()
        return vars(self) | {"measurement": measurement}


@dataclass(frozen=True)
class ReleaseReport:
    """The verdict of the gate on a release.

    Attributes:
        level: strictness that was asked for.
        subjects: what the release was declared to be.
        checked_on: day of the verdict.
        verdicts: one for each clause of the standard, in its order.
        waivers: the waivers that were handed in.
    """

    level: str
    subjects: tuple[str, ...]
    checked_on: date
    verdicts: tuple[ClauseVerdict, ...]
    waivers: tuple[Waiver, ...]

    @property
    def passed(self) -> bool:
        """Whether no clause is open."""
        return not self.open_verdicts

    @property
    def open_verdicts(self) -> tuple[ClauseVerdict, ...]:
        """The verdicts that keep the release from passing."""
        return tuple(verdict for verdict in self.verdicts if verdict.is_open)

    @property
    def exit_status(self) -> int:
        """0 for a release that passed and 1 for one that did not, as a process ends."""
        return 0 if self.passed else 1

    def count_statuses(self) -> dict[str, int]:
        """Counts the clauses by status, the open ones first; a status that none has is left out."""
        statuses = [verdict.status for verdict in self.verdicts]
        order = (*OPEN_STATUSES, *_SETTLED_STATUSES)
        return {status: statuses.count(status) for status in order if status in statuses}

    def to_dict(self) -> dict[str, Any]:
        """Returns the report as plain values, ready for JSON."""
        return {
            "level": self.level,
            "subjects": list(self.subjects),
            "checked_on": self.checked_on.isoformat(),
            "passed": self.passed,
            "verdicts": [verdict.to_dict() for verdict in self.verdicts],
            "waivers": [waiver.to_dict() for waiver in self.waivers],
        }

    def __str__(self) -> str:
        return f"{self._write_headline()}\n{render_text(*self._list_table())}"

    def _repr_html_(self) -> str:
        return f"<p><strong>{self._write_headline()}</strong></p>{render_html(*self._list_table())}"

    def _write_headline(self) -> str:
        counts = ", ".join(f"{number} {status}" for status, number in self.count_statuses().items())
        return f"{'Passed' if self.passed else 'Not passed'} at level {self.level}: {counts}"

    def _list_table(self) -> Table:
        """Open clauses first; those that do not apply are counted in the headline only."""
        shown = [verdict for verdict in self.verdicts if verdict.status != "not applicable"]
        shown.sort(key=lambda verdict: not verdict.is_open)
        rows = [
            (
                verdict.clause_id,
                verdict.status,
                verdict.metric,
                "–" if verdict.judged is None else f"{verdict.judged:.3g}",
                verdict.requirement,
                verdict.reason,
            )
            for verdict in shown
        ]
        return ("Clause", "Status", "Metric", "Judged", "Required", "Why"), rows


def check_release(
    measurements: Mapping[str, Any],
    level: str,
    *,
    subjects: Collection[str],
    waivers: Sequence[Waiver] = (),
    checked_on: date | None = None,
    max_age_days: int = MAX_AGE_DAYS,
) -> ReleaseReport:
    """Judges a release by the clauses of the standard.

    A clause applies if it concerns every release or one of `subjects`; it applies, too, where
    its metric was measured. It passes if the measurement is on the right side of the bound
    for `level`, an interval by its worse end. A clause that applies and was not measured,
    whose measurement is not finite or is stale, is open like one that failed. A waiver settles
    an open clause until it expires, except that at level `"critical"` a clause with MUST
    cannot be waived.

    Args:
        measurements: by metric, a number, a pair `(low, high)`, a `Measurement`, a mapping
            with its fields, or any object with `value`, `low` and `high`, as the intervals
            of `bigmodel_utils.benchmark` are.
        level: one of `LEVELS`.
        subjects: what is released, from the names in `load_subjects()`; empty if nothing
            more than the clauses for every release applies.
        waivers: at most one for a clause.
        checked_on: day of the verdict; today in UTC if left out.
        max_age_days: age above which a measurement is stale.

    Returns:
        The report: it says whether the release passed, and why for every clause.

    Raises:
        InputError: for an unknown level, metric, subject or clause, two waivers for one
            clause, a waiver without reason or owner, a measurement that is no number, or an
            interval whose ends are in the wrong order.

    Limits:
        The gate judges what it is told. Whether a number was measured as its clause says is
        for the evidence to show; see `write_evidence`.

    Example:
        >>> report = check_release(
        ...     {"recall": (0.97, 0.99), "future_dependence": 0.0},
        ...     "production",
        ...     subjects=["language_model"],
        ... )
        >>> report.passed
        False
        >>> report.open_verdicts[0].clause_id, report.open_verdicts[0].status
        ('EVAL-001', 'missing')
    """
    check_choice("level", level, LEVELS)
    for subject in subjects:
        check_choice("subjects", subject, load_subjects())
    day = datetime.now(UTC).date() if checked_on is None else checked_on
    check_integer("max_age_days", max_age_days, at_least=0)
    known = {clause.metric: clause for clause in load_clauses()}
    parsed = {
        check_choice("measurements", name, known): _parse_measurement(name, value, day)
        for name, value in measurements.items()
    }
    by_clause = _index_waivers(waivers)
    oldest = day - timedelta(days=max_age_days)
    verdicts = []
    for clause in known.values():
        verdict = _judge(clause, parsed.get(clause.metric), level, oldest)
        if verdict.measurement is None and clause.applies_to not in (EVERY_RELEASE, *subjects):
            reason = f"not declared: {clause.applies_to}"
            verdict = replace(verdict, status="not applicable", reason=reason)
        if verdict.is_open and clause.id in by_clause:
            verdict = _waive(verdict, clause, by_clause[clause.id], level=level, day=day)
        verdicts.append(verdict)
    ordered = tuple(name for name in load_subjects() if name in subjects)
    return ReleaseReport(level, ordered, day, tuple(verdicts), tuple(waivers))


def _judge(
    clause: Clause, measurement: Measurement | None, level: str, oldest: date
) -> ClauseVerdict:
    """Judges a clause by what was measured, whether or not it applies."""
    bound = clause.thresholds[level]
    requirement = f"{clause.direction.replace('_', ' ')} {bound:g} {clause.unit}"
    judged = None
    if measurement is None:
        status, reason = "missing", f"measure it with {clause.measured_by}"
    else:
        ends = (measurement.value, measurement.low, measurement.high)
        given = [end for end in ends if end is not None]
        judged = max(given) if clause.is_upper_bound else min(given)
        if not all(map(math.isfinite, given)):
            status, judged = "not finite", None
            reason = f"the measurement is {', '.join(map(str, given))}"
        elif measurement.measured_on is not None and measurement.measured_on < oldest:
            status, reason = "stale", f"measured on {measurement.measured_on}, before {oldest}"
        elif clause.is_met(judged, level):
            status, reason = "passed", "" if len(given) == 1 else "by the worse end"
        else:
            status, reason = "failed", clause.requirement
    return ClauseVerdict(clause.id, clause.metric, status, judged, requirement, reason, measurement)


def _waive(
    verdict: ClauseVerdict, clause: Clause, waiver: Waiver, *, level: str, day: date
) -> ClauseVerdict:
    if level == LEVELS[-1] and clause.is_mandatory:
        reason = f"{verdict.reason} (a MUST cannot be waived at level {level})"
        return replace(verdict, reason=reason)
    if waiver.expires < day:
        reason = f"{verdict.status}; the waiver expired on {waiver.expires}"
        return replace(verdict, status="waiver expired", reason=reason)
    reason = f"{verdict.status}; {waiver.reason} ({waiver.owner}, until {waiver.expires})"
    return replace(verdict, status="waived", reason=reason)


def _parse_measurement(name: str, given: Any, day: date) -> Measurement:
    """Reads any of the forms that `check_release` takes."""
    measured_on = None
    match given:
        case {"value": value, **rest} if rest.keys() <= {"low", "high", "measured_on"}:
            low, high, measured_on = (rest.get(key) for key in ("low", "high", "measured_on"))
        case (low, high):
            value = (low + high) / 2
        case object(value=value, low=low, high=high):
            measured_on = getattr(given, "measured_on", None)
        case _:
            value, low, high = given, None, None
    low, high = (None if end is None else _parse_number(name, end) for end in (low, high))
    measurement = Measurement(_parse_number(name, value), low, high, _parse_day(name, measured_on))
    _check_interval(name, measurement)
    if measurement.measured_on is not None and measurement.measured_on > day:
        raise InputError(
            "measurements",
            "must not be dated after the verdict",
            f"{name} measured on {measurement.measured_on}, verdict of {day}",
            "correct the date",
        )
    return measurement


def _parse_number(name: str, value: Any) -> float:
    """Returns a number, finite or not: that it is not finite is for the verdict to say."""
    if isinstance(value, bool) or not isinstance(value, Real):
        raise InputError("measurements", "must hold numbers", f"{name}: {value!r}", "pass a float")
    return float(value)


def _parse_day(name: str, value: Any) -> date | None:
    if value is None or (isinstance(value, date) and not isinstance(value, datetime)):
        return value
    try:
        return date.fromisoformat(value)
    except (TypeError, ValueError):
        received = f"{name} measured on {value!r}"
        raise InputError(
            "measurements", "must be dated by day", received, "write it as 2026-01-31"
        ) from None


def _check_interval(name: str, measurement: Measurement) -> None:
    low, value, high = measurement.low, measurement.value, measurement.high
    lower = value if low is None else low
    upper = value if high is None else high
    # Written so that what is not finite passes on: the verdict names it.
    if lower > value or value > upper:
        raise InputError(
            "measurements",
            "must have the ends of an interval on both sides of its value",
            f"{name}: {lower} to {upper} around {value}",
            "pass the lower end first",
        )


def _index_waivers(waivers: Sequence[Waiver]) -> dict[str, Waiver]:
    by_clause: dict[str, Waiver] = {}
    for waiver in waivers:
        get_clause(waiver.clause_id)
        for field in ("reason", "owner"):
            if not str(getattr(waiver, field)).strip():
                raise InputError(
                    "waivers", f"must state their {field}", waiver, f"say the {field} in words"
                )
        if waiver.clause_id in by_clause:
            raise InputError(
                "waivers", "must hold one for a clause", f"two for {waiver.clause_id}", "drop one"
            )
        by_clause[waiver.clause_id] = waiver
    return by_clause


def _write_number(value: float | None) -> float | str | None:
    return value if value is None or math.isfinite(value) else str(value)
