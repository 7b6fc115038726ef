"""LIME for texts and for token ids: words hidden, each distinct text predicted once."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from itertools import compress
from typing import Any

import numpy as np

from .._checks import InputError, check_array, check_integer
from ._lime import (
    Surrogates,
    check_num_samples,
    check_num_segments,
    check_varied,
    fit_surrogates,
    make_explanation,
    make_state,
    weigh_masks,
)
from ._predict import PredictFn, build_predict_fn
from ._result import Explanation, choose_targets

TEXT_BATCH_SIZE = 1024  # a function of texts splits them itself if it must
FIX_CONSTANT = "explain another output, or look whether the model reads the words"
Hide = Callable[[np.ndarray], np.ndarray]
"""Takes masks `(num_draws, num_segments)` and returns what the model is to read."""


def explain_with_lime_text(
    model: Callable[[list[str]], Any],
    texts: Sequence[str],
    *,
    mask_word: str | None = None,
    num_samples: int = 5000,
    targets: int | Sequence[int] | None = None,
    seed: int = 0,
) -> Explanation:
    """Explains texts by hiding words: how much each adds to an output where it is shown.

    Args:
        model: a function of a list of texts that returns `(num_texts, num_outputs)`.
        texts: at least five words each; texts may differ in length.
        mask_word: what stands for a hidden word, each place being hidden by itself. By default
            a hidden word is taken out, wherever it occurs.
        num_samples: perturbed texts drawn, the text itself counted among them. Those that are
            equal are predicted once.
        targets: outputs to explain; all by default.
        seed: of the draws. The process's own random state is not touched.

    Returns:
        `inputs` are the words `(num_rows, num_words)` and `values` their coefficients
        `(num_rows, num_words, num_targets)`; rows with fewer words end in empty words of value
        0. Without `mask_word` a word stands once, where it first occurs. `base_values` are the
        intercepts, `standard_errors` the spread over other draws, `additivity_errors` the
        surrogate's error at the text itself. In `diagnostics`: `r2`; `num_segments`;
        `stability`, the mean Jaccard index of the top five on two halves of the draws (or of
        the upper half, of fewer than ten); two seeds agree at least as well.

    Raises:
        InputError: if an argument cannot be used, a text has fewer than five words, the model
            cannot read a text without words, or an output is the same on all draws.

    Limits:
        Words are runs of letters, digits and underscores: languages without spaces need
        `explain_with_lime_tokens`. The model must answer one text always alike. With the same
        seed the coefficients are those of `lime`.

    Example:
        >>> found = explain_with_lime_text(
        ...     lambda texts: [["good" in text] for text in texts],
        ...     ["a good film with a good end"])
        >>> found.inputs[0, found.values[0, :, 0].argmax()].item()
        'good'

    References:
        M. T. Ribeiro, S. Singh, C. Guestrin, "Why Should I Trust You?", KDD, 2016.
    """
    rows = _check_texts(texts)
    if not callable(model):
        raise InputError(
            "model", "must be a function of a list of texts", type(model).__name__, "pass one"
        )
    predict = build_predict_fn(lambda batch: model(batch.tolist()), batch_size=TEXT_BATCH_SIZE)
    hides, words = [], []
    for row, text in enumerate(rows):
        hide, names = _hide_words(text, mask_word=mask_word)
        fix = "leave it out, or explain token ids or characters"
        check_num_segments("texts", len(names), row=row, fix=fix)
        hides.append(hide)
        words.append(names)
    counts = [len(each) for each in words]
    width = max(counts)
    outputs, chosen, fits = _explain_rows(
        predict, hides, counts=counts, num_samples=num_samples, targets=targets, seed=seed
    )
    return make_explanation(
        f"LIME on {num_samples:,} texts with words hidden",
        [fit.spread(np.arange(fit.num_segments), width) for fit in fits],
        inputs=np.array([each + [""] * (width - len(each)) for each in words]),
        outputs=outputs,
        targets=chosen,
    )


def explain_with_lime_tokens(
    model: Any,
    ids: np.ndarray,
    *,
    mask_id: int,
    num_samples: int = 5000,
    targets: int | Sequence[int] | None = None,
    seed: int = 0,
) -> Explanation:
    """Explains rows of token ids by hiding positions: how much each adds where it is shown.

    Args:
        model: a Keras model, or a function of ids `(num_examples, length)`.
        ids: integers `(num_rows, length)`.
        mask_id: the id that stands for a hidden token. Positions that hold it already, such as
            padding, are left alone and get the value 0.
        num_samples: perturbed rows drawn, the row itself counted among them. Those that are
            equal are predicted once.
        targets: outputs to explain; all by default. For a language model that is the whole
            vocabulary: name the token.
        seed: of the draws. The process's own random state is not touched.

    Returns:
        `values` are the coefficients `(num_rows, length, num_targets)`; the rest is as in
        `explain_with_lime_text`.

    Raises:
        InputError: if an argument cannot be used, a row has fewer than five tokens to hide, the
            model cannot read a row that is hidden whole, or an output is the same on all draws.

    Limits:
        What the model makes of `mask_id` enters every value: take one it was trained with.

    Example:
        >>> ids = np.array([[4, 1, 7, 1, 2, 3]])
        >>> found = explain_with_lime_tokens(
        ...     lambda x: (x == 7).any(axis=1)[:, None], ids, mask_id=0)
        >>> found.values[0, :, 0].argmax().item()
        2

    References:
        M. T. Ribeiro, S. Singh, C. Guestrin, "Why Should I Trust You?", KDD, 2016.
    """
    rows = check_array("ids", ids, shape=(None, None))
    if rows.dtype.kind not in "iu":
        raise InputError("ids", "must be integers", f"dtype {rows.dtype}", "pass token ids")
    hidden = check_integer("mask_id", mask_id)
    places = [np.flatnonzero(row != hidden) for row in rows]
    for number, place in enumerate(places):
        fix = "leave it out, or pass another `mask_id`"
        check_num_segments("ids", len(place), row=number, fix=fix)
    outputs, chosen, fits = _explain_rows(
        build_predict_fn(model),
        [_hide_tokens(row, place, mask_id=hidden) for row, place in zip(rows, places, strict=True)],
        counts=[len(place) for place in places],
        num_samples=num_samples,
        targets=targets,
        seed=seed,
    )
    width = rows.shape[1]
    return make_explanation(
        f"LIME on {num_samples:,} rows with tokens hidden",
        [fit.spread(place, width) for fit, place in zip(fits, places, strict=True)],
        inputs=rows,
        outputs=outputs,
        targets=chosen,
    )


def _check_texts(texts: Sequence[str]) -> list[str]:
    rows = [texts] if isinstance(texts, str) else list(texts)
    if isinstance(texts, str) or not rows or not all(isinstance(row, str) for row in rows):
        kinds = ", ".join(sorted({type(row).__name__ for row in rows})) or "none"
        received = "one text" if isinstance(texts, str) else kinds
        raise InputError("texts", "must be a list of texts", received, "pass `[text]`")
    return rows


def _hide_words(text: str, *, mask_word: str | None) -> tuple[Hide, list[str]]:
    """A function that writes the text without some words, and the words it may hide."""
    pieces = re.findall(r"\w+|\W+", text)
    is_word = [re.match(r"\w", piece) is not None for piece in pieces]
    words = list(compress(pieces, is_word))
    names = words if mask_word is not None else list(dict.fromkeys(words))
    # Each piece follows the mask of its word; what stands between words, a mask of ones.
    numbers = iter(range(len(words)))
    owners = [
        len(names) if not spoken else next(numbers) if mask_word is not None else names.index(piece)
        for piece, spoken in zip(pieces, is_word, strict=True)
    ]

    def hide(masks: np.ndarray) -> np.ndarray:
        shown = np.insert(masks.astype(bool), len(names), True, axis=1)[:, owners]
        if mask_word is None:
            texts = ["".join(compress(pieces, row)) for row in shown.tolist()]
        else:
            both = np.where(shown, np.array(pieces, dtype=object), mask_word)
            texts = ["".join(row) for row in both.tolist()]
        return np.array(texts, dtype=object)

    return hide, names


def _hide_tokens(row: np.ndarray, places: np.ndarray, *, mask_id: int) -> Hide:
    """A function that writes the row with `mask_id` at some of the places."""

    def hide(masks: np.ndarray) -> np.ndarray:
        rows = np.repeat(row[None], len(masks), axis=0)
        rows[:, places] = np.where(masks, row[places], mask_id)
        return rows

    return hide


def _explain_rows(
    predict: PredictFn,
    hides: Sequence[Hide],
    *,
    counts: Sequence[int],
    num_samples: int,
    targets: int | Sequence[int] | None,
    seed: int,
) -> tuple[np.ndarray, tuple[int, ...], list[Surrogates]]:
    """Outputs of the rows, the outputs chosen, and one fit for each row."""
    check_num_samples(num_samples, num_segments=max(counts))
    num_outputs = _check_reads_nothing(predict, hides[0], num_segments=counts[0])
    chosen = choose_targets(targets, num_outputs=num_outputs)
    draws = {count: _draw_masks(count, num_samples, seed=seed) for count in set(counts)}
    outputs, fits = [], []
    for hide, count in zip(hides, counts, strict=True):
        masks = draws[count]

        def explain(some: np.ndarray, hide: Hide = hide) -> np.ndarray:
            return predict(hide(some))[:, chosen]

        found = _predict_distinct(explain, masks)
        check_varied(found[:, None], chosen, fix=FIX_CONSTANT)
        weights = weigh_masks(masks)
        fits.append(fit_surrogates(masks, found[:, None], weights=weights, seed=seed))
        outputs.append(found[0])
    return np.stack(outputs), chosen, fits


def _check_reads_nothing(predict: PredictFn, hide: Hide, *, num_segments: int) -> int:
    """Returns how many outputs there are, if the model can read a row that is hidden whole."""
    num_outputs = len(predict(hide(np.ones((1, num_segments))))[0])
    try:
        predict(hide(np.zeros((1, num_segments))))
    except Exception as error:
        raise InputError(
            "model",
            "must answer a row of which everything is hidden",
            f"{type(error).__name__}: {error}",
            "hide by a word or id that the model knows, or let it answer an empty text",
        ) from error
    return num_outputs


def _draw_masks(num_segments: int, num_samples: int, *, seed: int) -> np.ndarray:
    """Masks `(num_samples, num_segments)` in the order that `lime` draws; the first shows all."""
    state = make_state(seed)
    masks = np.ones((num_samples, num_segments))
    sizes = state.randint(1, num_segments + 1, num_samples - 1)
    for mask, size in zip(masks[1:], sizes.tolist(), strict=True):
        mask[state.permutation(num_segments)[:size]] = 0
    return masks


def _predict_distinct(predict: PredictFn, masks: np.ndarray) -> np.ndarray:
    """Outputs for each mask, each distinct one predicted once, a batch at a time."""
    packed = np.packbits(masks.astype(bool), axis=1)
    _, first, places = np.unique(packed, axis=0, return_index=True, return_inverse=True)
    distinct = masks[first]
    starts = range(0, len(distinct), TEXT_BATCH_SIZE)
    parts = [predict(distinct[start : start + TEXT_BATCH_SIZE]) for start in starts]
    return np.concatenate(parts)[places.ravel()]
