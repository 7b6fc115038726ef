"""How well a search finds faults that were planted."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from dataclasses import asdict, dataclass
from typing import Any

from .._checks import InputError, check_real
from ..benchmark import Interval, estimate_proportion_interval


@dataclass(frozen=True)
class Detection:
    """Faults found against faults planted.

    Attributes:
        precision: share of what was found that had been planted; `None` if nothing was found.
        recall: share of what had been planted that was found.
        num_found: faults found.
        num_injected: faults planted.
        num_hits: faults both planted and found.
    """

    precision: Interval | None
    recall: Interval
    num_found: int
    num_injected: int
    num_hits: int

    def to_dict(self) -> dict[str, Any]:
        """Returns the figures as a plain dictionary, ready for JSON."""
        return asdict(self)


def measure_detection(
    found: Iterable[Hashable], injected: Iterable[Hashable], *, confidence: float = 0.95
) -> Detection:
    """Measures precision and recall of a search for faults that were planted.

    Args:
        found: what the search reports: indices of examples, or pairs of indices.
        injected: what was planted, named in the same way. Repeated entries count once.
        confidence: probability mass of the Wilson intervals, in (0, 1).

    Returns:
        Precision and recall with their intervals.

    Raises:
        InputError: if nothing was planted.

    Limits:
        Data have faults of their own: a search that finds them as well looks less precise
        than it is. Pairs are ordered: `(1, 2)` is not `(2, 1)`.

    Example:
        >>> detection = measure_detection([1, 2, 3, 4], [2, 3, 4, 5, 6])
        >>> f"{detection.precision:.2f}", detection.recall.value
        ('0.75 [0.30, 0.95]', 0.6)
    """
    planted, reported = set(injected), set(found)
    check_real("confidence", confidence, at_least=0.001, at_most=0.999)
    if not planted:
        raise InputError("injected", "must not be empty", "nothing planted", "plant some faults")
    hits = len(reported & planted)
    return Detection(
        precision=estimate_proportion_interval(hits, len(reported), confidence=confidence)
        if reported
        else None,
        recall=estimate_proportion_interval(hits, len(planted), confidence=confidence),
        num_found=len(reported),
        num_injected=len(planted),
        num_hits=hits,
    )
