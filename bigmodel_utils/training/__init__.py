"""One training call for one device: seeded, precision-aware, guarded, exact when resumed.

`train` owns the loop, so that what an industrial run needs holds on every backend: the
seed covers weights, order and dropout; the precision fits the device; a loss that is not
finite stops the run with the last finite weights; the best weights are chosen on
validation data, which is never the data a result is reported on; and a run that was killed
goes on as if it had not been.
"""

from ._accumulation import measure_accumulation_difference
from ._checkpoints import (
    Checkpoint,
    CheckpointError,
    CheckpointWarning,
    estimate_checkpoint_interval,
    list_checkpoints,
    read_newest_checkpoint,
    write_checkpoint,
)
from ._evaluate import count_nonfinite_weights, evaluate
from ._loop import train
from ._losses import measure_loss_fall
from ._repeat import measure_resume_difference, measure_seed_difference
from ._schedule import UpdateSchedule
from ._settings import (
    CheckpointSettings,
    Epoch,
    Examples,
    NonFiniteLossError,
    TrainingRun,
    TrainingSettings,
)

__all__ = [
    "Checkpoint",
    "CheckpointError",
    "CheckpointSettings",
    "CheckpointWarning",
    "Epoch",
    "Examples",
    "NonFiniteLossError",
    "TrainingRun",
    "TrainingSettings",
    "UpdateSchedule",
    "count_nonfinite_weights",
    "estimate_checkpoint_interval",
    "evaluate",
    "list_checkpoints",
    "measure_accumulation_difference",
    "measure_loss_fall",
    "measure_resume_difference",
    "measure_seed_difference",
    "read_newest_checkpoint",
    "train",
    "write_checkpoint",
]
