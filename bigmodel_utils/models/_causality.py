"""Whether what a sequence model says at a place depends on what comes after it."""

from __future__ import annotations

from typing import Any

import numpy as np

from .._checks import InputError, check_array, check_integer


def measure_future_dependence(
    model: Any, tokens: Any, *, num_places: int = 8, seed: int = 0
) -> float:
    """Largest change of an output when only tokens after its place are exchanged.

    The texts are cut at several places. Behind each cut every text gets the end of another
    text, and what the model says before the cut is compared with what it said at first.

    Args:
        model: a Keras model from tokens of shape `(num_texts, length)` to outputs of shape
            `(num_texts, length, …)`, such as logits of the next token.
        tokens: integers of shape `(num_texts, length)`: at least two texts that differ, of at
            least two tokens.
        num_places: cuts to try, spread over the text; all of them if there are fewer.
        seed: seed of the choice of other texts.

    Returns:
        The largest absolute change of an output at a place before the cut, in the output's
        unit; rounding only, if the model sees no later token.

    Raises:
        InputError: if the texts are too few, too short or all alike, or the output has another
            length than the text.

    Limits:
        Shows a dependence that these texts excite: a model whose weights are zero depends on
        nothing. Looks at the model, not at the data: targets shifted by one place too few
        leak in the same way, and no model test can see it.

    Example:
        >>> from bigmodel_utils.models import LanguageModelSettings, build_language_model
        >>> settings = LanguageModelSettings(
        ...     vocabulary_size=50, num_layers=1, width=8, num_heads=2, feedforward_width=16,
        ...     context_length=10)
        >>> tokens = np.random.default_rng(0).integers(0, 50, (3, 10))
        >>> measure_future_dependence(build_language_model(settings), tokens) < 1e-5
        True
    """
    texts = check_array("tokens", tokens, shape=(None, None))
    if texts.dtype.kind not in "iu":
        raise InputError("tokens", "must hold integers", f"dtype {texts.dtype}", "pass token ids")
    count = check_integer("num_places", num_places, at_least=1)
    num_texts, length = texts.shape
    if num_texts < 2 or length < 2 or (texts == texts[0]).all():
        raise InputError(
            "tokens",
            "must hold two texts that differ, of two tokens or more",
            f"shape {texts.shape}",
            "pass more texts",
        )
    at_first = _predict(model, texts)
    shift = int(np.random.default_rng(seed).integers(1, num_texts))
    others = np.roll(texts, shift, axis=0)
    largest = 0.0
    for cut in np.unique(np.linspace(1, length - 1, count).round().astype(int)):
        exchanged = np.concatenate([texts[:, :cut], others[:, cut:]], axis=1)
        change = np.abs(_predict(model, exchanged)[:, :cut] - at_first[:, :cut])
        largest = max(largest, float(change.max()))
    return largest


def _predict(model: Any, texts: np.ndarray) -> np.ndarray:
    outputs = np.asarray(model.predict_on_batch(texts), dtype=np.float64)
    if outputs.shape[:2] != texts.shape:
        raise InputError(
            "model",
            f"must give an output of shape {texts.shape} and more",
            f"shape {outputs.shape}",
            "pass the model that gives an output for every place",
        )
    return outputs
