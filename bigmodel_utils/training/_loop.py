"""The loop: what `train` promises, kept in one place."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

import numpy as np

from .._checks import check_choice
from ..data import shuffle_batches
from ..hardware import detect_devices
from ._checkpoints import Checkpoint, read_newest_checkpoint, write_checkpoint
from ._evaluate import EVALUATION_BATCH_SIZE, count_nonfinite_weights, evaluate
from ._identity import describe_run, settings_to_resume
from ._prepare import build_seeded, make_variables
from ._search import resolve_settings
from ._settings import (
    CheckpointSettings,
    Epoch,
    Examples,
    NonFiniteLossError,
    TrainingRun,
    TrainingSettings,
    check_examples,
)
from ._steps import MAX_STEPS_PER_CALL, make_step_runner

OnEpochEnd = Callable[[int, Any], None]
"""Takes the number of the epoch that ended, from 0, and the model."""

Report = Callable[[int, float], None]
"""Takes the optimizer steps done and the newest training loss."""


def train(
    build_model: Callable[[], Any],
    training_data: Examples,
    *,
    validation_data: Examples,
    settings: TrainingSettings | None = None,
    checkpoints: CheckpointSettings | None = None,
    on_epoch_end: OnEpochEnd | None = None,
) -> TrainingRun:
    """Trains a compiled Keras model on one device and keeps its best epoch.

    With `checkpoints`, the same call goes on where a killed process stopped, and its final
    weights are those of a run that was never stopped, bit for bit.

    Args:
        build_model: function without arguments that returns a compiled `keras.Model`; it is
            called after seeding and under the chosen precision.
        training_data: inputs and targets, each with one row per example.
        validation_data: the same; chooses the best epoch. Report results on neither.
        settings: see `TrainingSettings`; the defaults if left out.
        checkpoints: see `CheckpointSettings`; nothing is written if left out.
        on_epoch_end: called with the epoch number (from 0) and the model, for predictions
            or logging. It must not change the model, and is not called again for epochs
            that ended before a resume.

    Returns:
        The run, its history and the model with its best weights.

    Raises:
        InputError: for empty, misaligned or non-finite data, an unknown monitor, or
            checkpoints of another run.
        NonFiniteLossError: if the loss or a weight is no longer finite. No checkpoint holds
            such a state.
        CheckpointError: if a checkpoint cannot be written.

    Limits:
        One device, data in its memory. It sets the global seeds of Python, NumPy and the
        backend. Equal seeds give equal weights on one machine, not across machines.

    Example:
        >>> import keras
        >>> def build():
        ...     model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
        ...     model.compile("sgd", "mse")
        ...     return model
        >>> x, y = np.eye(2, dtype="float32"), np.ones((2, 1), "float32")
        >>> run = train(build, (x, y), validation_data=(x, y))
        >>> len(run.epochs)
        10
    """
    settings = settings or TrainingSettings()
    data = check_examples("training_data", training_data)
    held_out = check_examples("validation_data", validation_data)
    device = detect_devices()[-1]  # accelerators follow the CPU
    stored = read_newest_checkpoint(checkpoints.directory) if checkpoints else None
    if stored is None:
        settings = resolve_settings(build_model, settings, data=data, device=device)
    else:
        settings = settings_to_resume(stored.record, settings)
    model = build_seeded(build_model, settings)
    first = held_out[0][:EVALUATION_BATCH_SIZE], held_out[1][:EVALUATION_BATCH_SIZE]
    check_choice("monitor", settings.monitor, make_variables(model, first))
    loop = _Loop(model, data, held_out, settings)
    if checkpoints is not None:
        loop.keep_checkpoints(checkpoints, stored)
    loop.run(on_epoch_end)
    model.set_weights(loop.best_weights)
    resumed = None if stored is None else stored.step
    return TrainingRun(model, settings, device.name, tuple(loop.epochs), loop.best_epoch, resumed)


class _Loop:
    """A run in progress. All that decides its future is in `capture` and `restore`."""

    def __init__(
        self, model: Any, data: Examples, held_out: Examples, settings: TrainingSettings
    ) -> None:
        self.model, self.data, self.held_out, self.settings = model, data, held_out, settings
        self.step = 0
        self.epochs: list[Epoch] = []
        self.best_epoch = 0
        self.best_weights = self.safe_weights = model.get_weights()
        self.checkpoints: CheckpointSettings | None = None
        self.report: Report = _report_nothing
        self.run_steps = make_step_runner(model, data, compile_mode=settings.compile_mode)

    def keep_checkpoints(self, checkpoints: CheckpointSettings, stored: Checkpoint | None) -> None:
        """Writes checkpoints from now on, and goes on from the one that was stored."""
        self.checkpoints = checkpoints
        self.identity = describe_run(
            self.model, self.settings, training_data=self.data, validation_data=self.held_out
        )
        if stored is not None:
            self.identity.check_equal(stored.record)
            self.restore(stored)

    def run(self, on_epoch_end: OnEpochEnd | None) -> None:
        """Trains to the end of the last epoch."""
        num_epochs = self.settings.num_epochs
        steps_per_epoch = -(-len(self.data[0]) // int(self.settings.batch_size))
        with _progress(num_epochs * steps_per_epoch) as self.report:
            for number in range(len(self.epochs), num_epochs):
                self.run_epoch(number)
                if on_epoch_end is not None:
                    on_epoch_end(number, self.model)
                self.save_if_due(is_last=number == num_epochs - 1)

    def run_epoch(self, number: int) -> None:
        """Trains what is left of an epoch, in stretches that end where a checkpoint is due."""
        settings, num_examples = self.settings, len(self.data[0])
        batches = shuffle_batches(
            num_examples, batch_size=int(settings.batch_size), seed=settings.seed, epoch=number
        )
        position = self.step - number * len(batches)
        if position == 0:
            self.model.reset_metrics()
        started, examples = time.perf_counter(), 0
        while position < len(batches):
            stop = min(len(batches), position + self.steps_to_checkpoint())
            stretch = batches[position:stop]
            losses = self.run_steps(stretch)
            self.require_finite(losses, stretch, number)
            examples += sum(map(len, stretch))
            self.step += len(stretch)
            self.report(self.step, float(losses[-1]))
            position = stop
            if position < len(batches):
                self.save_if_due()
        seconds = time.perf_counter() - started
        training = {name: float(value) for name, value in self.model.get_metrics_result().items()}
        self.finish_epoch(training, examples / seconds)

    def finish_epoch(self, training: dict[str, float], examples_per_second: float) -> None:
        """Evaluates, and keeps the weights if they are the best so far."""
        epoch = Epoch(training, evaluate(self.model, self.held_out), examples_per_second)
        self.epochs.append(epoch)
        self.safe_weights = self.model.get_weights()
        number = len(self.epochs) - 1
        if number == 0 or _is_better(epoch, self.epochs[self.best_epoch], self.settings.monitor):
            self.best_epoch, self.best_weights = number, self.safe_weights

    def require_finite(self, losses: np.ndarray, batches: list[np.ndarray], epoch: int) -> None:
        """Gives the last finite weights back if a step's loss or its update was not finite."""
        finite = np.isfinite(losses)
        # A step's loss is that before its update: what the last update did, only weights show.
        if finite.all() and not count_nonfinite_weights(self.model):
            return
        batch = batches[int(np.argmin(finite))] if not finite.all() else batches[-1]
        self.model.set_weights(self.safe_weights)
        raise NonFiniteLossError(self.model, epoch, batch) from None

    def steps_to_checkpoint(self) -> int:
        """Steps until the next checkpoint is due; stretches stay short enough to guard."""
        if self.checkpoints is None:
            return MAX_STEPS_PER_CALL
        between = self.checkpoints.num_steps_between
        return min(MAX_STEPS_PER_CALL, between - self.step % between)

    def save_if_due(self, *, is_last: bool = False) -> None:
        """Writes a checkpoint every so many steps and at the end."""
        if self.checkpoints is None:
            return
        if is_last or self.step % self.checkpoints.num_steps_between == 0:
            write_checkpoint(self.capture(), self.checkpoints)
            self.safe_weights = self.model.get_weights()

    def capture(self) -> Checkpoint:
        """All that decides the rest of the run."""
        import keras

        arrays = {
            f"{group}_{index:04d}": keras.ops.convert_to_numpy(variable)
            for group, variables in self.list_variables().items()
            for index, variable in enumerate(variables)
        }
        arrays |= {f"best_{index:04d}": array for index, array in enumerate(self.best_weights)}
        history = {"epochs": [asdict(e) for e in self.epochs], "best_epoch": self.best_epoch}
        return Checkpoint(self.step, arrays, {**self.identity.to_dict(), **history})

    def restore(self, checkpoint: Checkpoint) -> None:
        """Sets everything back to a checkpoint."""
        for group, variables in self.list_variables().items():
            for index, variable in enumerate(variables):
                variable.assign(checkpoint.arrays[f"{group}_{index:04d}"])
        self.step = checkpoint.step
        self.epochs = [Epoch(**epoch) for epoch in checkpoint.record["epochs"]]
        self.best_epoch = checkpoint.record["best_epoch"]
        names = sorted(name for name in checkpoint.arrays if name.startswith("best_"))
        self.best_weights = [checkpoint.arrays[name] for name in names]
        self.safe_weights = self.model.get_weights()

    def list_variables(self) -> dict[str, list[Any]]:
        """Every variable of the run: weights and seeds, the optimizer's, the epoch's metrics."""
        return {
            "model": self.model.variables,
            "optimizer": self.model.optimizer.variables,
            "metric": self.model.metrics_variables,
        }


def _is_better(epoch: Epoch, best: Epoch, monitor: str) -> bool:
    sign = -1 if monitor == "loss" else 1
    return sign * epoch.validation[monitor] > sign * best.validation[monitor]


def _report_nothing(_step: int, _loss: float) -> None:
    pass


@contextmanager
def _progress(num_steps: int) -> Iterator[Report]:
    """A bar on a terminal; nothing in a notebook, whose stored output it would clutter."""
    if not sys.stderr.isatty():
        yield _report_nothing
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
    from rich.progress import TimeRemainingColumn as Remaining

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), Remaining())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("training", total=num_steps)

        def report(step: int, loss: float) -> None:
            bar.update(task, completed=step, description=f"training loss {loss:.4f}")

        yield report
