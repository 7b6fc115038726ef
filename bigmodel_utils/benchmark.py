"""Measuring with intervals: latency, resampling, and how far a choice flatters itself.

One number from one run says little. The functions here warm up, wait for the device,
interleave what is compared, and return intervals.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from statistics import NormalDist
from typing import Any

import numpy as np

from ._checks import InputError, check_array, check_integer, check_real


@dataclass(frozen=True)
class Interval:
    """An estimate with the bounds it is compatible with at the stated confidence."""

    value: float
    low: float
    high: float
    confidence: float = 0.95

    def __format__(self, spec: str) -> str:
        """Formats the three numbers alike: ``f"{interval:.1%}"`` is ``1.2% [0.9%, 1.5%]``."""
        spec = spec or ".4g"
        return f"{self.value:{spec}} [{self.low:{spec}}, {self.high:{spec}}]"

    def __str__(self) -> str:
        return format(self)

    def to_dict(self) -> dict[str, float]:
        """Returns the fields as a plain dictionary."""
        return asdict(self)


def bootstrap_interval(
    values: Any,
    *,
    statistic: Callable[..., Any] = np.mean,
    confidence: float = 0.95,
    num_resamples: int = 10_000,
    seed: int = 0,
) -> Interval:
    """Percentile bootstrap interval of a statistic of independent values.

    Args:
        values: array of shape `(num_values,)`, one entry per independent repetition: a
            seed or a test example, never the steps of one run.
        statistic: function of an array and `axis`, such as `numpy.mean` or `numpy.median`.
        confidence: probability mass of the interval, in (0, 1).
        num_resamples: number of resamples drawn with replacement.
        seed: seed of the resampling.

    Returns:
        The statistic of `values` and its interval.

    Raises:
        InputError: if there are fewer than two values or one is not finite.

    Limits:
        With few values the interval is too narrow: its coverage at 5 values is nearer 83 %
        than 95 %. Where every value is equal it has no width; for a proportion use
        `estimate_proportion_interval`.

    Example:
        >>> f"{bootstrap_interval([1.0, 2.0, 3.0, 4.0]):.2f}"
        '2.50 [1.50, 3.50]'

    References:
        Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13.
    """
    array = check_array("values", values, shape=(None,))
    if len(array) < 2:
        raise InputError("values", "must hold at least two values", len(array), "repeat the run")
    check_real("confidence", confidence, at_least=0.001, at_most=0.999)
    generator = np.random.default_rng(seed)
    picks = generator.integers(0, len(array), size=(num_resamples, len(array)))
    resampled = statistic(array[picks], axis=1)
    tail = (1 - confidence) / 2
    low, high = np.quantile(resampled, [tail, 1 - tail])
    return Interval(float(statistic(array, axis=0)), float(low), float(high), confidence)


def estimate_proportion_interval(
    num_successes: int, num_trials: int, *, confidence: float = 0.95
) -> Interval:
    r"""Wilson's score interval of a proportion, such as an accuracy on a test set.

    With :math:`\hat p` the proportion, :math:`n` the trials and :math:`z` the normal
    quantile, the bounds are :math:`(\hat p + z^2/2n \pm z\sqrt{\hat p(1-\hat p)/n +
    z^2/4n^2}) / (1 + z^2/n)`. It keeps a width at 0 and 1, where the bootstrap does not.

    Args:
        num_successes: number of correct predictions.
        num_trials: number of predictions.
        confidence: probability mass of the interval, in (0, 1).

    Returns:
        The proportion and its interval.

    Raises:
        InputError: if `num_successes` exceeds `num_trials` or either is negative.

    Limits:
        Assumes independent examples. Near-duplicates make it too narrow.

    Example:
        >>> f"{estimate_proportion_interval(10, 10):.3f}"
        '1.000 [0.722, 1.000]'

    References:
        Wilson, Probable Inference, the Law of Succession, and Statistical Inference, Journal
        of the American Statistical Association 22, 1927.
    """
    trials = check_integer("num_trials", num_trials, at_least=1)
    successes = check_integer("num_successes", num_successes, at_least=0, at_most=trials)
    z = NormalDist().inv_cdf(0.5 + check_real("confidence", confidence, at_least=0.001) / 2)
    proportion = successes / trials
    centre = proportion + z**2 / (2 * trials)
    spread = z * math.sqrt(proportion * (1 - proportion) / trials + z**2 / (4 * trials**2))
    scale = 1 + z**2 / trials
    low, high = (centre - spread) / scale, (centre + spread) / scale
    # Where all or none succeed one end is the proportion itself, which rounding may miss.
    low, high = max(0.0, min(low, proportion)), min(1.0, max(high, proportion))
    return Interval(proportion, low, high, confidence)


@dataclass(frozen=True)
class Latency:
    """Seconds that repeated calls took, in the order they were made."""

    seconds: tuple[float, ...]

    def percentile(self, percent: float) -> float:
        """Seconds below which `percent` of the calls lie."""
        return float(np.percentile(self.seconds, percent))

    @property
    def median(self) -> float:
        """Seconds of the middle call."""
        return self.percentile(50)

    def to_dict(self) -> dict[str, float]:
        """Returns the percentiles in seconds."""
        return {
            "num_calls": len(self.seconds),
            "p25_seconds": self.percentile(25),
            "p50_seconds": self.median,
            "p75_seconds": self.percentile(75),
            "p99_seconds": self.percentile(99),
        }


def measure_latency(
    runs: Mapping[str, Callable[[], Any]], *, num_warmup: int = 3, num_rounds: int = 20
) -> dict[str, Latency]:
    """Times several functions side by side, interleaved so that a drift hits all alike.

    Each round calls every function once; the device has finished before the clock stops.

    Args:
        runs: name to function without arguments. What a function returns is waited for.
        num_warmup: rounds that are not counted (tracing, compilation, caches).
        num_rounds: rounds that are.

    Returns:
        Name to the `Latency` of its calls; compare with `compare_latency`.

    Raises:
        InputError: if `runs` is empty or a count is not positive.

    Limits:
        Times on a shared CPU are comparable inside one call only.

    Example:
        >>> measured = measure_latency({"sum": lambda: sum(range(10))}, num_rounds=5)
        >>> len(measured["sum"].seconds)
        5
    """
    if not runs:
        raise InputError("runs", "must name at least one function", "{}", "pass {name: function}")
    check_integer("num_warmup", num_warmup, at_least=0)
    check_integer("num_rounds", num_rounds, at_least=1)
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for round_number in range(num_warmup + num_rounds):
        for name, run in runs.items():
            started = time.perf_counter()
            _wait_for(run())
            elapsed = time.perf_counter() - started
            if round_number >= num_warmup:
                seconds[name].append(elapsed)
    return {name: Latency(tuple(values)) for name, values in seconds.items()}


def compare_latency(latency: Latency, baseline: Latency, *, seed: int = 0) -> Interval:
    """Time of `latency` over time of `baseline`, paired by round: below 1 is faster.

    Args:
        latency: from one call of `measure_latency`.
        baseline: from the same call.
        seed: seed of the bootstrap.

    Returns:
        Median ratio with its interval.

    Raises:
        InputError: if the two have different numbers of calls.

    Example:
        >>> f"{compare_latency(Latency((1.0, 1.0, 1.0)), Latency((2.0, 2.0, 2.0))):.1f}"
        '0.5 [0.5, 0.5]'
    """
    if len(latency.seconds) != len(baseline.seconds):
        raise InputError(
            "baseline",
            "must come from the same call of measure_latency",
            f"{len(latency.seconds)} and {len(baseline.seconds)} calls",
            "time both in one call",
        )
    ratios = np.asarray(latency.seconds) / np.asarray(baseline.seconds)
    return bootstrap_interval(ratios, statistic=np.median, seed=seed)


def estimate_expected_maximum(num_candidates: int) -> float:
    r"""Expected largest of `num_candidates` independent standard normal draws.

    Evaluates :math:`\int z\,k\,\varphi(z)\,\Phi(z)^{k-1}\,dz` by the trapezoidal rule.

    Args:
        num_candidates: the number of draws `k`, at least 1.

    Returns:
        The expectation, in standard deviations; it grows like :math:`\sqrt{2\ln k}`.

    Raises:
        InputError: if `num_candidates` is below 1.

    Limits:
        Accurate to 1e-6 up to a million candidates.

    Example:
        >>> round(estimate_expected_maximum(2), 6)  # 1 / sqrt(pi)
        0.56419

    References:
        Tippett, On the Extreme Individuals and the Range of Samples Taken from a Normal
        Population, Biometrika 17, 1925.
    """
    count = check_integer("num_candidates", num_candidates, at_least=1)
    z = np.linspace(-12, 12, 24_001)
    below = 0.5 * (1 + np.vectorize(math.erf)(z / math.sqrt(2)))
    density = np.exp(-(z**2) / 2) / math.sqrt(2 * math.pi)
    return float(np.trapezoid(z * count * density * below ** (count - 1), z))


def estimate_selection_optimism(
    accuracy: float, num_examples: int, *, num_candidates: int, correlation: float = 0.0
) -> float:
    r"""Expected excess of the best of `k` equally good candidates on the set that chose it.

    Accuracies on `n` examples scatter with standard error :math:`\sqrt{p(1-p)/n}`. If the
    candidates are equally good, the chosen one leads by luck alone, on average by
    :math:`E_k\sqrt{(1-\rho)\,p(1-p)/n}`, with :math:`E_k` from `estimate_expected_maximum`.

    Args:
        accuracy: the candidates' common accuracy `p`, from 0 to 1.
        num_examples: examples `n` in the set that chooses and reports.
        num_candidates: models, epochs or settings `k` that were tried on it.
        correlation: mean correlation of the candidates' errors, from 0 to 1.

    Returns:
        Expected optimism, a fraction (0.01 is one percentage point).

    Raises:
        InputError: if an argument lies outside its range.

    Limits:
        Candidates that differ in true accuracy give less; the normal approximation needs
        more than about ten errors among the examples.

    Example:
        >>> round(estimate_selection_optimism(0.9, 100, num_candidates=10), 4)
        0.0462
    """
    rate = check_real("accuracy", accuracy, at_least=0, at_most=1)
    count = check_integer("num_examples", num_examples, at_least=1)
    shared = check_real("correlation", correlation, at_least=0, at_most=1)
    deviation = math.sqrt((1 - shared) * rate * (1 - rate) / count)
    return deviation * estimate_expected_maximum(num_candidates)


@dataclass(frozen=True)
class SelectionOptimism:
    """Reported minus fresh accuracy of the chosen candidate, one entry per random split."""

    same_set: np.ndarray
    """Chosen and reported on the same examples, shape `(num_splits,)`, as fractions."""
    separate_set: np.ndarray
    """Chosen on one set and reported on another, shape `(num_splits,)`, as fractions."""

    def to_dict(self) -> dict[str, float]:
        """Returns the mean optimism of both protocols."""
        return {
            "same_set": float(self.same_set.mean()),
            "separate_set": float(self.separate_set.mean()),
        }


def measure_selection_optimism(
    correct: Any, num_selection: int, *, num_splits: int = 1000, seed: int = 0
) -> SelectionOptimism:
    """Measures how far choosing and reporting on one set overstates accuracy on fresh data.

    The held-out examples are split at random, many times, into a set that chooses the
    best candidate, a set of the same size that did not choose, and a fresh rest. Both
    protocols pick the same candidate and differ only in where its accuracy is read.

    Args:
        correct: booleans of shape `(num_candidates, num_examples)`: whether a candidate
            (an epoch, a model, a setting) classifies a held-out example correctly.
        num_selection: examples in the set that chooses.
        num_splits: number of random splits.
        seed: seed of the splits.

    Returns:
        The optimism of both protocols in every split.

    Raises:
        InputError: if fewer than a third of the examples are left fresh.

    Limits:
        Splits of one training are not independent: take the mean per training, then
        the interval over trainings.

    Example:
        >>> luck = np.random.default_rng(0).random((20, 600)) < 0.9
        >>> optimism = measure_selection_optimism(luck, 100)
        >>> bool(optimism.same_set.mean() > 0.03 > abs(optimism.separate_set.mean()))
        True
    """
    table = check_array("correct", correct, shape=(None, None)).astype(np.float64)
    num_examples = table.shape[1]
    size = check_integer("num_selection", num_selection, at_least=1)
    if 3 * size > num_examples:
        raise InputError(
            "num_selection",
            "must leave at least a third of the examples fresh",
            f"{size} of {num_examples}",
            f"pass at most {num_examples // 3}",
        )
    generator = np.random.default_rng(seed)
    same, separate = np.empty(num_splits), np.empty(num_splits)
    for split in range(num_splits):
        order = generator.permutation(num_examples)
        # Equally good candidates win by lot: an order of preference would be a choice too.
        candidates = table[generator.permutation(len(table))]
        chosen = candidates[candidates[:, order[:size]].mean(axis=1).argmax()]
        fresh = chosen[order[2 * size :]].mean()
        same[split] = chosen[order[:size]].mean() - fresh
        separate[split] = chosen[order[size : 2 * size]].mean() - fresh
    return SelectionOptimism(same, separate)


def _wait_for(value: Any) -> None:
    """Returns when the device has computed `value`, whatever backend it comes from."""
    if hasattr(value, "block_until_ready"):
        value.block_until_ready()
    elif hasattr(value, "numpy"):
        value.numpy()
    elif isinstance(value, Mapping):
        for part in value.values():
            _wait_for(part)
    elif isinstance(value, list | tuple):
        for part in value:
            _wait_for(part)
