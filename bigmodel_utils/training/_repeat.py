"""Does a run repeat, and does it survive being killed: two trainings, compared by weight."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from typing import Any

import numpy as np

from .._checks import InputError, check_integer
from ._checkpoints import list_checkpoints
from ._loop import train
from ._settings import CheckpointSettings, Examples, TrainingRun, TrainingSettings


def measure_seed_difference(
    build_model: Callable[[], Any],
    training_data: Examples,
    *,
    validation_data: Examples,
    settings: TrainingSettings | None = None,
) -> float:
    """Trains twice with the same settings and returns the largest difference of a weight.

    Args:
        build_model: as in `train`.
        training_data: as in `train`.
        validation_data: as in `train`.
        settings: as in `train`; one or two epochs suffice.

    Returns:
        Largest absolute difference over all weights; 0 if the run repeats bit for bit.

    Raises:
        InputError: as in `train`.

    Limits:
        Shows repeatability on this machine only. Another number of threads, device or
        library version may give other weights.

    Example:
        >>> from bigmodel_utils.models import build_image_classifier
        >>> x, y = np.zeros((4, 28, 28, 1), "float32"), np.eye(10)[:4]
        >>> measure_seed_difference(build_image_classifier, (x, y), validation_data=(x, y),
        ...                         settings=TrainingSettings(num_epochs=1))
        0.0
    """
    first = train(build_model, training_data, validation_data=validation_data, settings=settings)
    # What was found by timing is part of the settings now: the second run must not search.
    second = train(
        build_model, training_data, validation_data=validation_data, settings=first.settings
    )
    return _compare_weights(first, second)


def measure_resume_difference(
    build_model: Callable[[], Any],
    training_data: Examples,
    *,
    validation_data: Examples,
    settings: TrainingSettings | None = None,
    num_steps: int = 10,
) -> float:
    """Trains once in one piece and once from a checkpoint, and compares the final weights.

    Args:
        build_model: as in `train`.
        training_data: as in `train`.
        validation_data: as in `train`.
        settings: as in `train`; one or two epochs suffice.
        num_steps: optimizer steps after which the second run begins anew; fewer than the run
            has, best amid an epoch.

    Returns:
        Largest absolute difference over all weights; 0 if nothing was forgotten.

    Raises:
        InputError: as in `train`, or if the run ends before `num_steps`.

    Limits:
        The second run goes on in this process, with a model built anew. That a killed process
        leaves a whole checkpoint behind is for the file system to show.

    Example:
        >>> from bigmodel_utils.models import build_image_classifier
        >>> x, y = np.zeros((8, 28, 28, 1), "float32"), np.eye(10)[:8]
        >>> measure_resume_difference(build_image_classifier, (x, y), validation_data=(x, y),
        ...                           settings=TrainingSettings(1, 2), num_steps=3)
        0.0
    """
    check_integer("num_steps", num_steps, at_least=1)

    def run(settings: TrainingSettings | None, folder: str) -> TrainingRun:
        return train(
            build_model,
            training_data,
            validation_data=validation_data,
            settings=settings,
            checkpoints=CheckpointSettings(folder, num_steps, num_kept=2**31),
        )

    with tempfile.TemporaryDirectory() as folder:
        whole = run(settings, folder)
        *later, _ = list_checkpoints(folder)
        if not later:
            raise InputError(
                "num_steps",
                "must be fewer than the run has",
                num_steps,
                "pass fewer steps, or more examples or epochs",
            )
        for path in later:
            path.unlink()
        return _compare_weights(whole, run(whole.settings, folder))


def _compare_weights(first: TrainingRun, second: TrainingRun) -> float:
    pairs = zip(first.model.get_weights(), second.model.get_weights(), strict=True)
    return max(float(np.abs(one - two).max()) for one, two in pairs)
