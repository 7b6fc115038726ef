"""The release standard as data, and the gate that holds a release against it."""

from ._clauses import LEVELS, Clause, get_clause, load_clauses, load_subjects
from ._release import ClauseVerdict, Measurement, ReleaseReport, Waiver, check_release

__all__ = [
    "LEVELS",
    "Clause",
    "ClauseVerdict",
    "Measurement",
    "ReleaseReport",
    "Waiver",
    "check_release",
    "get_clause",
    "load_clauses",
    "load_subjects",
]
