"""A service under load: how long answers take, who was refused, and whether any was lost."""

from __future__ import annotations

import math
import queue
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np

from .._checks import (
    InputError,
    check_array,
    check_integer,
    check_real,
    check_same_length,
)
from ..benchmark import Interval

LOST = 0
"""Status of a request that got no answer."""

OUTCOMES = ("answered", "refused", "rejected", "failed", "lost")


@dataclass(frozen=True)
class LoadReport:
    """What became of each request of `measure_load`.

    Attributes:
        seconds: from the moment a request was due to its answer, in the order in which they
            were due, shape `(num_requests,)`; not finite where there was none.
        statuses: status of each answer, as HTTP numbers them; 0 where there was none.
        wall_seconds: from the first request to the last answer.
        num_clients: clients that sent at the same time.
    """

    seconds: tuple[float, ...]
    statuses: tuple[int, ...]
    wall_seconds: float
    num_clients: int

    @property
    def outcomes(self) -> dict[str, int]:
        """Number of requests by outcome.

        *Answered* is a status from 200 to 299. *Refused* is 429 or 503: nothing is wrong with
        the request, and it may come again. *Rejected* is any other from 400 to 499: the
        sender's fault. *Lost* is no answer, and *failed* all else.
        """
        found = [_classify(status) for status in self.statuses]
        return {outcome: found.count(outcome) for outcome in OUTCOMES}

    @property
    def requests_per_second(self) -> float:
        """Requests answered in each second of the whole."""
        return self.outcomes["answered"] / self.wall_seconds

    @property
    def answered_seconds(self) -> np.ndarray:
        """Seconds of the requests that were answered."""
        rows = [_classify(status) == "answered" for status in self.statuses]
        return np.asarray(self.seconds)[rows]

    def percentile(self, percent: float, *, confidence: float = 0.95) -> Interval:
        """Percentile of the seconds to an answer, see `estimate_percentile_interval`."""
        return estimate_percentile_interval(self.answered_seconds, percent, confidence=confidence)

    def to_dict(self) -> dict[str, Any]:
        """Returns the outcomes and the usual percentiles, ready for JSON."""
        known: dict[str, Any] = {
            "num_clients": self.num_clients,
            "wall_seconds": self.wall_seconds,
            "requests_per_second": self.requests_per_second,
            **{f"num_{outcome}": count for outcome, count in self.outcomes.items()},
        }
        if self.outcomes["answered"]:
            for percent in (50, 99):
                known[f"p{percent}_seconds"] = self.percentile(percent).to_dict()
        return known

    def __str__(self) -> str:
        counts = ", ".join(f"{count} {name}" for name, count in self.outcomes.items() if count)
        lines = [counts, f"{self.requests_per_second:.4g} answers per second"]
        if self.outcomes["answered"]:
            lines += [f"p{percent}  {self.percentile(percent):.3g} s" for percent in (50, 99)]
        return "\n".join(lines)


def measure_load(
    send: Callable[[int], int],
    num_requests: int,
    *,
    num_clients: int,
    requests_per_second: float | None = None,
    timeout_seconds: float = 60.0,
) -> LoadReport:
    """Sends requests from several clients and times each from the moment it was due.

    Without a rate each client sends its next request when it has the answer to the last, so a
    slow service is asked less. With one, requests are due at even steps of time whatever
    the service does; one that had to wait for a free client has waited all the same.

    Args:
        send: function from the number of a request to the status of its answer, as HTTP
            numbers them. It is called in `num_clients` threads; what it raises is a loss.
        num_requests: how many to send in all.
        num_clients: threads that send.
        requests_per_second: at which they are due; `None` for as fast as answers come.
        timeout_seconds: for the whole; what has no answer by then is lost.

    Returns:
        Seconds and status of each request.

    Raises:
        InputError: if a number is not positive.

    Limits:
        The clients share this process and its cores with whatever else runs here, and can be
        slower than the service: compare with a `send` that does nothing. A call of `send` that
        never returns keeps its thread.

    Example:
        >>> report = measure_load(lambda number: 200 if number % 4 else 429, 20, num_clients=2)
        >>> report.outcomes["answered"], report.outcomes["refused"], report.outcomes["lost"]
        (15, 5, 0)

    References:
        Schroeder, Wierman and Harchol-Balter, Open Versus Closed: A Cautionary Tale, NSDI 2006.
    """
    check_integer("num_requests", num_requests, at_least=1)
    check_integer("num_clients", num_clients, at_least=1)
    check_real("timeout_seconds", timeout_seconds, at_least=1e-3)
    pause = 0.0
    if requests_per_second is not None:
        pause = 1 / check_real("requests_per_second", requests_per_second, at_least=1e-6)
    waiting: queue.SimpleQueue[int] = queue.SimpleQueue()
    for number in range(num_requests):
        waiting.put(number)
    results: list[tuple[float, int]] = [(math.inf, LOST)] * num_requests
    start = time.perf_counter()
    end = start + timeout_seconds

    def work() -> None:
        while time.perf_counter() < end:
            try:
                number = waiting.get_nowait()
            except queue.Empty:
                return
            due = start + number * pause if pause else time.perf_counter()
            time.sleep(max(0.0, due - time.perf_counter()))
            with suppress(Exception):  # whatever the client raises: there is no answer
                status = int(send(number))
                results[number] = (time.perf_counter() - due, status)

    threads = [threading.Thread(target=work, daemon=True) for _ in range(num_clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, end - time.perf_counter()))
    wall_seconds = time.perf_counter() - start
    seconds, statuses = zip(*results, strict=True)  # as they are now: late answers are lost
    return LoadReport(seconds, statuses, wall_seconds, num_clients)


