"""Shapley values by shap's own engines, where they are as fast as any of ours would be."""

from __future__ import annotations

from collections.abc import Sequence
from types import ModuleType
from typing import Any

import numpy as np

from .._checks import InputError, check_array, check_choice, check_integer
from ._coalitions import MAX_PLAYERS
from ._kernel_shap import check_background
from ._predict import PredictFn, build_predict_fn
from ._result import Explanation, choose_targets
from ._shap import import_shap, keep_random_state

METHODS = ("exact", "permutation", "partition")
NUM_PERMUTATIONS = 10
EVALUATIONS_PER_FEATURE = 16


def explain_with_shapley(
    model: Any,
    inputs: np.ndarray,
    *,
    background: np.ndarray,
    method: str = "exact",
    targets: int | Sequence[int] | None = None,
    seed: int = 0,
) -> Explanation:
    """Shapley values by an engine of `shap`: every coalition, orders of arrival, or a hierarchy.

    Args:
        model: a Keras model, or a function of inputs `(num_examples, *feature_shape)`.
        inputs: rows to explain, `(num_rows, *feature_shape)`.
        background: `(num_background, *feature_shape)`, all of which is used; for images under
            `"partition"` one row.
        method: `"exact"` asks about every coalition of at most 16 features. `"permutation"`
            takes ten orders of the features, each there and back. `"partition"` lets features
            come and go in a hierarchy, of correlation in tables and of place in images; its
            values are Owen's, not Shapley's.
        targets: outputs to explain; all by default.
        seed: of the orders. The process's own random state is left as it was.

    Returns:
        `values` of shape `(num_rows, *feature_shape, num_targets)`, which add up to the output
        less `base_values`, the mean output over the background. No standard errors.

    Raises:
        InputError: if an argument cannot be used, or there are too many features.
        MissingExtraError: if shap is not installed.

    Limits:
        For standard errors, a stop rule or groups, use `explain_with_kernel_shap`.

    Example:
        >>> found = explain_with_shapley(
        ...     lambda x: x[:, :1] * x[:, 1:2], np.array([[2.0, 3.0]]), background=np.zeros((1, 2)))
        >>> found.values[0, :, 0].tolist()
        [3.0, 3.0]

    References:
        R. Mitchell, J. Cooper, E. Frank, G. Holmes, Sampling Permutations for Shapley Value
        Estimation, Journal of Machine Learning Research 23, 2022. G. Owen, Values of Games with
        a Priori Unions, 1977.
    """
    check_choice("method", method, METHODS)
    rows = check_array("inputs", inputs)
    known, _ = check_background(background, rows)
    random = check_integer("seed", seed, at_least=0, at_most=2**32 - 1)
    width = int(np.prod(rows.shape[1:]))
    if method == "exact" and width > MAX_PLAYERS:
        raise InputError(
            "inputs", f"must have at most {MAX_PLAYERS} features", width, 'pass "permutation"'
        )
    predict = build_predict_fn(model)
    outputs, base = predict(rows), predict(known).mean(axis=0)
    chosen = choose_targets(targets, num_outputs=outputs.shape[1])
    shap = import_shap()
    with keep_random_state(random):
        found = _run(shap, _make_flat(predict, rows.shape[1:], chosen), rows, known, method=method)
    return Explanation(
        f"Shapley values, {method} (shap {shap.__version__})",
        found.reshape(*rows.shape, len(chosen)),
        np.tile(base[list(chosen)], (len(rows), 1)),
        outputs[:, chosen],
        rows,
        chosen,
    )


def _make_flat(predict: PredictFn, shape: tuple[int, ...], targets: tuple[int, ...]) -> PredictFn:
    """The chosen outputs of rows whose features shap has laid out in a line."""
    return lambda x: predict(np.asarray(x).reshape(-1, *shape))[:, targets]


def _run(
    shap: ModuleType, predict: PredictFn, rows: np.ndarray, known: np.ndarray, *, method: str
) -> np.ndarray:
    width = int(np.prod(rows.shape[1:]))
    flat, flat_known = rows.reshape(len(rows), -1), known.reshape(len(known), -1)
    # Without the size, shap keeps a hundred rows of the background and does not say so.
    masker = shap.maskers.Independent(flat_known, max_samples=len(known))
    if method == "exact":
        explainer, budget = shap.ExactExplainer(predict, masker), 2**width
    elif method == "permutation":
        state = int(np.random.randint(2**31))  # noqa: NPY002
        explainer = shap.PermutationExplainer(predict, masker, seed=state)
        budget = NUM_PERMUTATIONS * (2 * width + 1)
    elif rows.ndim == 4:
        if len(known) != 1:
            raise InputError("background", "must be one row for images", len(known), "pass `x[:1]`")
        masker, flat = shap.maskers.Image(known[0], known[0].shape), rows
        explainer = shap.PartitionExplainer(predict, masker)
        budget = EVALUATIONS_PER_FEATURE * width
    else:
        masker = shap.maskers.Partition(flat_known, max_samples=len(known))
        explainer = shap.PartitionExplainer(predict, masker)
        budget = EVALUATIONS_PER_FEATURE * width
    found = explainer(flat, max_evals=budget, silent=True)
    return np.asarray(found.values, dtype=np.float64)
