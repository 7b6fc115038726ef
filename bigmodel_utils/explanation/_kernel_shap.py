"""Shapley values from few coalitions: all rows share them, and each says how sure it is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .._checks import InputError, check_array, check_integer, check_real
from ._coalitions import fit_pairs, plan_pairs
from ._predict import PredictFn, build_predict_fn
from ._result import Explanation, choose_targets

MAX_BACKGROUND_ROWS = 1000
BATCH_NUMBERS = 2**19  # numbers in the masked inputs of one call: a few megabytes
MAX_BATCH_SIZE = 2**14


@dataclass(frozen=True)
class SamplingBudget:
    """How long to go on drawing coalitions.

    Attributes:
        num_evaluations: most coalitions asked about, for each row.
        tolerance: the largest standard error that is small enough, in units of the output;
            drawing stops at it. None: the whole budget is spent.
    """

    num_evaluations: int = 2048
    tolerance: float | None = None


@dataclass(frozen=True)
class GroupedBackground:
    """A background whose features come and go by groups, such as the patches of an image.

    Attributes:
        rows: background rows, `(num_background, *feature_shape)`.
        groups: number of each feature's group, `feature_shape`; every one of
            `0 … num_groups - 1` is used.
    """

    rows: np.ndarray
    groups: np.ndarray


def explain_with_kernel_shap(
    model: Any,
    inputs: np.ndarray,
    *,
    background: np.ndarray | GroupedBackground,
    budget: int | SamplingBudget = 2048,
    targets: int | Sequence[int] | None = None,
    seed: int = 0,
) -> Explanation:
    """Shapley values of the features, with a standard error for each.

    A coalition of features is worth the model's output with these features as in the row and
    the others as in a background row, averaged over the background. Coalitions are asked about
    in pairs with their complements, those of small size all, the others drawn. All rows share
    them and one factorized system. If the budget covers all coalitions the values are exact.

    Args:
        model: a Keras model, or a function of inputs `(num_examples, *feature_shape)`.
        inputs: rows to explain, `(num_rows, *feature_shape)`.
        background: `(num_background, *feature_shape)`, or the same with groups of features.
        budget: coalitions asked about for each row, at least four for each feature or group
            unless that is all; a `SamplingBudget` adds a rule to stop early. A coalition
            costs `num_background` forward passes of one example.
        targets: outputs to explain; all by default.
        seed: of the draws. The process's own random state is not touched.

    Returns:
        `values` of shape `(num_rows, *feature_shape, num_targets)`, or with groups
        `(num_rows, num_groups, num_targets)`; they add up to the output less `base_values`, the
        mean output over the background. `standard_errors` alike, none if exact. In
        `diagnostics`: `num_evaluations`, the coalitions that were asked about.

    Raises:
        InputError: if an argument cannot be used, or the background has over 1,000 rows.

    Limits:
        Features are replaced apart from each other, so that coalitions may be unlike any real
        input; the values describe the model there too. The standard errors are those of the
        draws alone, not of the background, and a little small where a tolerance stopped the
        drawing. A model that is constant gets zeros.

    Example:
        >>> found = explain_with_kernel_shap(
        ...     lambda x: x[:, :1] * x[:, 1:2], np.array([[2.0, 3.0]]), background=np.zeros((1, 2)))
        >>> found.values[0, :, 0].tolist()
        [3.0, 3.0]

    References:
        S. Lundberg, S.-I. Lee, A Unified Approach to Interpreting Model Predictions, NeurIPS,
        2017. I. Covert, S.-I. Lee, Improving KernelSHAP: Practical Shapley Value Estimation
        Using Linear Regression, AISTATS, 2021 (pairs, standard errors).
    """
    rows = check_array("inputs", inputs)
    known, groups = check_background(background, rows)
    width = int(np.prod(rows.shape[1:]))
    batch_size = max(64, min(MAX_BATCH_SIZE, BATCH_NUMBERS // width))
    predict = build_predict_fn(model, batch_size=batch_size)
    outputs, base = predict(rows), predict(known).mean(axis=0)
    chosen = choose_targets(targets, num_outputs=outputs.shape[1])
    values, errors, count = estimate_values(
        _make_game(predict, rows, known, groups=groups, targets=chosen, batch_size=batch_size),
        (outputs - base)[:, chosen],
        num_players=int(groups.max()) + 1,
        budget=budget,
        seed=seed,
    )
    is_grouped = isinstance(background, GroupedBackground)
    shape = (len(rows), *((-1,) if is_grouped else rows.shape[1:]), len(chosen))
    return Explanation(
        f"KernelSHAP on {count:,} coalitions" + (" (all)" if errors is None else " in pairs"),
        values.reshape(shape),
        np.tile(base[list(chosen)], (len(rows), 1)),
        outputs[:, chosen],
        rows,
        chosen,
        standard_errors=None if errors is None else errors.reshape(shape),
        diagnostics={"num_evaluations": np.full((len(rows), len(chosen)), count)},
        groups=groups if is_grouped else None,
    )


def explain_tokens_with_shapley(
    model: Any,
    ids: np.ndarray,
    *,
    mask_id: int,
    budget: int | SamplingBudget = 2048,
    targets: int | Sequence[int] | None = None,
    seed: int = 0,
) -> Explanation:
    """Shapley values of the tokens of a text, for a classifier or for the next token.

    A token that is absent is replaced by `mask_id`: a coalition costs one forward pass.

    Args:
        model: a Keras model or a function of ids `(num_texts, length)` that returns outputs
            `(num_texts, num_outputs)`. Of a language model, its logits at the last position.
        ids: texts to explain, integers `(num_texts, length)`.
        mask_id: the id that stands for a token that is not there.
        budget: as for `explain_with_kernel_shap`; a token is a feature.
        targets: outputs to explain; by default the likeliest of each text, without repeats.
        seed: of the draws.

    Returns:
        `values` of shape `(num_texts, length, num_targets)`; `base_values` are the outputs for
        a text of masks only.

    Raises:
        InputError: if an argument cannot be used, or `ids` are no integers.

    Limits:
        What a text with masks means is for the model to say: choose an id that it knows.

    Example:
        >>> copy_first = lambda ids: np.eye(9)[ids[:, 0]]
        >>> found = explain_tokens_with_shapley(copy_first, np.array([[7, 3, 5]]), mask_id=0)
        >>> found.targets, np.abs(found.values[0, :, 0]).round(6).tolist()
        ((7,), [1.0, 0.0, 0.0])

    References:
        As for `explain_with_kernel_shap`.
    """
    rows = check_array("ids", ids, shape=(None, None))
    if rows.dtype.kind not in "iu":
        raise InputError("ids", "must be integers", f"dtype {rows.dtype}", "pass token ids")
    masks = np.full((1, rows.shape[1]), check_integer("mask_id", mask_id), dtype=rows.dtype)
    predict = build_predict_fn(model)
    if targets is None:
        targets = np.unique(predict(rows).argmax(axis=1)).tolist()
    return explain_with_kernel_shap(
        predict, rows, background=masks, budget=budget, targets=targets, seed=seed
    )


def estimate_values(
    game: Callable[[np.ndarray], np.ndarray],
    totals: np.ndarray,
    *,
    num_players: int,
    budget: int | SamplingBudget = 2048,
    seed: int = 0,
) -> tuple[np.ndarray, np.ndarray | None, int]:
    """Shapley values of many games on the same coalitions.

    Args:
        game: takes coalitions `(num_coalitions, num_players)` and returns what they are worth,
            `(num_coalitions, num_rows, num_targets)`.
        totals: worth of all players less that of none, `(num_rows, num_targets)`.
        num_players: how many there are.
        budget: coalitions to ask about, and a rule to stop.
        seed: of the draws.

    Returns:
        Values `(num_rows, num_players, num_targets)`, their standard errors or none if exact,
        and the number of coalitions asked about.

    Raises:
        InputError: if the budget is too small.
    """
    limit, tolerance = _check_budget(budget, num_players=num_players)
    plan = plan_pairs(num_players, num_pairs=limit // 2)
    # A round must give every player a say before its errors mean anything.
    room = 0 if plan.is_exact else limit // 2 - len(plan.listed)
    batch = room if tolerance is None else min(room, max(2 * num_players, room // 16))
    numbers = np.random.default_rng(seed)
    there, gains, num_drawn = plan.listed, _ask_pairs(game, plan.listed, totals), 0
    while True:
        drawn = plan.draw(batch, numbers) if batch else plan.listed[:0]
        there = np.concatenate([there, drawn])
        gains = np.concatenate([gains, _ask_pairs(game, drawn, totals)])
        num_drawn += len(drawn)
        weights = np.concatenate(
            [plan.weights, np.full(num_drawn, plan.weight_left / max(num_drawn, 1))]
        )
        values, errors = fit_pairs(
            there, gains, weights=weights, totals=totals.ravel(), num_drawn=num_drawn
        )
        room -= batch
        batch = min(batch, room)
        if batch == 0 or (tolerance is not None and errors.max() <= tolerance):
            break
    shape = (num_players, *totals.shape)
    values, errors = (each.reshape(shape).swapaxes(0, 1) for each in (values, errors))
    return values, None if plan.is_exact else errors, 2 * len(there)


def _check_budget(budget: int | SamplingBudget, *, num_players: int) -> tuple[int, float | None]:
    whole = budget if isinstance(budget, SamplingBudget) else SamplingBudget(budget)
    least = 4 * num_players if num_players > 4 else 2**num_players - 2
    limit = check_integer("budget", whole.num_evaluations, at_least=least)
    if whole.tolerance is None:
        return limit, None
    return limit, check_real("tolerance", whole.tolerance, at_least=0)


def check_background(
    background: np.ndarray | GroupedBackground, rows: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the background's rows and the group of each feature.

    Raises:
        InputError: if they do not fit the rows, or there are too many.
    """
    if rows.ndim < 2:
        raise InputError(
            "inputs", "must be a batch of rows", f"shape {rows.shape}", "pass `x[None]`"
        )
    shape = rows.shape[1:]
    grouped = background if isinstance(background, GroupedBackground) else None
    known = check_array(
        "background", background if grouped is None else grouped.rows, shape=(None, *shape)
    )
    if len(known) > MAX_BACKGROUND_ROWS:
        raise InputError(
            "background",
            f"must have at most {MAX_BACKGROUND_ROWS} rows",
            len(known),
            "pass a random sample: a hundred rows are often enough",
        )
    if grouped is None:
        return known, np.arange(int(np.prod(shape))).reshape(shape)
    groups = check_array("groups", grouped.groups, shape=shape)
    present = np.unique(groups)
    if groups.dtype.kind not in "iu" or not np.array_equal(present, np.arange(len(present))):
        raise InputError(
            "groups",
            "must number the groups from 0 without a gap",
            present[:5].tolist(),
            "renumber them: `np.unique(groups, return_inverse=True)[1]`",
        )
    return known, groups


