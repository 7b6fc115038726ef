"""Texts as sets of short runs of tokens, and how similar two such sets are."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from .._checks import InputError, check_integer

# Chinese characters and Japanese kana are written without spaces: each is a token.
_UNSPACED = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff"
_TOKEN = re.compile(rf"[{_UNSPACED}]|[^\W{_UNSPACED}]+|[^\w\s]")


def build_shingles(text: str, *, size: int = 5) -> np.ndarray:
    """Builds the set of runs of `size` tokens of a text, each run as a 64-bit hash.

    Tokens are words, single punctuation marks, and single Chinese or Japanese characters;
    white space only separates. A text of fewer tokens than `size` is one run.

    Args:
        text: a text with at least one token.
        size: tokens in a run.

    Returns:
        Sorted distinct hashes, uint64 of shape `(num_shingles,)`; the same on every machine.

    Raises:
        InputError: if the text is blank or `size` is not positive.

    Limits:
        Among a billion different runs, two share a hash with a probability of 3 %. How
        often a run occurs is not kept.

    Example:
        >>> len(build_shingles("a rose is a rose is a rose", size=3))
        3

    References:
        Broder, On the Resemblance and Containment of Documents, Proceedings of Compression
        and Complexity of Sequences, 1997.
    """
    check_integer("size", size, at_least=1)
    (checked,) = check_texts("text", [text])
    return hash_runs(checked, size)


def measure_similarity(shingles: np.ndarray, other: np.ndarray) -> float:
    r"""Measures the exact Jaccard similarity of two sets, :math:`|A\cap B| / |A\cup B|`.

    Args:
        shingles: of `build_shingles`, `(num_shingles,)`.
        other: of the other text, with the same `size`.

    Returns:
        From 0, nothing in common, to 1, equal sets.

    Raises:
        InputError: if a set is empty.

    Limits:
        A short text that is part of a long one has a low similarity to it: see
        `measure_contamination`.

    Example:
        >>> text, other = "to be or not to be", "to be or not to see"
        >>> measure_similarity(build_shingles(text, size=2), build_shingles(other, size=2))
        0.8
    """
    for name, hashes in (("shingles", shingles), ("other", other)):
        if len(hashes) == 0:
            raise InputError(name, "must not be empty", "no shingles", "use build_shingles")
    num_common = len(np.intersect1d(shingles, other, assume_unique=True))
    return num_common / (len(shingles) + len(other) - num_common)


def check_texts(name: str, texts: Sequence[str]) -> list[str]:
    """Returns the texts as a list; refuses none, a single string, and blank texts."""
    if isinstance(texts, str):
        raise InputError(name, "must be a sequence of texts", "one string", f"pass [{name}]")
    listed = list(texts)
    if not listed:
        raise InputError(name, "must not be empty", "no texts", "pass at least one text")
    for index, text in enumerate(listed):
        if not isinstance(text, str):
            received = f"{type(text).__name__} at index {index}"
            raise InputError(name, "must hold strings", received, "pass `document.text`")
        if not _TOKEN.search(text):
            raise InputError(
                name,
                "must hold no empty text",
                f"{text[:20]!r} at index {index}",
                "drop the texts without a word or sign",
            )
    return listed


def count_tokens(text: str) -> int:
    """Counts the tokens that `build_shingles` sees."""
    return len(_TOKEN.findall(text))


def hash_runs(text: str, size: int) -> np.ndarray:
    """Sorted distinct hashes of the runs of a text that is known to hold a token."""
    tokens = np.fromiter(map(_hash_token, _TOKEN.findall(text)), np.uint64)
    size = min(size, len(tokens))
    num_runs = len(tokens) - size + 1
    hashes = np.zeros(num_runs, np.uint64)
    # Odd factors are one-to-one modulo 2^64 and tell the places in a run apart.
    for place in range(size):
        factor = np.uint64(_hash_token(f"place {place}") | 1)
        hashes += tokens[place : place + num_runs] * factor
    return np.unique(hashes)


@lru_cache(maxsize=2**18)
def _hash_token(token: str) -> int:
    # Python's own hash() differs from process to process.
    encoded = token.encode(errors="surrogatepass")
    return int.from_bytes(hashlib.blake2b(encoded, digest_size=8).digest(), "little")
