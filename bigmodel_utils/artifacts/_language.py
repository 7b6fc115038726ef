"""The reference language model: Python source, predicted token by token."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .._checks import check_choice
from ..data import (
    Corpus,
    load_standard_library,
    pack_tokens,
    split_by_hash,
    train_tokenizer,
)
from ..models import LanguageModelSettings, build_language_model
from ..training import CheckpointSettings, TrainingSettings, evaluate, train
from ._provenance import TrainedModel, describe_corpus

SETTINGS = LanguageModelSettings(
    vocabulary_size=2048,
    num_layers=4,
    width=160,
    num_heads=5,
    feedforward_width=432,
    context_length=128,
)
SHARES = {"training": 0.9, "validation": 0.05, "test": 0.05}
BATCH_SIZE = 32
NUM_EPOCHS = 4
PEAK_LEARNING_RATE = 3e-3
WARMUP_STEPS = 100


def build() -> Any:
    """Builds the untrained model."""
    return build_language_model(SETTINGS)


def split_corpus() -> tuple[Corpus, dict[str, list[str]]]:
    """Splits the standard library's source by a hash of each file's text."""
    corpus = load_standard_library("source")
    sides = split_by_hash(corpus.keys, SHARES)
    texts = [document.text for document in corpus.documents]
    return corpus, {side: [texts[row] for row in rows] for side, rows in sides.items()}


def load_corpus_windows(
    tokenizer: Any, sides: Sequence[str] = tuple(SHARES)
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Packs the standard library's source into the windows the language model is made for.

    Files are assigned to a side by a hash of their text, so a window never holds a file of
    another side.

    Args:
        tokenizer: the tokenizer of the reference model.
        sides: which of `"training"`, `"validation"` and `"test"` to pack.

    Returns:
        Side to inputs and targets `(num_windows, 128)` int32, targets being the inputs one
        token later.

    Raises:
        InputError: for an unknown side.

    Example:
        >>> reference = load_reference_model("language_model")     # doctest: +SKIP
        >>> load_corpus_windows(reference.tokenizer, ["test"])     # doctest: +SKIP
    """
    for side in sides:
        check_choice("sides", side, tuple(SHARES))
    _, texts = split_corpus()
    return {side: _pack(tokenizer, texts[side]) for side in sides}


def _pack(tokenizer: Any, texts: list[str]) -> tuple[np.ndarray, np.ndarray]:
    encoded = [encoding.ids for encoding in tokenizer.encode_batch(texts)]
    return pack_tokens(encoded, length=SETTINGS.context_length)


def train_language_model(seed: int, checkpoints: CheckpointSettings | None) -> TrainedModel:
    """Trains tokenizer and model from a seed; an hour on one core."""
    import keras

    corpus, texts = split_corpus()
    tokenizer = train_tokenizer(texts["training"], vocabulary_size=SETTINGS.vocabulary_size)
    windows = {side: _pack(tokenizer, texts[side]) for side in SHARES}
    num_steps = NUM_EPOCHS * -(-len(windows["training"][0]) // BATCH_SIZE)

    def build_scheduled() -> Any:
        schedule = keras.optimizers.schedules.CosineDecay(
            PEAK_LEARNING_RATE / WARMUP_STEPS,
            num_steps - WARMUP_STEPS,
            warmup_target=PEAK_LEARNING_RATE,
            warmup_steps=WARMUP_STEPS,
            alpha=0.01,
        )
        return build_language_model(SETTINGS, learning_rate=schedule)

    run = train(
        build_scheduled,
        windows["training"],
        validation_data=windows["validation"],
        settings=TrainingSettings(
            NUM_EPOCHS, BATCH_SIZE, seed=seed, precision="float32", compile_mode="xla"
        ),
        checkpoints=checkpoints,
    )
    report = {
        "data": describe_corpus(corpus, {side: len(texts[side]) for side in SHARES}),
        "training": run.to_dict(),
    }
    return TrainedModel(
        run.model, tokenizer, report, lambda model: evaluate(model, windows["test"])
    )
