"""Test texts that the training set holds too, whole, nearly, or as a part of a longer one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np

from .._checks import InputError, check_integer
from ..benchmark import Interval, estimate_proportion_interval
from ._bands import Bands, build_sketches, make_index
from ._duplicates import check_search
from ._shingles import check_texts, count_tokens, hash_runs, measure_similarity


class LeakedText(NamedTuple):
    """A test text, by index, with the most similar training text that was found."""

    test: int
    training: int
    similarity: float


@dataclass(frozen=True)
class LeakageReport:
    """Test texts with a duplicate or near-duplicate in the training set.

    Attributes:
        leaked: one entry for each such test text, by index.
        num_exact: how many of them are equal to a training text, character for character.
        num_test_texts: test texts searched for.
        share: share of the test texts that are leaked, with its Wilson interval.
        threshold: similarity from which a text counts as leaked.
    """

    leaked: tuple[LeakedText, ...]
    num_exact: int
    num_test_texts: int
    share: Interval
    threshold: float

    @property
    def is_leaked(self) -> np.ndarray:
        """Whether each test text is leaked, booleans of shape `(num_test_texts,)`."""
        return np.isin(np.arange(self.num_test_texts), [text.test for text in self.leaked])

    def to_dict(self) -> dict[str, Any]:
        """Returns the report as plain dictionaries and lists, ready for JSON."""
        return asdict(self) | {"leaked": [text._asdict() for text in self.leaked]}


def measure_leakage(
    training_texts: Sequence[str],
    test_texts: Sequence[str],
    *,
    threshold: float = 0.8,
    shingle_size: int = 5,
    bands: Bands | None = None,
    seed: int = 0,
) -> LeakageReport:
    """Measures how much of a test set has a duplicate or near-duplicate in the training set.

    Args:
        training_texts: what the model learns from.
        test_texts: what it is judged on.
        threshold: Jaccard similarity from which a test text counts as leaked.
        shingle_size: tokens in a shingle; see `build_shingles`.
        bands: how candidates are chosen; `find_bands(threshold)` if left out.
        seed: seed of the hash functions.

    Returns:
        The report. Each leaked text is compared exactly with what it is similar to.

    Raises:
        InputError: if a side has no texts, one is empty, or a number is out of range.
        MissingExtraError: if datasketch is not installed.

    Limits:
        Compares whole texts: a test text inside a long training text goes unnoticed, see
        `measure_contamination`. Not every near-duplicate is found: the share is a lower
        bound, by at most what the recall of the bands allows. The interval takes test texts
        for independent.

    Example:
        >>> report = measure_leakage(["one two three", "four"], ["four", "five"])
        >>> report.leaked, report.num_exact, f"{report.share:.2f}"
        ((LeakedText(test=0, training=1, similarity=1.0),), 1, '0.50 [0.09, 0.91]')

    References:
        Lee, Ippolito, Nystrom, Zhang, Eck, Callison-Burch and Carlini, Deduplicating Training
        Data Makes Language Models Better, ACL 2022.
    """
    known = check_texts("training_texts", training_texts)
    asked = check_texts("test_texts", test_texts)
    wanted, bands = check_search(threshold, shingle_size=shingle_size, bands=bands, seed=seed)
    exact: dict[str, int] = {}
    for index, text in enumerate(known):
        exact.setdefault(text, index)
    distinct = list(exact)
    index_of_sets = make_index(bands)
    sets = [hash_runs(text, shingle_size) for text in distinct]
    for place, sketch in enumerate(build_sketches(sets, bands=bands, seed=seed)):
        index_of_sets.insert(place, sketch)

    leaked = [
        LeakedText(test, exact[text], 1.0) for test, text in enumerate(asked) if text in exact
    ]
    num_exact = len(leaked)
    others = [test for test, text in enumerate(asked) if text not in exact]
    runs = [hash_runs(asked[test], shingle_size) for test in others]
    sketches = build_sketches(runs, bands=bands, seed=seed)
    for test, hashes, sketch in zip(others, runs, sketches, strict=True):
        found = [
            (measure_similarity(sets[place], hashes), -exact[distinct[place]])
            for place in index_of_sets.query(sketch)
        ]
        similarity, training = max(found, default=(0.0, 0))  # the first of equally similar ones
        if similarity >= wanted:
            leaked.append(LeakedText(test, -training, similarity))
    share = estimate_proportion_interval(len(leaked), len(asked))
    return LeakageReport(tuple(sorted(leaked)), num_exact, len(asked), share, wanted)


@dataclass(frozen=True)
class ContaminationReport:
    """How much of each test text occurs word for word somewhere in a corpus.

    Attributes:
        overlaps: share of each test text's shingles that occur in the corpus, `(num_texts,)`;
            NaN where a text is shorter than a shingle.
        share: share of the texts with any such shingle, among those long enough.
        num_short: test texts that are too short to be judged.
        shingle_size: tokens in a shingle.
    """

    overlaps: np.ndarray
    share: Interval
    num_short: int
    shingle_size: int

    def to_dict(self) -> dict[str, Any]:
        """Returns the report as a plain dictionary; a text too short has the overlap `None`."""
        overlaps = [None if np.isnan(overlap) else float(overlap) for overlap in self.overlaps]
        return asdict(self) | {"overlaps": overlaps}


def measure_contamination(
    corpus_texts: Sequence[str], test_texts: Sequence[str], *, shingle_size: int = 13
) -> ContaminationReport:
    """Measures how much of a test set occurs word for word inside the texts of a corpus.

    Looks up every run of `shingle_size` tokens, exactly. Unlike `measure_leakage` it sees a
    test text that is a small part of a long document.

    Args:
        corpus_texts: what the model learns from.
        test_texts: what it is judged on.
        shingle_size: tokens in a run. Short runs are common to texts that have nothing to
            do with each other.

    Returns:
        The report.

    Raises:
        InputError: if a side has no texts, one is empty, or every test text is shorter than
            `shingle_size` tokens.

    Limits:
        Any edit inside a run hides it. A boiler-plate sentence, such as a licence, counts
        like any other: look at `overlaps`, not at `share` alone. Memory is that of the test
        set, time that of reading the corpus once.

    Example:
        >>> corpus = ["much ado, and then to be or not to be, that is the question"]
        >>> report = measure_contamination(corpus, ["to be or not to see"], shingle_size=3)
        >>> report.overlaps, report.share.value
        (array([0.75]), 1.0)

    References:
        Brown et al., Language Models are Few-Shot Learners, NeurIPS 2020, appendix C (runs of
        13). Touvron et al., Llama 2: Open Foundation and Fine-Tuned Chat Models, 2023,
        arXiv:2307.09288, section A.6 (why the share of a text matters).
    """
    size = check_integer("shingle_size", shingle_size, at_least=1)
    known = check_texts("corpus_texts", corpus_texts)
    asked = check_texts("test_texts", test_texts)
    is_long = np.array([count_tokens(text) >= size for text in asked])
    if not is_long.any():
        raise InputError(
            "test_texts",
            f"must hold a text of at least {size} tokens",
            "shorter texts only",
            "pass a smaller `shingle_size`",
        )
    sets = [
        hash_runs(text, size) if long else None for text, long in zip(asked, is_long, strict=True)
    ]
    wanted = np.unique(np.concatenate([hashes for hashes in sets if hashes is not None]))
    occurs = np.zeros(len(wanted), bool)
    for text in known:
        hashes = hash_runs(text, size)
        places = np.searchsorted(wanted, hashes).clip(max=len(wanted) - 1)
        occurs[places[wanted[places] == hashes]] = True
    overlaps = np.array(
        [
            np.nan if hashes is None else occurs[np.searchsorted(wanted, hashes)].mean()
            for hashes in sets
        ]
    )
    share = estimate_proportion_interval(int((overlaps > 0).sum()), int(is_long.sum()))
    return ContaminationReport(overlaps, share, int((~is_long).sum()), size)
