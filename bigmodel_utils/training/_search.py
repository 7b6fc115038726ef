"""Batch size and compile mode for this model on this device, found by trying."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ..data import shuffle_batches
from ..hardware import Device, recommend_precision
from ._prepare import build_seeded, make_variables
from ._settings import Examples, TrainingSettings
from ._steps import make_step_runner

NUM_ROUNDS = 3
STEPS_PER_ROUND = 4
SMALLEST_BATCH = 8
LARGEST_BATCH = 1024
# A search compiles every candidate; over fewer steps than these it cannot earn that back.
SEARCH_PAYS_FROM_STEPS = 500
NEAR_BEST = 0.9


def resolve_settings(
    build_model: Callable[[], Any], settings: TrainingSettings, *, data: Examples, device: Device
) -> TrainingSettings:
    """Replaces every `"auto"` in the settings by what suits the model and the device.

    Args:
        build_model: as in `train`.
        settings: the settings asked for.
        data: inputs and targets.
        device: device that trains.

    Returns:
        Settings with a precision, a batch size and a compile mode.

    Limits:
        What is found by timing can differ between two calls on a busy machine; a run that
        must repeat exactly states its batch size and compile mode.
    """
    if settings.precision == "auto":
        settings = replace(settings, precision=recommend_precision(device))
    if settings.batch_size == "auto":
        settings = replace(
            settings, batch_size=find_batch_size(build_model, data, settings=settings)
        )
    if settings.compile_mode == "auto":
        settings = replace(
            settings, compile_mode=find_compile_mode(build_model, data, settings=settings)
        )
    return settings


def find_batch_size(
    build_model: Callable[[], Any], data: Examples, *, settings: TrainingSettings
) -> int:
    """Finds the smallest power of two whose speed is within a tenth of the best.

    Larger batches are faster to a point, then only cost memory and optimizer steps. The
    search doubles the batch until the speed falls, the device runs out of memory, or the
    data end.

    Args:
        build_model: function without arguments that returns a compiled `keras.Model`.
        data: inputs and targets; their number of examples is the largest batch tried.
        settings: gives seed, precision (resolved) and compile mode.

    Returns:
        Examples per optimizer step.

    Limits:
        Knows speed only. A batch size changes what is learnt per example, too.

    Example:
        >>> from bigmodel_utils.models import build_image_classifier
        >>> x, y = np.zeros((16, 28, 28, 1), "float32"), np.eye(10)[[0] * 16]
        >>> settings = TrainingSettings(precision="float32")
        >>> find_batch_size(build_image_classifier, (x, y), settings=settings) in (8, 16)
        True
    """
    mode = "plain" if settings.compile_mode == "auto" else settings.compile_mode
    speeds: dict[int, float] = {}
    size = min(SMALLEST_BATCH, len(data[0]))
    while size <= min(LARGEST_BATCH, len(data[0])):
        try:
            seconds = _time_steps(build_model, data, replace(settings, batch_size=size), (mode,))
        except Exception as error:  # each backend has its own out-of-memory error
            if not speeds or not _is_out_of_memory(error):
                raise
            break
        speeds[size] = size / seconds[mode]
        if speeds[size] < NEAR_BEST * max(speeds.values()):
            break
        size *= 2
    best = max(speeds.values())
    return min(size for size, speed in speeds.items() if speed >= NEAR_BEST * best)


def find_compile_mode(
    build_model: Callable[[], Any], data: Examples, *, settings: TrainingSettings
) -> str:
    """Finds the faster compile mode for a model, `"plain"` or `"xla"`, by running both.

    Args:
        build_model: function without arguments that returns a compiled `keras.Model`.
        data: inputs and targets.
        settings: gives precision and batch size (resolved) and how long the run is: where a
            search cannot pay for its own compilation, it is `"plain"` at once.

    Returns:
        The mode; on JAX, which always compiles with XLA, `"xla"`.

    Limits:
        Times a few steps. Compilation itself, which XLA takes longer for, is not counted.

    Example:
        >>> from bigmodel_utils.models import build_image_classifier
        >>> x, y = np.zeros((8, 28, 28, 1), "float32"), np.eye(10)[[0] * 8]
        >>> short = TrainingSettings(num_epochs=1)
        >>> find_compile_mode(build_image_classifier, (x, y), settings=short) in ("plain", "xla")
        True
    """
    import keras

    if keras.backend.backend() == "jax":
        return "xla"
    num_steps = settings.num_epochs * -(-len(data[0]) // int(settings.batch_size))
    if num_steps < SEARCH_PAYS_FROM_STEPS:
        return "plain"
    seconds = _time_steps(build_model, data, settings, ("plain", "xla"))
    return min(seconds, key=lambda mode: seconds[mode])


def _time_steps(
    build_model: Callable[[], Any],
    data: Examples,
    settings: TrainingSettings,
    modes: Sequence[str],
) -> dict[str, float]:
    """Seconds per step by mode, the best of a few interleaved rounds."""
    size = int(settings.batch_size)
    part = data[0][: size * STEPS_PER_ROUND], data[1][: size * STEPS_PER_ROUND]
    batches = shuffle_batches(len(part[0]), batch_size=size, seed=0, epoch=0, keep_tail=False)
    runners = {}
    for mode in modes:
        model = build_seeded(build_model, settings)
        make_variables(model, part)
        runners[mode] = make_step_runner(model, part, compile_mode=mode)
        runners[mode](batches)
    seconds = dict.fromkeys(modes, np.inf)
    for _ in range(NUM_ROUNDS):
        for mode, run in runners.items():
            started = time.perf_counter()
            run(batches)
            seconds[mode] = min(seconds[mode], (time.perf_counter() - started) / len(batches))
    return seconds


def _is_out_of_memory(error: Exception) -> bool:
    text = f"{type(error).__name__} {error}".lower()
    return isinstance(error, MemoryError) or "resource_exhausted" in text or "oom" in text
