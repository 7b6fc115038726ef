"""The reference student: the language model cut to less than half, taught by the whole one.

One block of the four is left out, and of the others three heads in five and half of the
feed-forward units. What is left trains for as many steps as the teacher did, half by the text
and half by the teacher, so that more training is not what makes it good.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..compression import build_distiller, prune_branches, prune_units
from ..training import CheckpointSettings, TrainingSettings, evaluate, train
from . import _language
from ._provenance import TrainedModel

LEFT_OUT_BLOCK = 2
NUM_HEADS_CUT = 3
FEEDFORWARD_WIDTH = 216
PEAK_LEARNING_RATE = 2e-3
LABEL_SHARE = 0.5
TEMPERATURE = 1.0


def build_student(teacher: Any | None = None) -> Any:
    """Cuts a language model down; without one, cuts an untrained model of the same shape."""
    model = _language.build() if teacher is None else teacher
    tokens = np.zeros((1, _language.SETTINGS.context_length), dtype=np.int32)
    block = f"block_{LEFT_OUT_BLOCK}"
    residuals = (f"{block}_attention_residual", f"{block}_feedforward_residual")
    shallow = prune_branches(model, tokens, residuals=residuals).model
    settings = _language.SETTINGS
    shares = {
        f"block_{index}_{part}": share
        for index in set(range(settings.num_layers)) - {LEFT_OUT_BLOCK}
        for part, share in (
            ("attention_qkv", NUM_HEADS_CUT / settings.num_heads),
            ("feedforward_gate", 1 - FEEDFORWARD_WIDTH / settings.feedforward_width),
        )
    }
    return prune_units(shallow, tokens, share=shares).model


def train_student(
    seed: int, *, checkpoints: CheckpointSettings | None, load_teacher: Callable[[], Any]
) -> TrainedModel:
    """Cuts and trains the student from a seed; half an hour on one core.

    Args:
        seed: seed of the order of examples.
        checkpoints: as in `training.train`.
        load_teacher: returns the reference language model with its tokenizer and provenance.

    Returns:
        The student, its history, and how to measure it.
    """
    import keras

    teacher = load_teacher()
    windows = _language.load_corpus_windows(teacher.tokenizer)
    num_steps = _language.NUM_EPOCHS * -(-len(windows["training"][0]) // _language.BATCH_SIZE)
    compiled = build_student(teacher.model)
    config = compiled.get_compile_config()
    schedule = keras.optimizers.schedules.CosineDecay(
        PEAK_LEARNING_RATE / _language.WARMUP_STEPS,
        num_steps - _language.WARMUP_STEPS,
        warmup_target=PEAK_LEARNING_RATE,
        warmup_steps=_language.WARMUP_STEPS,
        alpha=0.01,
    )
    optimizer = config["optimizer"]["config"]
    optimizer["learning_rate"] = keras.optimizers.schedules.serialize(schedule)
    compiled.compile_from_config(config)
    run = train(
        lambda: build_distiller(
            teacher.model, compiled, temperature=TEMPERATURE, label_share=LABEL_SHARE
        ),
        windows["training"],
        validation_data=windows["validation"],
        settings=TrainingSettings(
            _language.NUM_EPOCHS,
            _language.BATCH_SIZE,
            seed=seed,
            precision="float32",
            compile_mode="xla",
        ),
        checkpoints=checkpoints,
    )
    report = {
        "data": teacher.provenance["data"],
        "teacher_weights_sha256": teacher.provenance["weights_sha256"],
        "training": run.to_dict(),
    }
    student = run.model.copy_student()
    return TrainedModel(student, teacher.tokenizer, report, lambda m: evaluate(m, windows["test"]))
