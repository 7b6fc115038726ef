"""Reading and checking the clause file."""

from __future__ import annotations

import math
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from difflib import get_close_matches
from functools import cache
from importlib import resources
from itertools import pairwise
from types import MappingProxyType
from typing import Any

from .._checks import InputError

LEVELS = ("development", "production", "critical")
"""Levels of strictness, from the least strict to the strictest."""

EVERY_RELEASE = "every release"
"""What a clause applies to that asks no question about the kind of release."""

_DIRECTIONS = ("at_most", "at_least", "above")
_ID = re.compile(r"[A-Z]+-\d{3}")
_KEYWORD = re.compile(r"\b(?:MUST NOT|MUST|SHOULD NOT|SHOULD|MAY)\b")
_DOTTED_PATH = re.compile(r"[a-z_]\w*(?:\.\w+)+")
_VERSION = re.compile(r"\d+\.\d+\.\d+")


@dataclass(frozen=True)
class Clause:
    """One requirement of the release standard and how it is measured.

    Attributes:
        id: family and number, such as `"EVAL-001"`; it never changes its meaning.
        family: the group it belongs to, such as `"evaluation"`.
        requirement: one sentence with one RFC 2119 word.
        rationale: why; the numbers behind it stand on the page.
        page: page of the book that earns the clause, without suffix.
        applies_to: `"every release"`, or the kind of release it concerns, see
            `load_subjects`.
        metric: name of what is measured; no other clause has it.
        unit: unit of the metric.
        direction: `"at_most"`, `"at_least"` or `"above"`, which the bound itself does not
            meet: the side on which the threshold bounds the metric.
        thresholds: the bound at each of `LEVELS`, in `unit`.
        threshold_source: where the bounds come from.
        measured_by: dotted path of the function that measures the metric.
        mappings: what it answers in other standards; may be empty.
        since: version of the library that introduced it.
    """

    id: str
    family: str
    requirement: str
    rationale: str
    page: str
    applies_to: str
    metric: str
    unit: str
    direction: str
    thresholds: Mapping[str, float]
    threshold_source: str
    measured_by: str
    mappings: tuple[str, ...]
    since: str

    @property
    def is_mandatory(self) -> bool:
        """Whether the requirement says MUST or MUST NOT."""
        return re.search(r"\bMUST\b", self.requirement) is not None

    @property
    def is_upper_bound(self) -> bool:
        """Whether the metric must not be large, so that the worse end is the upper one."""
        return self.direction == "at_most"

    def is_met(self, value: float, level: str) -> bool:
        """Returns whether a finite value of the metric is on the right side of the bound."""
        bound = self.thresholds[level]
        if self.is_upper_bound:
            return value <= bound
        return value > bound if self.direction == "above" else value >= bound

    def to_dict(self) -> dict[str, Any]:
        """Returns the fields as plain strings, lists and dictionaries, ready for JSON."""
        plain = {field.name: getattr(self, field.name) for field in fields(self)}
        return plain | {"thresholds": dict(self.thresholds), "mappings": list(self.mappings)}


@cache
def load_clauses() -> tuple[Clause, ...]:
    """Reads the clauses of the standard that this version of the library holds.

    Returns:
        The clauses in the order of the file, which is that of the book.

    Raises:
        ValueError: if the clause file is damaged; the message names clause and field.

    Example:
        >>> load_clauses()[0].id
        'EVAL-001'

    References:
        Bradner, Key words for use in RFCs to Indicate Requirement Levels, RFC 2119, 1997.
    """
    return _parse_clauses(_read_file())


@cache
def load_subjects() -> Mapping[str, str]:
    """Reads the kinds of release that a clause can concern beside every release.

    Returns:
        What each kind is, by name, in the order of the file.

    Raises:
        ValueError: if the clause file is damaged.

    Example:
        >>> load_subjects()["language_model"]
        'A model of text, token by token.'
    """
    return _parse_subjects(_read_file())


def get_clause(clause_id: str) -> Clause:
    """Returns the clause with the given id.

    Args:
        clause_id: such as `"EVAL-001"`.

    Returns:
        The clause.

    Raises:
        InputError: if there is none; the message lists ids that look alike.

    Example:
        >>> get_clause("TRAIN-001").thresholds["critical"]
        0.0
    """
    by_id = {clause.id: clause for clause in load_clauses()}
    if clause_id in by_id:
        return by_id[clause_id]
    near = get_close_matches(str(clause_id).upper(), by_id, cutoff=0.5) or list(by_id)
    raise InputError(
        "clause_id", "must be the id of a clause", repr(clause_id), f"choose from {', '.join(near)}"
    )


