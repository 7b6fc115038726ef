"""How the time of a search grows with the corpus."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .._checks import InputError, check_array, check_integer
from ..benchmark import Interval, bootstrap_interval
from ._shingles import check_texts


@dataclass(frozen=True)
class SearchCost:
    """Time of a search on corpora of several sizes.

    Attributes:
        sizes: texts in each corpus, `(num_sizes,)` int64.
        seconds: processor time, `(num_rounds, num_sizes)`; each round has its own corpora.
        exponent: slope of log time over log size, its mean over rounds with an interval: 1
            is proportional, 2 is that of comparing all pairs.
    """

    sizes: np.ndarray
    seconds: np.ndarray
    exponent: Interval

    def to_dict(self) -> dict[str, Any]:
        """Returns the measurements as plain lists, and the exponent."""
        return {
            "sizes": self.sizes.tolist(),
            "seconds": self.seconds.tolist(),
            "exponent": self.exponent.to_dict(),
        }


def measure_search_cost(
    search: Callable[[list[str]], Any],
    texts: Sequence[str],
    *,
    sizes: Sequence[int],
    num_rounds: int = 5,
    seed: int = 0,
) -> SearchCost:
    """Times a search on random parts of a corpus and fits how the time grows.

    Args:
        search: function of a list of texts, such as `find_near_duplicates`.
        texts: the corpus that the parts are drawn from.
        sizes: texts in each part, rising, at least two sizes.
        num_rounds: repetitions, each with other parts, at least two.
        seed: seed of the drawing.

    Returns:
        Processor time, so that other programs on the machine do not count, and the exponent.

    Raises:
        InputError: if sizes do not rise or exceed the number of texts, or a text is empty.

    Limits:
        The exponent holds between the smallest and the largest size; a constant cost makes
        it smaller. A random part of a corpus holds fewer of its duplicates than the corpus.
        The interval is over few rounds and too narrow.

    Example:
        >>> cost = measure_search_cost(sorted, ["a", "b", "c", "d"] * 500, sizes=[500, 2000])
        >>> cost.seconds.shape
        (5, 2)
    """
    given = check_texts("texts", texts)
    check_integer("num_rounds", num_rounds, at_least=2)
    generator = np.random.default_rng(check_integer("seed", seed, at_least=0))
    counts = check_array("sizes", sizes, shape=(None,)).astype(np.int64)
    if len(counts) < 2 or counts[0] < 1 or (np.diff(counts) <= 0).any() or counts[-1] > len(given):
        raise InputError(
            "sizes",
            f"must be two or more rising integers from 1 to {len(given)}",
            counts.tolist(),
            "leave out what exceeds the number of texts",
        )
    search(given[: counts[-1]])  # imports and caches
    seconds = np.empty((num_rounds, len(counts)))
    for round_number in range(num_rounds):
        order = generator.permutation(len(given))
        for column, count in enumerate(counts):
            part = [given[index] for index in order[:count]]
            seconds[round_number, column] = _time(search, part)
    # The clock's own step stands in for a time too short for it.
    step = time.get_clock_info("process_time").resolution
    slopes = np.polyfit(np.log(counts), np.log(np.maximum(seconds, step)).T, 1)[0]
    return SearchCost(counts, seconds, bootstrap_interval(slopes))


def _time(search: Callable[[list[str]], Any], part: list[str]) -> float:
    """Processor seconds of one search, without collections of what else the process holds."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        started = time.process_time()
        search(part)
        return time.process_time() - started
    finally:
        if was_enabled:
            gc.enable()
