"""Which run a checkpoint belongs to: the same call may go on from it, another may not."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from .._checks import InputError
from ._settings import Examples, TrainingSettings

# More epochs may be asked for later; they change nothing in those before.
_FREE = "num_epochs"


@dataclass(frozen=True)
class RunIdentity:
    """All that must be equal for a resumed run to equal one that was never stopped."""

    settings: dict[str, Any]
    backend: str
    model_shapes: list[str]
    training_data_sha256: str
    validation_data_sha256: str

    def to_dict(self) -> dict[str, Any]:
        """Returns it as plain data."""
        return asdict(self)

    def check_equal(self, record: Mapping[str, Any]) -> None:
        """Compares with what a checkpoint recorded.

        Raises:
            InputError: naming the first part that differs.
        """
        for name, value in self.to_dict().items():
            stored = record[name]
            if name == "settings":
                stored = {**stored, _FREE: value[_FREE]}
            if value != stored:
                raise _make_error(name, stored, value)


def describe_run(
    model: Any, settings: TrainingSettings, *, training_data: Examples, validation_data: Examples
) -> RunIdentity:
    """Describes a run whose settings are resolved and whose model is built."""
    import keras

    return RunIdentity(
        settings=settings.to_dict(),
        backend=keras.backend.backend(),
        model_shapes=[
            *(f"{variable.dtype}{list(variable.shape)}" for variable in model.variables),
            *getattr(model, "fixed_parts", ()),  # what decides the run and is no variable of it
        ],
        training_data_sha256=_hash_examples(training_data),
        validation_data_sha256=_hash_examples(validation_data),
    )


def settings_to_resume(record: Mapping[str, Any], asked: TrainingSettings) -> TrainingSettings:
    """Takes what was `"auto"` from the checkpoint, and refuses what differs from it.

    Raises:
        InputError: naming the setting that differs.
    """
    stored = record["settings"]
    for name, value in asked.to_dict().items():
        if name != _FREE and value not in ("auto", stored[name]):
            raise _make_error(name, stored[name], value)
    if asked.num_epochs < len(record["epochs"]):
        raise _make_error(_FREE, f"{len(record['epochs'])} epochs", asked.num_epochs)
    return replace(TrainingSettings(**stored), num_epochs=asked.num_epochs)


def _make_error(name: str, stored: Any, value: Any) -> InputError:
    return InputError(
        "checkpoints",
        f"must belong to this run, which has another {name.replace('_sha256', '')}",
        f"{_shorten(stored)} in the checkpoint, {_shorten(value)} in this call",
        "pass a directory of its own for every run, or the arguments that the run began with",
    )


def _shorten(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 60 else text[:57] + "…"


def _hash_examples(data: Examples) -> str:
    digest = hashlib.sha256()
    for part in data:
        digest.update(f"{part.dtype.str}{part.shape}".encode())
        digest.update(np.ascontiguousarray(part).data)
    return digest.hexdigest()
