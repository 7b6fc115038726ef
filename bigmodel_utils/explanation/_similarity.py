"""How alike two explanations are, and what should make them differ: another seed, another model."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from .._checks import InputError, check_choice, check_integer, check_real, import_extra
from .._report import Report
from ._result import Explanation

METRICS = ("signed", "absolute")
Explain = Callable[..., Explanation]
"""Called as `explain(model, inputs, seed=…)`, or without the seed if it takes none."""


@dataclass(frozen=True)
class Similarity(Report):
    """How alike the first target's values of two explanations are.

    Attributes:
        correlations: Spearman's rank correlation of each row, `(num_rows,)`; zero where one
            side is constant.
        overlaps: share of the top features that both have, of those that either has (Jaccard),
            `(num_rows,)`.
        metric: `"signed"` compares values, `"absolute"` their sizes.
        num_top: how many features count as the top.
    """

    correlations: np.ndarray
    overlaps: np.ndarray
    metric: str
    num_top: int

    def to_dict(self) -> dict[str, Any]:
        """Returns the fields as plain data, ready for JSON."""
        return {
            "correlations": self.correlations.tolist(),
            "overlaps": self.overlaps.tolist(),
            "metric": self.metric,
            "num_top": self.num_top,
        }

    def _list_rows(self) -> list[tuple[str, str]]:
        return [
            ("rank correlation", f"{self.correlations.mean():.2f}, {self.metric} values"),
            (f"shared of the top {self.num_top}", f"{self.overlaps.mean():.2f}"),
        ]


def compare_explanations(
    first: Explanation,
    second: Explanation,
    *,
    metric: str = "signed",
    num_top: int = 5,
    features: Any = None,
) -> Similarity:
    """Compares the values of two explanations of the same rows.

    Args:
        first: one explanation.
        second: another, of the same shape.
        metric: `"signed"` or `"absolute"`. It can decide a test: two maps that are zero on the
            same background correlate in size, whatever else they say.
        num_top: features with the largest sizes that count as the top.
        features: which features to compare, a mask of the shape of one row or of all rows;
            all by default.

    Returns:
        Correlation and overlap for each row.

    Raises:
        InputError: if the shapes differ, or fewer than three features are left in a row.

    Example:
        >>> values = np.array([[3.0, -2, 1, 0]])[..., None]
        >>> one = Explanation("a", values, np.zeros((1, 1)), np.zeros((1, 1)), values[..., 0], (0,))
        >>> float(compare_explanations(one, one, num_top=2).correlations[0])
        1.0

    References:
        Spearman, The proof and measurement of association between two things, 1904, American
        Journal of Psychology.
    """
    statistics = import_extra("scipy.stats", extra="explain")
    check_choice("metric", metric, METRICS)
    check_integer("num_top", num_top, at_least=1)
    pair = [each.values[..., 0] for each in (first, second)]
    if pair[0].shape != pair[1].shape:
        raise InputError(
            "second", f"must have values of shape {pair[0].shape}", pair[1].shape, "align them"
        )
    kept = np.ones(pair[0].shape, bool) if features is None else np.asarray(features, bool)
    kept = np.broadcast_to(kept, pair[0].shape)
    correlations, overlaps = [], []
    for one, other, mask in zip(*pair, kept, strict=True):
        a, b = one[mask], other[mask]
        if len(a) < 3:
            raise InputError("features", "must leave three features", len(a), "pass a wider mask")
        tops = [set(np.argsort(-np.abs(each), kind="stable")[:num_top]) for each in (a, b)]
        overlaps.append(len(tops[0] & tops[1]) / len(tops[0] | tops[1]))
        if metric == "absolute":
            a, b = np.abs(a), np.abs(b)
        is_flat = np.ptp(a) == 0 or np.ptp(b) == 0
        correlations.append(0.0 if is_flat else statistics.spearmanr(a, b).statistic)
    return Similarity(np.array(correlations), np.array(overlaps), metric, num_top)


def measure_stability(
    model: Any,
    inputs: Any,
    *,
    explain: Explain,
    num_seeds: int = 3,
    noise: float = 0.0,
) -> Similarity:
    """Explains the same rows again, with other seeds or slightly other inputs.

    Args:
        model: what is explained.
        inputs: `(num_rows, …)`.
        explain: called as `explain(model, inputs, seed=…)`; without the seed if it takes none,
            as gradients along a line, which are the same each time.
        num_seeds: explanations; the first is compared with each other one.
        noise: standard deviation of normal noise on the inputs, in units of each feature's own
            standard deviation over the rows; zero changes the seed alone.

    Returns:
        Mean correlation and overlap of each row over the pairs.

    Raises:
        InputError: if there are fewer than two seeds.

    Limits:
        A method may be stable and wrong: returning a constant is the most stable of all.
    """
    check_integer("num_seeds", num_seeds, at_least=2)
    check_real("noise", noise, at_least=0)
    x = np.asarray(inputs)
    first = run_explain(explain, model, inputs=x, seed=0)
    pairs = []
    for seed in range(1, num_seeds):
        moved = x
        if noise:
            draws = np.random.default_rng(seed).normal(size=x.shape)
            moved = (x + noise * x.std(axis=0) * draws).astype(x.dtype)
        pairs.append(
            compare_explanations(first, run_explain(explain, model, inputs=moved, seed=seed))
        )
    return Similarity(
        np.mean([pair.correlations for pair in pairs], axis=0),
        np.mean([pair.overlaps for pair in pairs], axis=0),
        pairs[0].metric,
        pairs[0].num_top,
    )


def run_explain(explain: Explain, model: Any, *, inputs: np.ndarray, seed: int) -> Explanation:
    """Explains with a seed, or without where the explainer takes none."""
    parameters = inspect.signature(explain).parameters.values()
    if any(each.name == "seed" or each.kind is each.VAR_KEYWORD for each in parameters):
        return explain(model, inputs, seed=seed)
    return explain(model, inputs)


def randomize_weights(model: Any, *, seed: int = 0) -> Any:
    """Copies a model and shuffles each of its weights: what it learned is gone, its sizes stay.

    An explanation that stays the same explains the input, not the model.

    Args:
        model: a Keras model that can be cloned.
        seed: of the shuffling.

    Returns:
        A new model; the one passed in is as it was.

    Raises:
        InputError: if the model has no weights.

    Example:
        >>> import keras
        >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4)])
        >>> other = randomize_weights(model)
        >>> sorted(other.get_weights()[0].ravel()) == sorted(model.get_weights()[0].ravel())
        True

    References:
        Adebayo, Gilmer, Muelly, Goodfellow, Hardt and Kim, Sanity Checks for Saliency Maps,
        2018, NeurIPS, section 3.
    """
    import keras

    weights = model.get_weights()
    if not weights:
        raise InputError("model", "must have weights", "none", "pass a trained model")
    draws = np.random.default_rng(seed)
    other = keras.models.clone_model(model)
    other.set_weights([draws.permutation(each.ravel()).reshape(each.shape) for each in weights])
    return other
