"""Texts that a corpus holds more than once, word for word or nearly."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np

from .._checks import InputError, check_integer, check_real
from ._bands import Bands, build_sketches, find_bands, make_index
from ._shingles import check_texts, hash_runs, measure_similarity

# Seeds of datasketch, which uses NumPy's older generator.
MAX_SEED = 2**32 - 1


class SimilarPair(NamedTuple):
    """Two texts, by index, and their exact Jaccard similarity."""

    first: int
    second: int
    similarity: float


@dataclass(frozen=True)
class DuplicateReport:
    """Duplicates and near-duplicates of a corpus; texts are named by index.

    Attributes:
        groups: texts joined by a chain of pairs, exact or near; the largest group first.
        exact_groups: texts that are equal character for character.
        pairs: near-duplicates among the first text of each exact group and all others, by
            falling similarity.
        num_texts: texts searched.
        num_candidates: pairs that were compared exactly; all pairs would be
            `num_texts * (num_texts - 1) / 2`.
        threshold: similarity from which a pair counts.
        bands: how the candidates were chosen.
    """

    groups: tuple[tuple[int, ...], ...]
    exact_groups: tuple[tuple[int, ...], ...]
    pairs: tuple[SimilarPair, ...]
    num_texts: int
    num_candidates: int
    threshold: float
    bands: Bands

    @property
    def kept(self) -> np.ndarray:
        """Indices that remain if each group keeps its first text, `(num_kept,)`, sorted."""
        dropped = [index for group in self.groups for index in group[1:]]
        return np.setdiff1d(np.arange(self.num_texts), np.array(dropped, dtype=np.int64))

    @property
    def redundant_share(self) -> float:
        """Share of the texts that are not `kept`."""
        return 1 - len(self.kept) / self.num_texts

    def to_dict(self) -> dict[str, Any]:
        """Returns the report as plain dictionaries and lists, ready for JSON."""
        return asdict(self) | {
            "pairs": [pair._asdict() for pair in self.pairs],
            "redundant_share": self.redundant_share,
        }


def find_near_duplicates(
    texts: Sequence[str],
    *,
    threshold: float = 0.8,
    shingle_size: int = 5,
    bands: Bands | None = None,
    seed: int = 0,
) -> DuplicateReport:
    """Finds texts that are equal, then texts whose shingles are similar.

    Equal texts are grouped first. Of the others, locality-sensitive hashing proposes pairs,
    and each proposed pair is compared exactly: every pair reported is one, and of those
    that exist the share promised by the bands is reported.

    Args:
        texts: texts with at least one token each, such as
            `[document.text for document in corpus.documents]`.
        threshold: Jaccard similarity of the sets of shingles from which a pair counts.
        shingle_size: tokens in a shingle; see `build_shingles`.
        bands: how candidates are chosen; `find_bands(threshold)` if left out.
        seed: seed of the hash functions.

    Returns:
        The report.

    Raises:
        InputError: if there are no texts, one is empty, or a number is out of range.
        MissingExtraError: if datasketch is not installed.

    Limits:
        Groups are chains: their ends can be less similar than the threshold. Listing the
        pairs of one family of `n` near-duplicates takes `n² / 2` comparisons. Two texts with
        few tokens are rarely near-duplicates: one changed word changes `shingle_size` of
        their shingles.

    Example:
        >>> texts = ["the cat sat on the mat today", "a dog", "a dog"]
        >>> report = find_near_duplicates([*texts, "the cat sat on the mat today!"])
        >>> report.groups, report.exact_groups, report.pairs, report.redundant_share
        (((1, 2),), ((1, 2),), (), 0.25)
        >>> near = find_near_duplicates([*texts, "the cat sat on the mat today!"], threshold=0.7)
        >>> near.pairs[0]
        SimilarPair(first=0, second=3, similarity=0.75)

    References:
        Lee, Ippolito, Nystrom, Zhang, Eck, Callison-Burch and Carlini, Deduplicating Training
        Data Makes Language Models Better, ACL 2022.
    """
    given = check_texts("texts", texts)
    wanted, bands = check_search(threshold, shingle_size=shingle_size, bands=bands, seed=seed)
    exact: dict[str, list[int]] = {}
    for index, text in enumerate(given):
        exact.setdefault(text, []).append(index)
    firsts = [indices[0] for indices in exact.values()]
    sets = [hash_runs(text, shingle_size) for text in exact]
    pairs: list[SimilarPair] = []
    num_candidates = 0
    index_of_sets = make_index(bands)
    for place, sketch in enumerate(build_sketches(sets, bands=bands, seed=seed)):
        candidates = index_of_sets.query(sketch)
        index_of_sets.insert(place, sketch)
        num_candidates += len(candidates)
        for other in candidates:
            similarity = measure_similarity(sets[other], sets[place])
            if similarity >= wanted:
                pairs.append(SimilarPair(firsts[other], firsts[place], similarity))
    exact_groups = tuple(tuple(indices) for indices in exact.values() if len(indices) > 1)
    links = [(group[0], index) for group in exact_groups for index in group[1:]]
    return DuplicateReport(
        groups=_join(links + [(pair.first, pair.second) for pair in pairs]),
        exact_groups=exact_groups,
        pairs=tuple(sorted(pairs, key=lambda pair: (-pair.similarity, pair.first, pair.second))),
        num_texts=len(given),
        num_candidates=num_candidates,
        threshold=wanted,
        bands=bands,
    )


def make_near_duplicates(
    texts: Sequence[str], num_copies: int, *, edited_share: float = 0.02, seed: int = 0
) -> tuple[list[str], np.ndarray]:
    """Makes slightly edited copies of some texts, to see whether a search finds them.

    Args:
        texts: texts to copy from.
        num_copies: copies, each of another text.
        edited_share: share of a text's words that its copy replaces by a new word, in
            (0, 1]; at least one word is.
        seed: seed of the choice of texts and words.

    Returns:
        The copies, and the index of the text that each was made from, `(num_copies,)` int64.

    Raises:
        InputError: if a text is empty or there are fewer texts than copies.

    Limits:
        Scattered replacements only: real near-duplicates also move, add and drop passages.

    Example:
        >>> copies, sources = make_near_duplicates(["red green blue"], 1)
        >>> sum(word in copies[0] for word in ("red", "green", "blue")), sources.tolist()
        (2, [0])
    """
    given = check_texts("texts", texts)
    count = check_integer("num_copies", num_copies, at_least=1, at_most=len(given))
    share = check_real("edited_share", edited_share, at_least=1e-9, at_most=1)
    check_integer("seed", seed, at_least=0)
    generator = np.random.default_rng(seed)
    sources = generator.choice(len(given), size=count, replace=False)
    copies = []
    for source in sources:
        words = re.split(r"(\s+)", given[source])  # with the white space between them
        places = [place for place, word in enumerate(words) if word.strip()]
        num_edited = max(1, round(share * len(places)))
        for place in generator.choice(places, size=num_edited, replace=False):
            words[place] = f"edited{generator.integers(10**9)}"
        copies.append("".join(words))
    return copies, sources


def check_search(
    threshold: float, *, shingle_size: int, bands: Bands | None, seed: int
) -> tuple[float, Bands]:
    """Returns the threshold and the bands of a search whose settings are sound."""
    wanted = check_real("threshold", threshold, at_least=1e-3, at_most=1)
    check_integer("shingle_size", shingle_size, at_least=1)
    check_integer("seed", seed, at_least=0, at_most=MAX_SEED)
    if bands is not None and not isinstance(bands, Bands):
        raise InputError("bands", "must be Bands", repr(bands), "pass find_bands(threshold)")
    return wanted, bands or find_bands(wanted)


def _join(links: Iterable[tuple[int, int]]) -> tuple[tuple[int, ...], ...]:
    """Groups that a chain of links connects, largest first, each in rising order."""
    parents: dict[int, int] = {}

    def find_root(index: int) -> int:
        parents.setdefault(index, index)
        while parents[index] != index:
            parents[index] = parents[parents[index]]
            index = parents[index]
        return index

    for first, second in links:
        parents[find_root(second)] = find_root(first)
    groups: dict[int, list[int]] = {}
    for index in sorted(parents):
        groups.setdefault(find_root(index), []).append(index)
    return tuple(sorted(map(tuple, groups.values()), key=lambda group: (-len(group), group)))
