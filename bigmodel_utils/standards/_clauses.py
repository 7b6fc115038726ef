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

LEVELS = ("development", "production", "critical")
"""Levels of strictness, from the least strict to the strictest."""

_DIRECTIONS = ("at_most", "at_least")
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
        metric: name of what is measured.
        unit: unit of the metric.
        direction: `"at_most"` or `"at_least"`: the side on which the threshold bounds it.
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
    metric: str
    unit: str
    direction: str
    thresholds: Mapping[str, float]
    threshold_source: str
    measured_by: str
    mappings: tuple[str, ...]
    since: str

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
    text = resources.files(__package__).joinpath("clauses.toml").read_text(encoding="utf-8")
    return _parse_clauses(text)


def get_clause(clause_id: str) -> Clause:
    """Returns the clause with the given id.

    Args:
        clause_id: such as `"EVAL-001"`.

    Returns:
        The clause.

    Raises:
        ValueError: if there is none; the message lists ids that look alike.

    Example:
        >>> get_clause("TRAIN-001").thresholds["critical"]
        0.0
    """
    by_id = {clause.id: clause for clause in load_clauses()}
    if clause_id in by_id:
        return by_id[clause_id]
    near = get_close_matches(str(clause_id).upper(), by_id, cutoff=0.5) or list(by_id)
    raise ValueError(
        f"`clause_id` must be the id of a clause. Received: {clause_id!r}. "
        f"Fix: choose from {', '.join(near)}"
    )


def _parse_clauses(text: str) -> tuple[Clause, ...]:
    entries = tomllib.loads(text).get("clause", [])
    clauses = tuple(
        _parse_clause(entry, f"clause {number}") for number, entry in enumerate(entries, start=1)
    )
    seen: set[str] = set()
    for clause in clauses:
        _require(clause.id not in seen, clause.id, "id", "must be unique", clause.id)
        seen.add(clause.id)
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
    sign = 1 if clause.direction == "at_most" else -1
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