def _read_file() -> str:
    return resources.files(__package__).joinpath("clauses.toml").read_text(encoding="utf-8")


def _parse_subjects(text: str) -> Mapping[str, str]:
    subjects = tomllib.loads(text).get("subjects", {})
    for name, description in subjects.items():
        filled = isinstance(description, str) and description.endswith(".")
        _require(filled, "subjects", name, "must be a sentence", repr(description))
    return MappingProxyType(subjects)


def _parse_clauses(text: str) -> tuple[Clause, ...]:
    entries = tomllib.loads(text).get("clause", [])
    subjects = {EVERY_RELEASE, *_parse_subjects(text)}
    clauses = tuple(
        _parse_clause(entry, f"clause {number}") for number, entry in enumerate(entries, start=1)
    )
    for name in ("id", "metric"):
        seen: set[str] = set()
        for clause in clauses:
            value = getattr(clause, name)
            _require(value not in seen, clause.id, name, "must be unique", value)
            seen.add(value)
    for clause in clauses:
        is_known = clause.applies_to in subjects
        _require(is_known, clause.id, "applies_to", "must be a subject", clause.applies_to)
    return clauses


def _parse_clause(entry: Mapping[str, Any], place: str) -> Clause:
    names = {field.name for field in fields(Clause)}
    where = str(entry.get("id", place))
    for name in sorted(names ^ entry.keys()):
        _require(name in entry, where, name, "must be given", "nothing")
        _require(name in names, where, name, "is not a field of a clause", repr(entry[name]))
    for name in sorted(names - {"thresholds", "mappings"}):
        value = entry[name]
        filled = isinstance(value, str) and bool(value.strip())
        _require(filled, where, name, "must be text", repr(value))
    mappings = entry["mappings"]
    are_strings = isinstance(mappings, list) and all(isinstance(item, str) for item in mappings)
    _require(are_strings, where, "mappings", "must be a list of strings", repr(mappings))
    clause = Clause(
        **{name: entry[name] for name in names - {"thresholds", "mappings"}},
        thresholds=_parse_thresholds(entry["thresholds"], where),
        mappings=tuple(mappings),
    )
    _check_text(clause)
    _check_order(clause)
    return clause


def _parse_thresholds(table: Any, where: str) -> Mapping[str, float]:
    complete = isinstance(table, dict) and table.keys() == set(LEVELS)
    _require(complete, where, "thresholds", f"must hold exactly {', '.join(LEVELS)}", repr(table))
    for level, value in table.items():
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        finite = is_number and math.isfinite(value)
        _require(finite, where, f"thresholds.{level}", "must be a finite number", repr(value))
    return MappingProxyType({level: float(table[level]) for level in LEVELS})


def _check_text(clause: Clause) -> None:
    where = clause.id
    for name, pattern, example in (
        ("id", _ID, "EVAL-001"),
        ("measured_by", _DOTTED_PATH, "package.module.function"),
        ("since", _VERSION, "0.1.0"),
    ):
        value = getattr(clause, name)
        matches = pattern.fullmatch(value) is not None
        _require(matches, where, name, f"must look like {example}", repr(value))
    keywords = _KEYWORD.findall(clause.requirement)
    _require(
        len(keywords) == 1,
        where,
        "requirement",
        "must hold exactly one of MUST, MUST NOT, SHOULD, SHOULD NOT, MAY",
        ", ".join(keywords) or "none",
    )
    _require(
        clause.direction in _DIRECTIONS,
        where,
        "direction",
        f"must be one of {', '.join(_DIRECTIONS)}",
        repr(clause.direction),
    )


def _check_order(clause: Clause) -> None:
    """A stricter level may not allow what a less strict one forbids."""
    values: Sequence[float] = [clause.thresholds[level] for level in LEVELS]
    sign = 1 if clause.is_upper_bound else -1
    tightening = all(sign * later <= sign * earlier for earlier, later in pairwise(values))
    _require(
        tightening,
        clause.id,
        "thresholds",
        f"must not loosen from {LEVELS[0]} to {LEVELS[-1]}",
        ", ".join(map(str, values)),
    )


def _require(holds: bool, where: str, field: str, requirement: str, received: str) -> None:
    if not holds:
        raise ValueError(
            f"`{field}` of {where} {requirement}. Received: {received}. "
            "Fix: correct it in clauses.toml"
        )
