"""Parts of a model that stay as they were trained, while the rest goes on learning."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from .._checks import InputError, check_integer
from ..training import CheckpointSettings, Examples, TrainingRun, TrainingSettings, train
from ._models import Filters, check_model, compile_alike, copy_model, matches_filters


def freeze_layers(model: Any, *, num_trainable: int | None = None, filters: Filters = None) -> Any:
    """Makes an equal model of which chosen layers no longer learn.

    A frozen BatchNormalization also stops following its batches: it runs in inference mode.

    Args:
        model: a functional or sequential `keras.Model`, not quantized.
        num_trainable: how many layers with weights stay trainable, counted from the output.
        filters: instead, patterns of the names of layers to freeze, or a function of a layer.

    Returns:
        A new model with the same weights, compiled as the first.

    Raises:
        InputError: if not exactly one of the two is given, or nothing would be frozen, or
            nothing could learn.

    Limits:
        Fewer numbers are trained; the model is as large and as slow to run as before.

    Example:
        >>> import keras
        >>> dense = keras.layers.Dense
        >>> model = keras.Sequential([keras.Input((2,)), dense(3), dense(1)])
        >>> frozen = freeze_layers(model, num_trainable=1)
        >>> [layer.trainable for layer in frozen.layers]
        [False, True]
    """
    check_model(model)
    if (num_trainable is None) == (filters is None):
        raise InputError(
            "num_trainable",
            "or `filters` must be given, and not both",
            f"{num_trainable} and {filters}",
            "pass one of them",
        )
    with_weights = [layer for layer in model.layers if layer.weights]
    if num_trainable is not None:
        count = check_integer(
            "num_trainable", num_trainable, at_least=1, at_most=len(with_weights) - 1
        )
        frozen = [layer.name for layer in with_weights[:-count]]
    else:
        frozen = [layer.name for layer in with_weights if matches_filters(layer, filters)]
    copy = copy_model(model, is_compiled=False)
    for name in frozen:
        copy.get_layer(name).trainable = False
    if not frozen or not copy.trainable_weights:
        raise InputError(
            "filters",
            "must freeze a layer and leave one that can learn",
            f"{len(frozen)} of {len(with_weights)} layers with weights frozen",
            "look at the names in `model.summary()`",
        )
    compile_alike(copy, model)
    return copy


def unfreeze_gradually(
    build_model: Callable[[], Any],
    training_data: Examples,
    *,
    validation_data: Examples,
    stages: tuple[int | None, ...],
    settings: TrainingSettings | None = None,
    checkpoints: CheckpointSettings | None = None,
) -> tuple[TrainingRun, ...]:
    """Trains the last layers first, then more of them: one training run for each stage.

    Args:
        build_model: function without arguments that returns the compiled, trained model.
        training_data: inputs and targets.
        validation_data: the same; chooses the best epoch of each stage.
        stages: for each stage how many layers with weights are trained, counted from the
            output; `None` for all.
        settings: of each stage, see `TrainingSettings`.
        checkpoints: if given, each stage keeps its own below `directory`; the same call goes
            on where a killed process stopped.

    Returns:
        The run of each stage; the last one holds the model.

    Raises:
        InputError: if there is no stage, one has fewer layers than the one before it, or as
            `train` does.

    Example:
        >>> import keras, numpy as np
        >>> def build():
        ...     dense = keras.layers.Dense
        ...     model = keras.Sequential([keras.Input((2,)), dense(3), dense(1)])
        ...     model.compile("sgd", "mse")
        ...     return model
        >>> data = np.eye(2, dtype="float32"), np.ones((2, 1), "float32")
        >>> runs = unfreeze_gradually(build, data, validation_data=data, stages=(1, None))
        >>> [len(run.model.trainable_weights) for run in runs]
        [2, 4]

    References:
        Howard and Ruder, Universal Language Model Fine-tuning for Text Classification (2018),
        section 3.3.
    """
    sizes = [float("inf") if stage is None else stage for stage in stages]
    if not sizes or sizes != sorted(sizes):
        raise InputError(
            "stages", "must train ever more layers", stages, "pass for example (1, 2, None)"
        )
    runs: list[TrainingRun] = []
    for number, stage in enumerate(stages, start=1):

        def build(stage: int | None = stage) -> Any:
            model = build_model()
            if runs:
                model.set_weights(runs[-1].model.get_weights())
            return model if stage is None else freeze_layers(model, num_trainable=stage)

        own = checkpoints and replace(
            checkpoints, directory=Path(checkpoints.directory) / f"stage_{number}"
        )
        runs.append(
            train(
                build,
                training_data,
                validation_data=validation_data,
                settings=settings,
                checkpoints=own,
            )
        )
    return tuple(runs)
