"""Whether data can be relied on: duplicates, leakage, wrong labels, drift, broken tables.

Each search reports plain numbers, and each can be put to the test on faults that were
planted: `make_near_duplicates`, `corrupt_labels`, `measure_detection`.
"""

from ._bands import Bands, find_bands
from ._cost import SearchCost, measure_search_cost
from ._detection import Detection, measure_detection
from ._drift import DriftReport, FeatureDrift, measure_drift
from ._duplicates import (
    DuplicateReport,
    SimilarPair,
    find_near_duplicates,
    make_near_duplicates,
)
from ._labels import LabelIssueReport, corrupt_labels, find_label_issues
from ._leakage import (
    ContaminationReport,
    LeakageReport,
    LeakedText,
    measure_contamination,
    measure_leakage,
)
from ._schema import SchemaProblem, SchemaReport, check_schema
from ._shingles import build_shingles, measure_similarity

__all__ = [
    "Bands",
    "ContaminationReport",
    "Detection",
    "DriftReport",
    "DuplicateReport",
    "FeatureDrift",
    "LabelIssueReport",
    "LeakageReport",
    "LeakedText",
    "SchemaProblem",
    "SchemaReport",
    "SearchCost",
    "SimilarPair",
    "build_shingles",
    "check_schema",
    "corrupt_labels",
    "find_bands",
    "find_label_issues",
    "find_near_duplicates",
    "make_near_duplicates",
    "measure_contamination",
    "measure_detection",
    "measure_drift",
    "measure_leakage",
    "measure_search_cost",
    "measure_similarity",
]
