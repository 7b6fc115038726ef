"""LIME for tables: rows drawn quartile by quartile, one forward pass for all that is explained."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .._checks import InputError, check_array, import_extra
from ._lime import check_num_samples, check_varied, fit_surrogates, make_explanation, make_state
from ._predict import build_predict_fn
from ._result import Explanation, choose_targets

MIN_SPREAD = 1e-11  # keeps a quartile of equal values from dividing by nought


def explain_with_lime_tabular(
    model: Any,
    inputs: np.ndarray,
    *,
    background: np.ndarray,
    num_samples: int = 5000,
    targets: int | Sequence[int] | None = None,
    seed: int = 0,
) -> Explanation:
    """Explains rows of a table: what it does to an output that a feature is in its quartile.

    The drawn rows come from the background alone, so all inputs share them and their forward
    pass. A coefficient is the change of the output when a feature lies in the same quartile as
    in the explained row, rather than in another.

    Args:
        model: a Keras model, or a function of rows `(num_examples, num_features)`.
        inputs: rows to explain, `(num_rows, num_features)`.
        background: rows that the quartiles are taken from, `(num_examples, num_features)`.
        num_samples: rows drawn, the explained one counted among them.
        targets: outputs to explain; all by default.
        seed: of the draws. The process's own random state is not touched.

    Returns:
        `values` are the coefficients `(num_rows, num_features, num_targets)`, `base_values` the
        intercepts, `standard_errors` their spread over other draws, and `additivity_errors` the
        surrogate's error at the row itself. In `diagnostics`: `r2`; `num_segments`; `stability`,
        the mean Jaccard index of the top five on two halves of the draws; two seeds agree at
        least as well.

    Raises:
        InputError: if an argument cannot be used, or an output is the same on all draws.
        MissingExtraError: if SciPy is not installed.

    Limits:
        Features are drawn apart from each other, so many drawn rows are unlike any real one.
        The fit is rarely good (look at `r2`), and a good fit is no sign that the coefficients
        mean something. With the same seed the coefficients are those of `lime`, but where a
        quartile holds one value only: there that value is drawn, and `lime` draws 0.

    Example:
        >>> background = np.random.default_rng(0).normal(size=(200, 3))
        >>> found = explain_with_lime_tabular(
        ...     lambda x: 5 * x[:, 1:2], background[:4], background=background)
        >>> np.abs(found.values[..., 0]).argmax(axis=1).tolist()
        [1, 1, 1, 1]

    References:
        M. T. Ribeiro, S. Singh, C. Guestrin, "Why Should I Trust You?", KDD, 2016.
    """
    rows = check_array("inputs", inputs, shape=(None, None)).astype(np.float64)
    num_rows, width = rows.shape
    known = check_array("background", background, shape=(None, width)).astype(np.float64)
    if width < 2:
        raise InputError("inputs", "must have two features or more", width, "plot the output")
    count = check_num_samples(num_samples, num_segments=width)
    state = make_state(seed)
    edges = [np.unique(np.percentile(column, [25, 50, 75])) for column in known.T]
    bins, drawn = _draw_rows(known, edges, num_samples=count, state=state)
    predictions = build_predict_fn(model)(np.concatenate([rows, drawn]))
    chosen = choose_targets(targets, num_outputs=predictions.shape[1])
    predictions = predictions[:, chosen]
    own, shared = predictions[:num_rows], predictions[num_rows:]
    fix = "explain another output, or pass a background that moves it"
    check_varied(shared[:, None], chosen, fix=fix)
    surrogates = []
    for row, output in zip(rows, own, strict=True):
        quartiles = [np.searchsorted(edge, x) for edge, x in zip(edges, row, strict=True)]
        masks = np.ones((count, width))
        masks[1:] = bins == quartiles
        outputs = np.concatenate([output[None], shared])[:, None]
        weights = _weigh_rows(masks)
        surrogates.append(fit_surrogates(masks, outputs, weights=weights, seed=seed))
    method = f"LIME on {count:,} rows drawn by quartiles"
    return make_explanation(method, surrogates, inputs=inputs, outputs=own, targets=chosen)


def _weigh_rows(masks: np.ndarray) -> np.ndarray:
    """LIME's kernel of tables: squared distance, width 0.75 times the root of the features."""
    num_features = masks.shape[1]
    return np.asarray(np.exp(-(num_features - masks.sum(axis=1)) / (2 * 0.75**2 * num_features)))


def _draw_rows(
    background: np.ndarray,
    edges: Sequence[np.ndarray],
    *,
    num_samples: int,
    state: np.random.RandomState,
) -> tuple[np.ndarray, np.ndarray]:
    """Quartiles and values `(num_samples - 1, num_features)`, in the order that `lime` draws.

    It draws quartiles for the explained row too and drops them: so do we, to be comparable.
    """
    truncnorm = import_extra("scipy.stats", extra="explain").truncnorm
    known = [np.searchsorted(edge, x) for edge, x in zip(edges, background.T, strict=True)]
    bins = np.empty((num_samples - 1, len(edges)), dtype=np.int64)
    for place, numbers in enumerate(known):
        present, counts = np.unique(numbers, return_counts=True)
        frequencies = counts / counts.sum()
        bins[:, place] = state.choice(present, size=num_samples, p=frequencies)[1:]
    values = np.empty(bins.shape)
    for place, (edge, column) in enumerate(zip(edges, background.T, strict=True)):
        parts = [column[known[place] == number] for number in range(len(edge) + 1)]
        # A quartile without an example is never drawn: its numbers are never read.
        means = np.array([part.mean() if len(part) else 0.0 for part in parts])
        spreads = np.array([part.std() if len(part) else 0.0 for part in parts]) + MIN_SPREAD
        lows = np.concatenate([[column.min()], edge])
        highs = np.concatenate([edge, [column.max()]])
        number = bins[:, place]
        drawn = lows[number]
        wide = (lows < highs)[number]
        if wide.any():
            inside = number[wide]
            mean, spread = means[inside], spreads[inside]
            drawn[wide] = truncnorm.rvs(
                (lows[inside] - mean) / spread,
                (highs[inside] - mean) / spread,
                loc=mean,
                scale=spread,
                random_state=state,
            )
        values[:, place] = drawn
    return bins, values
