"""The release standard as data, and the gate that holds a release against it."""

from ._cards import DataSheet, ModelCard
from ._clauses import LEVELS, Clause, get_clause, load_clauses, load_subjects
from ._digests import find_stale_files, hash_file
from ._evidence import EvidenceBundle, write_evidence
from ._release import ClauseVerdict, Measurement, ReleaseReport, Waiver, check_release
from ._signing import EvidenceReport, sign_evidence, verify_evidence

__all__ = [
    "LEVELS",
    "Clause",
    "ClauseVerdict",
    "DataSheet",
    "EvidenceBundle",
    "EvidenceReport",
    "Measurement",
    "ModelCard",
    "ReleaseReport",
    "Waiver",
    "check_release",
    "find_stale_files",
    "get_clause",
    "hash_file",
    "load_clauses",
    "load_subjects",
    "sign_evidence",
    "verify_evidence",
    "write_evidence",
]
