"""What decides a run and what it leaves behind, as plain frozen data."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from .._checks import InputError, check_array, check_choice, check_integer, check_same_length

PRECISIONS = ("auto", "float32", "mixed_bfloat16", "mixed_float16")
COMPILE_MODES = ("auto", "plain", "xla")

Examples = tuple[np.ndarray, np.ndarray]
"""Inputs `(num_examples, …)` and targets `(num_examples, …)`."""


@dataclass(frozen=True)
class TrainingSettings:
    """What decides a run, apart from model and data; equal settings give equal runs.

    Attributes:
        num_epochs: passes over the training data.
        batch_size: examples per optimizer step, or `"auto"` for the smallest power of two
            whose speed on this device is within a tenth of the best.
        seed: seed of weights, order of examples and dropout.
        precision: `"auto"` for what suits the device, or a Keras dtype policy.
        monitor: validation metric that chooses the best epoch; `"loss"` is better when
            lower, every other metric when higher. Equal epochs: the earlier one.
        compile_mode: `"plain"` for the backend's graph, `"xla"` for its XLA compiler,
            `"auto"` for the faster of the two on this model and device. JAX knows `"xla"`
            only.
    """

    num_epochs: int = 10
    batch_size: int | str = 32
    seed: int = 0
    precision: str = "auto"
    monitor: str = "loss"
    compile_mode: str = "auto"

    def __post_init__(self) -> None:
        check_integer("num_epochs", self.num_epochs, at_least=1)
        if self.batch_size != "auto":
            check_integer("batch_size", self.batch_size, at_least=1)
        check_integer("seed", self.seed, at_least=0)
        check_choice("precision", self.precision, PRECISIONS)
        check_choice("compile_mode", self.compile_mode, COMPILE_MODES)

    def to_dict(self) -> dict[str, Any]:
        """Returns the settings as a plain dictionary."""
        return asdict(self)


@dataclass(frozen=True)
class CheckpointSettings:
    """Where a run keeps its checkpoints, how often it writes one, and how many it keeps.

    Attributes:
        directory: folder of this run alone; made if it is not there.
        num_steps_between: optimizer steps from one checkpoint to the next. One is also
            written at the end of the run.
        num_kept: newest checkpoints that stay on disk.
    """

    directory: str | Path
    num_steps_between: int = 100
    num_kept: int = 3

    def __post_init__(self) -> None:
        if not isinstance(self.directory, str | Path) or not str(self.directory):
            raise InputError(
                "directory", "must be a path", repr(self.directory), "pass the run's own folder"
            )
        check_integer("num_steps_between", self.num_steps_between, at_least=1)
        check_integer("num_kept", self.num_kept, at_least=1)


@dataclass(frozen=True)
class Epoch:
    """What one epoch left behind: metrics by name, on both sets, and its speed."""

    training: dict[str, float]
    validation: dict[str, float]
    examples_per_second: float


@dataclass(frozen=True)
class TrainingRun:
    """A finished run. `model` holds the weights of `best_epoch`.

    Attributes:
        model: the trained `keras.Model`.
        settings: the settings as used; nothing in them is `"auto"` any more.
        device: name of the device.
        epochs: one record per epoch, those before a resume included.
        best_epoch: number of the epoch that `monitor` chose, from 0.
        resumed_from_step: optimizer step of the checkpoint that the run went on from, or
            `None` if it began afresh.
    """

    model: Any = field(repr=False)
    settings: TrainingSettings
    device: str
    epochs: tuple[Epoch, ...] = field(repr=False)
    best_epoch: int
    resumed_from_step: int | None = None

    @property
    def precision(self) -> str:
        """Dtype policy that the model was built under."""
        return self.settings.precision

    @property
    def examples_per_second(self) -> float:
        """Median speed, without the first epoch, which holds tracing and compilation."""
        later = self.epochs[1:] or self.epochs
        return float(np.median([epoch.examples_per_second for epoch in later]))

    def to_dict(self) -> dict[str, Any]:
        """Returns everything but the model, ready for JSON."""
        return {
            "settings": self.settings.to_dict(),
            "device": self.device,
            "best_epoch": self.best_epoch,
            "resumed_from_step": self.resumed_from_step,
            "examples_per_second": self.examples_per_second,
            "epochs": [asdict(epoch) for epoch in self.epochs],
        }


class NonFiniteLossError(ArithmeticError):
    """The loss was NaN or infinite; the model has been set back to finite weights.

    Attributes:
        model: the model with the newest weights known to be finite: those of the last
            checkpoint or epoch, or its initial weights.
        epoch: epoch in which the loss stopped being finite, from 0.
        batch: indices of the training examples of that step, shape `(batch,)`.
    """

    def __init__(self, model: Any, epoch: int, batch: np.ndarray) -> None:
        rows = ", ".join(str(index) for index in batch[:5])
        super().__init__(
            f"`loss` must be finite. Received: NaN or infinity in epoch {epoch}, in the batch of "
            f"training examples {rows}{', …' if len(batch) > 5 else ''}. Fix: look at these "
            "examples, lower the learning rate, or train in float32. The model holds the last "
            "finite weights."
        )
        self.model = model
        self.epoch = epoch
        self.batch = batch


def check_examples(name: str, data: Examples) -> Examples:
    """Returns inputs and targets as finite arrays with one row per example.

    Raises:
        InputError: if they are no pair, empty, not finite, or of different lengths.

    Example:
        >>> check_examples("data", ([[1.0], [2.0]], [0, 1]))[0].shape
        (2, 1)
    """
    if not isinstance(data, tuple | list) or len(data) != 2:
        raise InputError(name, "must be a pair (x, y)", type(data).__name__, "pass (x, y)")
    x, y = check_array(f"{name}[0]", data[0]), check_array(f"{name}[1]", data[1])
    check_same_length(**{f"{name}[0]": x, f"{name}[1]": y})
    return x, y
