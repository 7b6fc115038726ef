"""The reference image classifiers: the article's network, and one a sixteenth of its size."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from ..data import load_digits, split_by_hash
from ..models import build_image_classifier, build_small_image_classifier
from ..training import CheckpointSettings, Examples, TrainingSettings, evaluate, train
from ._provenance import TrainedModel

SHARES = {"training": 0.6, "validation": 0.2, "test": 0.2}
NUM_EPOCHS = 15

build_teacher = partial(build_image_classifier, "none")
build_student = build_small_image_classifier


def load_digit_sides() -> dict[str, Examples]:
    """Splits the digits by a hash of their pixels, for every page alike.

    Returns:
        `"training"`, `"validation"` and `"test"` to images `(num_images, 28, 28, 1)` and
        one-hot labels `(num_images, 10)`.

    Example:
        >>> sum(len(images) for images, _ in load_digit_sides().values())
        1797
    """
    digits = load_digits()
    labels = np.eye(digits.num_classes, dtype=np.float32)[digits.y]
    sides = split_by_hash(digits.keys, SHARES)
    return {side: (digits.x[rows], labels[rows]) for side, rows in sides.items()}


def train_classifier(
    build: Callable[[], Any], seed: int, *, checkpoints: CheckpointSettings | None
) -> TrainedModel:
    """Trains a classifier of digits from a seed, in seconds."""
    sides = load_digit_sides()
    settings = TrainingSettings(
        NUM_EPOCHS, seed=seed, precision="float32", monitor="loss", compile_mode="plain"
    )
    run = train(
        build,
        sides["training"],
        validation_data=sides["validation"],
        settings=settings,
        checkpoints=checkpoints,
    )
    digits = load_digits()
    data = {**digits.to_dict(), "num_images_by_side": {s: len(x) for s, (x, _) in sides.items()}}
    report = {"data": data, "training": run.to_dict()}
    return TrainedModel(run.model, None, report, lambda model: evaluate(model, sides["test"]))
