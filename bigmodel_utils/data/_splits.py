"""Splits decided by each example alone, so that they hold when the data grow."""

from __future__ import annotations

import hashlib
import itertools
import math
from collections.abc import Mapping, Sequence

import numpy as np

from .._checks import InputError, check_real


def split_by_hash(
    keys: Sequence[str], fractions: Mapping[str, float], *, salt: str = ""
) -> dict[str, np.ndarray]:
    """Splits examples by a hash of their keys, so that no example ever changes sides.

    A key and the salt are hashed to a number in [0, 1); the sides divide that interval in
    the order of `fractions`. Nothing else matters: not the order of the examples, not which
    others there are. Examples with equal keys land together.

    *Limits*: a side's size is `fraction × num_keys` only in expectation, and classes are not
    balanced between sides. Near-duplicates have different keys and may be separated.

    Args:
        keys: one key per example, such as `Dataset.keys`.
        fractions: share of each side by name; the shares sum to 1.
        salt: another salt gives an independent split of the same keys.

    Returns:
        For each name of `fractions`, the sorted indices of its examples, `(num_examples,)`
        int64; a side may be empty when there are few keys.

    Raises:
        InputError: if there are no keys, a key is not a string, or the shares are not from
            0 to 1 or do not sum to 1.

    Example:
        >>> sides = split_by_hash(["ada", "grace", "alan"], {"train": 0.5, "test": 0.5})
        >>> {name: indices.tolist() for name, indices in sides.items()}
        {'train': [1, 2], 'test': [0]}
    """
    _check_keys("keys", keys)
    edges = _cumulate(fractions)
    positions = np.array([_hash_to_unit(key, salt) for key in keys])
    # The last edge is left out: it is 1 up to rounding, and every position is below 1.
    sides = np.searchsorted(edges[:-1], positions, side="right")
    return {name: np.flatnonzero(sides == side) for side, name in enumerate(fractions)}


def count_overlap(keys_a: Sequence[str], keys_b: Sequence[str]) -> int:
    """Counts the entries of `keys_b` whose key also occurs in `keys_a`.

    With the keys of a training set first and of a test set second this is the number of
    test examples the model has seen. *Limits*: finds exact duplicates only.

    Args:
        keys_a: keys of the one set.
        keys_b: keys of the other; each entry counts, repeated ones too.

    Returns:
        A count from 0 to `len(keys_b)`.

    Raises:
        InputError: if either holds no keys, or something that is not a string.

    Example:
        >>> count_overlap(["a", "b"], ["b", "b", "c"])
        2
    """
    _check_keys("keys_a", keys_a)
    _check_keys("keys_b", keys_b)
    known = set(keys_a)
    return sum(key in known for key in keys_b)


def _check_keys(name: str, keys: Sequence[str]) -> None:
    fix = "pass one string per example, such as `Dataset.keys`"
    if isinstance(keys, str):
        raise InputError(name, "must be a sequence of strings", "a single string", fix)
    if len(keys) == 0:
        raise InputError(name, "must not be empty", "no keys", fix)
    for index, key in enumerate(keys):
        if not isinstance(key, str):
            raise InputError(name, "must hold strings", f"{key!r} at index {index}", fix)


def _cumulate(fractions: Mapping[str, float]) -> list[float]:
    shares = [
        check_real(f"fractions[{name!r}]", share, at_least=0, at_most=1)
        for name, share in fractions.items()
    ]
    if not math.isclose(math.fsum(shares), 1, abs_tol=1e-9):
        raise InputError(
            "fractions", "must sum to 1", f"a sum of {math.fsum(shares):g}", "adjust the shares"
        )
    return list(itertools.accumulate(shares))


def _hash_to_unit(key: str, salt: str) -> float:
    # A hash of the salt as its own block: ("a", "bc") and ("ab", "c") must not meet.
    block = hashlib.sha256(salt.encode()).digest() + key.encode()
    # 53 bits are what a float holds exactly; 64 could round up to 1.
    return (int.from_bytes(hashlib.sha256(block).digest()[:8], "big") >> 11) / 2**53
