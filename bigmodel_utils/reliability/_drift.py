"""Whether today's data still come from where the reference came from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from .._checks import InputError, check_array, check_integer, check_real, check_same_length
from .._report import Table, render_html, render_text

# Sums in another order differ in the last digits: what differs by less is a tie.
_TIE = 1e-9


@dataclass(frozen=True)
class FeatureDrift:
    """One feature's share in a drift.

    Attributes:
        name: the feature.
        statistic: largest distance between the two empirical distribution functions
            (Kolmogorov–Smirnov), from 0 to 1.
        p_value: probability, without drift, that *any* feature shows as large a distance.
    """

    name: str
    statistic: float
    p_value: float


@dataclass(frozen=True)
class DriftReport:
    """Whether two samples come from one distribution.

    Attributes:
        statistic: energy distance of the two samples over standardised features; 0 if they
            are equal.
        p_value: probability of so large a distance without drift.
        features: the features one by one, in their order.
        num_reference: examples of the reference that were compared.
        num_current: examples of today's data that were compared.
    """

    statistic: float
    p_value: float
    features: tuple[FeatureDrift, ...]
    num_reference: int
    num_current: int

    def find_drifted(self, level: float = 0.05) -> tuple[str, ...]:
        """Names of the features with a p-value of at most `level`, strongest drift first.

        Without drift, a name is returned with a probability of at most `level`, however many
        features there are.
        """
        check_real("level", level, at_least=0, at_most=1)
        found = sorted(
            (feature for feature in self.features if feature.p_value <= level),
            key=lambda feature: -feature.statistic,
        )
        return tuple(feature.name for feature in found)

    def to_dict(self) -> dict[str, Any]:
        """Returns the report as plain dictionaries and lists, ready for JSON."""
        return asdict(self) | {"features": [asdict(feature) for feature in self.features]}

    def __str__(self) -> str:
        return render_text(*self._make_table())

    def _repr_html_(self) -> str:
        return render_html(*self._make_table())

    def _make_table(self) -> Table:
        rows = [("all together", f"{self.statistic:.4g}", f"{self.p_value:.4g}")]
        rows += [(f.name, f"{f.statistic:.4g}", f"{f.p_value:.4g}") for f in self.features]
        return ("Feature", "Distance", "p-value"), rows


def measure_drift(
    reference: Any,
    current: Any,
    *,
    feature_names: Sequence[str] | None = None,
    num_permutations: int = 999,
    max_examples: int = 1000,
    seed: int = 0,
) -> DriftReport:
    r"""Measures how far two samples differ, and how often chance alone would do as much.

    The energy distance :math:`2E|X-Y| - E|X-X'| - E|Y-Y'|` is zero only for equal
    distributions, and sees a change of how features go together as well as of each. Its
    p-value is exact: without drift all ways to deal the pooled examples into two samples are
    equally likely, so :math:`p = (1 + \#\{E^* \ge E\}) / (1 + \text{permutations})`. Each
    feature's distance is held against the largest of all features under the same
    permutations, which keeps the level for all of them together.

    Args:
        reference: `(num_reference, …)`, what the model was made for; further axes are
            flattened into features.
        current: `(num_current, …)`, what it meets now.
        feature_names: one name per feature; `"0"`, `"1"`, … if left out.
        num_permutations: random deals; the smallest possible p-value is
            `1 / (num_permutations + 1)`.
        max_examples: of a larger sample, so many examples are drawn at random.
        seed: seed of the drawing and the permutations.

    Returns:
        The report.

    Raises:
        InputError: if a side has fewer than two examples, features differ, or a value is NaN
            or infinite.

    Limits:
        Examples must be independent: near-duplicates, or readings close in time, raise
        alarms without drift. Looking every day at level 0.05 raises one in twenty days. A
        high p-value is no proof of sameness. Time and memory grow with the square of the
        number of examples.

    Example:
        >>> generator = np.random.default_rng(0)
        >>> before, after = generator.normal(size=(2, 200, 3))
        >>> after[:, 1] += 1
        >>> report = measure_drift(before, after, feature_names=["age", "dose", "weight"])
        >>> report.p_value, report.find_drifted()
        (0.001, ('dose',))

    References:
        Székely and Rizzo, Energy Statistics: A Class of Statistics Based on Distances, Journal
        of Statistical Planning and Inference 143, 2013. Phipson and Smyth, Permutation
        P-values Should Never Be Zero, Statistical Applications in Genetics and Molecular
        Biology 9, 2010. Westfall and Young, Resampling-Based Multiple Testing, 1993.
    """
    check_integer("num_permutations", num_permutations, at_least=19)
    check_integer("max_examples", max_examples, at_least=2)
    generator = np.random.default_rng(check_integer("seed", seed, at_least=0))
    before = _check_sample("reference", reference)
    after = _check_sample("current", current)
    names = _check_features(before, after, feature_names)
    samples = [_draw(sample, max_examples, generator) for sample in (before, after)]
    pooled = np.concatenate(samples)
    weights = _deal(len(samples[0]), len(samples[1]), num_permutations, generator)

    energies = _measure_energies(pooled, weights)
    dealt = np.ascontiguousarray(weights.T)
    distances = np.stack([_measure_distances(column, dealt) for column in pooled.T], axis=1)
    largest = distances.max(axis=1)
    return DriftReport(
        statistic=float(energies[0]),
        p_value=_rank(energies, energies[0]),
        features=tuple(
            FeatureDrift(name, float(distance), _rank(largest, distance))
            for name, distance in zip(names, distances[0], strict=True)
        ),
        num_reference=len(samples[0]),
        num_current=len(samples[1]),
    )


def _check_sample(name: str, value: Any) -> np.ndarray:
    sample = check_array(name, value).astype(np.float64)
    if sample.ndim < 2 or len(sample) < 2:
        raise InputError(
            name,
            "must have shape (num_examples, …) with at least two examples",
            f"shape {sample.shape}",
            "pass one row per example; for one feature, add an axis",
        )
    return sample.reshape(len(sample), -1)


def _check_features(
    before: np.ndarray, after: np.ndarray, feature_names: Sequence[str] | None
) -> Sequence[str]:
    if before.shape[1] != after.shape[1]:
        raise InputError(
            "current",
            "must have the features of `reference`",
            f"{after.shape[1]} and {before.shape[1]}",
            "pass the same columns in the same order",
        )
    if feature_names is None:
        return [str(number) for number in range(before.shape[1])]
    check_same_length(feature_names=feature_names, features=before[0])
    return feature_names


def _draw(sample: np.ndarray, size: int, generator: np.random.Generator) -> np.ndarray:
    if len(sample) <= size:
        return sample
    return sample[generator.choice(len(sample), size=size, replace=False)]


def _deal(
    num_before: int, num_after: int, num_permutations: int, generator: np.random.Generator
) -> np.ndarray:
    """Rows that subtract the mean over one sample from that over the other.

    The first row is the deal that was observed, the others are permutations of it.
    """
    observed = np.repeat([1 / num_before, -1 / num_after], [num_before, num_after])
    dealt = generator.permuted(np.tile(observed, (num_permutations, 1)), axis=1)
    return np.concatenate([observed[None], dealt])


def _measure_energies(pooled: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Energy distance of every deal, `(num_deals,)`: minus the quadratic form of distances."""
    # By all examples together: a scale from one sample would depend on the deal.
    scales = pooled.std(axis=0)
    points = (pooled - pooled.mean(axis=0)) / np.where(scales > 0, scales, 1)
    squares = (points**2).sum(axis=1)
    squares = squares[:, None] + squares - 2 * points @ points.T
    # Of equal points rounding leaves a little, and the root would make much of it.
    distances = np.sqrt(np.where(squares > 1e-12 * squares.max(), squares, 0))
    return np.asarray(-((weights @ distances) * weights).sum(axis=1))


def _measure_distances(column: np.ndarray, dealt: np.ndarray) -> np.ndarray:
    """Kolmogorov–Smirnov distance of one feature in every deal, `(num_deals,)`.

    `dealt` are the weights with a row for each example: whole rows are put in order fast.
    """
    order = np.argsort(column, kind="stable")
    gaps = dealt[order]
    # Equal values make one step: distribution functions are compared after the last of them.
    starts = np.flatnonzero(np.append(True, np.diff(column[order]) > 0))
    if len(starts) < len(gaps):
        gaps = np.add.reduceat(gaps, starts, axis=0)
    np.cumsum(gaps, axis=0, out=gaps)
    return np.asarray(np.maximum(gaps.max(axis=0), -gaps.min(axis=0)))


def _rank(values: np.ndarray, observed: float) -> float:
    """Share of the deals, the observed one among them, with a value as large as `observed`."""
    return float(np.mean(values >= observed - _TIE))