def _make_game(
    predict: PredictFn,
    rows: np.ndarray,
    known: np.ndarray,
    *,
    groups: np.ndarray,
    targets: tuple[int, ...],
    batch_size: int,
) -> Callable[[np.ndarray], np.ndarray]:
    """Worth of coalitions, `(num_coalitions, num_rows, num_targets)`."""

    def game(there: np.ndarray) -> np.ndarray:
        shown = there[:, groups]
        worths = np.empty((len(there), len(rows), len(targets)))
        step = max(1, batch_size // len(known))
        for start in range(0, len(there), step):
            some = shown[start : start + step, None]
            for place, row in enumerate(rows):
                mixed = np.where(some, row, known).reshape(-1, *rows.shape[1:])
                found = predict(mixed)[:, targets].reshape(len(some), len(known), -1)
                worths[start : start + step, place] = found.mean(axis=1)
        return worths

    return game


def _ask_pairs(
    game: Callable[[np.ndarray], np.ndarray], there: np.ndarray, totals: np.ndarray
) -> np.ndarray:
    """What each coalition is worth above its complement, one column for each row and target."""
    if len(there) == 0:
        return np.zeros((0, totals.size))
    worths = game(np.concatenate([there, ~there])).reshape(2, len(there), -1)
    return np.asarray(worths[0] - worths[1])
