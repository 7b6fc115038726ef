"""The scaling ladder: language models of growing size, each trained on a counted text.

The record that ships holds what each of its models lost on held-out files. A rung can be
trained again with the same call that made it, so a page can hold the record to account.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from .._checks import InputError, check_integer, check_real
from ..data import load_standard_library, pack_tokens, train_tokenizer
from ..models import LanguageModelSettings, build_language_model
from ..training import TrainingSettings, evaluate, train
from . import _reference
from ._language import split_corpus
from ._provenance import hash_code, list_versions

RECORD = "scaling_ladder/record.json"
CONTEXT_LENGTH = 64
BATCH_SIZE = 8
TOKENS_PER_STEP = BATCH_SIZE * CONTEXT_LENGTH
WARMUP_SHARE = 0.05
FINAL_SHARE = 0.1
CODE = (
    *("models/_transformer.py", "models/_attention.py", "data/_corpus.py", "data/_tokens.py"),
    *("data/_splits.py", "artifacts/_language.py", "artifacts/_ladder.py"),
)

RUNGS = {
    settings.width: settings
    for settings in (
        LanguageModelSettings(
            vocabulary_size=512,
            num_layers=num_layers,
            width=width,
            num_heads=num_heads,
            feedforward_width=feedforward_width,
            context_length=CONTEXT_LENGTH,
        )
        for width, num_layers, num_heads, feedforward_width in (
            (8, 2, 1, 22),
            (16, 2, 2, 44),
            (24, 2, 2, 64),
            (32, 3, 2, 86),
            (48, 3, 4, 128),
            (64, 4, 4, 172),
        )
    )
}
"""Width to the architecture of a rung, smallest first."""


@dataclass(frozen=True)
class LadderRun:
    """One model of the ladder and what came of it.

    Attributes:
        width: of the rung, which names it.
        num_parameters: all of the model's, its tied embedding once.
        num_tokens: that it was trained on, none of them twice.
        seed: of weights, of the choice of text and of its order.
        learning_rate: at its peak.
        validation_loss: in nats per token, on files that choose the learning rate.
        loss: in nats per token, on files that choose nothing.
        seconds: of the training, on one core or as many as there were.
    """

    width: int
    num_parameters: int
    num_tokens: int
    seed: int
    learning_rate: float
    validation_loss: float
    loss: float
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """Returns the run as plain data; `LadderRun(**it)` is equal."""
        return asdict(self)


@dataclass(frozen=True)
class ScalingLadder:
    """The recorded runs, by how each rung's number of tokens was chosen.

    Attributes:
        runs: name of a series to its runs: `"equal tokens"`, `"tokens per parameter"`,
            `"equal operations"`, and `"learning rates"`, which chose the rates of the others.
        provenance: device, versions, hashes of code and data, licence of the text.
    """

    runs: Mapping[str, tuple[LadderRun, ...]]
    provenance: Mapping[str, Any]


def load_scaling_ladder() -> ScalingLadder:
    """Loads the record of the scaling ladder.

    Returns:
        Runs and provenance.

    Limits:
        One corpus, one tokenizer of 512 tokens, contexts of 64 tokens: a law fitted to these
        losses holds for nothing else. `make ladder` records it anew.

    Example:
        >>> ladder = load_scaling_ladder()
        >>> sorted({run.width for run in ladder.runs["equal tokens"]})
        [8, 16, 24, 32, 48, 64]
    """
    stored = json.loads((_reference.SHIPPED / RECORD).read_text(encoding="utf-8"))
    runs = {
        series: tuple(LadderRun(**run) for run in found) for series, found in stored["runs"].items()
    }
    return ScalingLadder(runs, stored["provenance"])


def train_ladder_model(
    width: int, num_tokens: int, *, learning_rate: float, seed: int = 0
) -> LadderRun:
    """Trains one rung of the scaling ladder on part of the standard library's source.

    The learning rate warms up over a twentieth of the steps and falls along a cosine to a
    tenth of its peak, where the text ends.

    Args:
        width: of the rung: 8, 16, 24, 32, 48 or 64.
        num_tokens: to train on, at least 512; rounded down to whole batches of 512.
        learning_rate: at its peak.
        seed: of weights, of the choice of text and of its order.

    Returns:
        What came of it.

    Raises:
        InputError: for an unknown width, a rate that is not positive, or more tokens than
            the corpus has.

    Limits:
        The first call reads the corpus and trains the tokenizer, seconds; later ones reuse
        both. On another machine or backend the loss differs in its later digits.

    Example:
        >>> run = train_ladder_model(8, 5_000, learning_rate=0.01)
        >>> run.num_tokens, run.num_parameters
        (4608, 5704)
    """
    if width not in RUNGS:
        listed = ", ".join(map(str, RUNGS))
        raise InputError("width", f"must be one of {listed}", repr(width), "choose one of these")
    settings = RUNGS[width]
    check_integer("num_tokens", num_tokens, at_least=TOKENS_PER_STEP)
    check_real("learning_rate", learning_rate, at_least=1e-9)
    check_integer("seed", seed, at_least=0)
    num_steps = num_tokens // TOKENS_PER_STEP
    sides = _load_windows(settings.vocabulary_size)
    inputs, targets = sides["training"]
    num_windows = len(inputs)
    if num_steps * BATCH_SIZE > num_windows:
        raise InputError(
            "num_tokens",
            f"must be at most the corpus' {num_windows * CONTEXT_LENGTH:,}",
            f"{num_tokens:,}",
            "pass fewer: no text is seen twice",
        )
    drawn = np.random.default_rng(seed).permutation(num_windows)[: num_steps * BATCH_SIZE]

    def build() -> Any:
        return build_language_model(settings, learning_rate=_schedule(learning_rate, num_steps))

    run = train(
        build,
        (inputs[drawn], targets[drawn]),
        validation_data=sides["validation"],
        settings=TrainingSettings(
            num_epochs=1,
            batch_size=BATCH_SIZE,
            seed=seed,
            precision="float32",
            compile_mode="xla",
        ),
    )
    return LadderRun(
        width=width,
        num_parameters=run.model.count_params(),
        num_tokens=num_steps * TOKENS_PER_STEP,
        seed=seed,
        learning_rate=learning_rate,
        validation_loss=run.epochs[-1].validation["loss"],
        loss=evaluate(run.model, sides["test"])["loss"],
        seconds=len(drawn) / run.examples_per_second,
    )


def describe_ladder() -> dict[str, Any]:
    """What a recording depends on, as plain data."""
    corpus = load_standard_library("source")
    return {
        "data": corpus.to_dict(),
        "versions": list_versions(),
        "code_sha256": hash_code(CODE),
        "num_training_tokens": int(_load_windows(512)["training"][0].size),
    }


def _schedule(peak: float, num_steps: int) -> Any:
    import keras

    warmup_steps = max(1, round(WARMUP_SHARE * num_steps))
    return keras.optimizers.schedules.CosineDecay(
        peak / warmup_steps,
        max(1, num_steps - warmup_steps),
        warmup_target=peak,
        warmup_steps=warmup_steps,
        alpha=FINAL_SHARE,
    )


@lru_cache(maxsize=1)
def _load_windows(vocabulary_size: int) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    _, texts = split_corpus()
    tokenizer = train_tokenizer(texts["training"], vocabulary_size=vocabulary_size)
    return {
        side: pack_tokens(
            [encoding.ids for encoding in tokenizer.encode_batch(found)], length=CONTEXT_LENGTH
        )
        for side, found in texts.items()
    }
