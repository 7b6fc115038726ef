"""Which pairs of sets locality-sensitive hashing looks at: bands, rows, and their S-curve."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from .._checks import InputError, check_integer, check_real, import_extra

# Minima of so many hashes at a time: bounds the memory that one long text takes.
_CHUNK = 4096


@dataclass(frozen=True)
class Bands:
    """How the minima of random hashes are grouped: sets that share a whole band are compared.

    Attributes:
        num_bands: bands, at least 2.
        num_rows: minima in a band.
    """

    num_bands: int
    num_rows: int

    def __post_init__(self) -> None:
        check_integer("num_bands", self.num_bands, at_least=2)
        check_integer("num_rows", self.num_rows, at_least=1)

    @property
    def num_permutations(self) -> int:
        """Minima kept of each set: random hash functions evaluated."""
        return self.num_bands * self.num_rows

    def estimate_probability(self, similarity: float) -> float:
        r"""Probability that a pair is compared, :math:`1 - (1 - s^r)^b`.

        Two sets share a minimum with probability :math:`s`, their similarity; all :math:`r`
        rows of a band with :math:`s^r`; no band of :math:`b` with :math:`(1-s^r)^b`.

        Args:
            similarity: Jaccard similarity `s` of the two sets, from 0 to 1.

        Returns:
            A probability over the choice of hash functions.

        Raises:
            InputError: if `similarity` lies outside its range.

        Example:
            >>> round(Bands(20, 5).estimate_probability(0.8), 5)
            0.99964

        References:
            Leskovec, Rajaraman and Ullman, Mining of Massive Datasets, section 3.4.
        """
        shared = check_real("similarity", similarity, at_least=0, at_most=1)
        return float(1 - (1 - shared**self.num_rows) ** self.num_bands)


def find_bands(threshold: float, *, num_permutations: int = 128, recall: float = 0.99) -> Bands:
    """Finds the bands that propose the fewest dissimilar pairs at a promised recall.

    More rows in a band propose fewer pairs in vain and miss more that are wanted. The most
    rows are taken with which a pair exactly at the threshold is still compared with the
    probability `recall`; any pair above it is compared with a higher one.

    Args:
        threshold: Jaccard similarity from which a pair is wanted, in (0, 1].
        num_permutations: random hash functions at most.
        recall: lowest expected share of the wanted pairs that are compared, in (0, 1).

    Returns:
        The bands.

    Raises:
        InputError: if no bands of so few permutations reach that recall.

    Limits:
        Recall is an expectation over hash functions: pairs of one family of texts are found
        or missed together.

    Example:
        >>> find_bands(0.8)
        Bands(num_bands=21, num_rows=6)
    """
    wanted = check_real("threshold", threshold, at_least=1e-3, at_most=1)
    count = check_integer("num_permutations", num_permutations, at_least=2)
    promised = check_real("recall", recall, at_least=1e-3, at_most=1 - 1e-9)
    for num_rows in range(count // 2, 0, -1):
        bands = Bands(count // num_rows, num_rows)
        if bands.estimate_probability(wanted) >= promised:
            return bands
    raise InputError(
        "num_permutations",
        f"must suffice for recall {promised:g} at threshold {wanted:g}",
        count,
        "raise it, or the threshold, or lower the recall",
    )


def make_index(bands: Bands) -> Any:
    """Makes an empty `datasketch.MinHashLSH`; its own choice of bands is not used.

    That choice weighs pairs missed against pairs proposed in vain, and so misses more than half
    of the pairs at the threshold. Here a pair in vain costs one exact comparison.
    """
    datasketch = import_extra("datasketch", extra="data")
    return datasketch.MinHashLSH(
        num_perm=bands.num_permutations, params=(bands.num_bands, bands.num_rows)
    )


def build_sketches(sets: Iterable[np.ndarray], *, bands: Bands, seed: int) -> Iterator[Any]:
    """Yields the `datasketch.MinHash` of each set of 64-bit hashes."""
    datasketch = import_extra("datasketch", extra="data")
    # Hashed already; left to itself the library would hash each by SHA-1.
    empty = datasketch.MinHash(num_perm=bands.num_permutations, seed=seed, hashfunc=int)
    for hashes in sets:
        sketch = empty.copy()
        upper = hashes >> np.uint64(32)
        for start in range(0, len(upper), _CHUNK):
            sketch.update_batch(upper[start : start + _CHUNK].tolist())
        yield sketch