def estimate_percentile_interval(
    values: Any, percent: float, *, confidence: float = 0.95
) -> Interval:
    r"""Interval of a percentile from ranks alone, whatever the distribution.

    Of :math:`n` independent values the number below the true percentile is binomial. The
    interval reaches from the value of rank :math:`j` to that of rank :math:`k`, the closest
    for which each end misses with probability :math:`(1 - \text{confidence})/2` at most.

    Args:
        values: independent values `(num_values,)`.
        percent: the percentile, in (0, 100).
        confidence: probability mass of the interval, in (0, 1).

    Returns:
        The percentile of `values` and its interval. An end is infinite where there are too
        few values to bound it: the upper end of the 99th percentile takes 368.

    Raises:
        InputError: if there is no value, or an argument lies outside its range.

    Limits:
        Requests that waited in one queue are not independent, and the interval is then too
        narrow: repeat the run.

    Example:
        >>> estimate_percentile_interval(range(1, 101), 50).low
        40.0
        >>> estimate_percentile_interval(range(1, 101), 99).high
        inf

    References:
        David and Nagaraja, Order Statistics, third edition, 2003, section 7.1.
    """
    ordered = np.sort(check_array("values", values, shape=(None,)).astype(np.float64))
    share = check_real("percent", percent, at_least=1e-6, at_most=100 - 1e-6) / 100
    tail = (1 - check_real("confidence", confidence, at_least=0.001, at_most=0.999)) / 2
    below = np.cumsum(_list_binomial(len(ordered), share))  # P(at most r values lie below)
    # Rank j misses below if fewer than j values lie under the percentile, k if k or more do.
    low = int(np.searchsorted(below, tail, side="right"))
    high = int(np.searchsorted(below, 1 - tail, side="left")) + 1
    return Interval(
        float(np.percentile(ordered, percent)),
        float(ordered[low - 1]) if low else -math.inf,
        float(ordered[high - 1]) if high <= len(ordered) else math.inf,
        confidence,
    )


def count_misattributed(
    names: Sequence[str], outputs: Any, *, expected: Mapping[str, Any], tolerance: float = 1e-3
) -> int:
    """Counts answers that are not what the model they name computes.

    Args:
        names: which model each answer says it comes from, such as its hash.
        outputs: what was answered, shape `(num_answers, …)`.
        expected: for each name what that model computes for the same requests, in the same
            order and shape.
        tolerance: largest absolute difference that rounding may make.

    Returns:
        The answers that differ, or name a model that is not in `expected`.

    Raises:
        InputError: if the numbers of names and answers differ, or shapes do.

    Limits:
        Cannot tell models apart on requests for which they agree: choose some on which they do
        not.

    Example:
        >>> of_models = {"old": [[0.0], [1.0]], "new": [[5.0], [6.0]]}
        >>> count_misattributed(["old", "new"], [[0.0], [1.0]], expected=of_models)
        1
    """
    found = check_array("outputs", outputs, finite=False)
    check_same_length(names=names, outputs=found)
    tables = {}
    for name, table in expected.items():
        tables[name] = check_array(f"expected[{name!r}]", table)
        if tables[name].shape != found.shape:
            raise InputError(
                f"expected[{name!r}]",
                f"must have the shape of `outputs`, {found.shape}",
                tables[name].shape,
                "compute it for the requests that were sent",
            )
    return sum(
        name not in tables or not np.allclose(row, tables[name][number], rtol=0, atol=tolerance)
        for number, (name, row) in enumerate(zip(names, found, strict=True))
    )


def _classify(status: int) -> str:
    if status == LOST:
        return "lost"
    if status in (429, 503):
        return "refused"
    if 400 <= status < 500:
        return "rejected"
    return "answered" if 200 <= status < 300 else "failed"


def _list_binomial(num_trials: int, share: float) -> np.ndarray:
    """Probabilities of 0 to `num_trials` successes, by logarithms, which do not underflow."""
    counts = np.arange(num_trials + 1)
    logs = np.array([math.lgamma(count + 1) for count in counts])
    ways = logs[-1] - logs - logs[::-1]
    terms = counts * math.log(share) + counts[::-1] * math.log1p(-share)
    return np.asarray(np.exp(ways + terms))
