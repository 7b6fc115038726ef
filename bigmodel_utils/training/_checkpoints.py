"""Checkpoints that hold all of a run, are whole or absent, and prove it by their name.

A checkpoint is one `.npz` file named after its step and the SHA-256 of its bytes. It is
written beside, flushed to the disk, read back, and only then given its name, so a process
killed at any moment leaves the checkpoints before it as they were.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import os
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .._checks import InputError, check_real
from ._settings import CheckpointSettings

FORMAT = 1
_NAME = re.compile(r"step-(\d{9})-([0-9a-f]{64})\.npz")
_PARTIAL = ".partial"


class CheckpointError(OSError):
    """A checkpoint could not be written; those before it are untouched."""


class CheckpointWarning(UserWarning):
    """A checkpoint is damaged and an older one is used in its place."""


@dataclass(frozen=True)
class Checkpoint:
    """The state of a run after `step` optimizer steps.

    Attributes:
        step: optimizer steps taken since the run began.
        arrays: every variable by name.
        record: what is not an array: settings, history, fingerprints. Plain JSON.
    """

    step: int
    arrays: Mapping[str, np.ndarray]
    record: Mapping[str, Any]


def estimate_checkpoint_interval(
    checkpoint_seconds: float, *, seconds_between_failures: float
) -> float:
    r"""Time to train between two checkpoints that loses least to writing and to failures.

    A checkpoint every :math:`\tau` seconds costs the share :math:`\delta / \tau` of the time; a
    failure every :math:`M` seconds on average loses half an interval, the share
    :math:`\tau / 2M`. Their sum is least at :math:`\tau = \sqrt{2 \delta M}`.

    Args:
        checkpoint_seconds: time that writing one checkpoint holds training up.
        seconds_between_failures: mean time between two failures of the whole job. For
            independent devices it is that of one device over their number.

    Returns:
        Seconds of training between two checkpoints.

    Raises:
        InputError: if a time is negative, or the failures come at no interval.

    Limits:
        A first-order result, for checkpoints much shorter than the time between failures.
        The time to notice a failure and to start again is lost in any case.

    Example:
        >>> estimate_checkpoint_interval(60, seconds_between_failures=10_800) / 60
        18.973665961010276

    References:
        Young, A first order approximation to the optimum checkpoint interval, Communications
        of the ACM 17 (1974).
    """
    cost = check_real("checkpoint_seconds", checkpoint_seconds, at_least=0)
    mean = check_real("seconds_between_failures", seconds_between_failures, at_least=1e-9)
    return math.sqrt(2 * cost * mean)


def list_checkpoints(directory: str | Path) -> list[Path]:
    """Checkpoint files of a run, newest first, whole or damaged.

    Args:
        directory: the run's folder.

    Returns:
        Paths, ordered by their step; empty if there are none or no such folder.

    Example:
        >>> list_checkpoints("no-such-folder")
        []
    """
    folder = Path(directory)
    if not folder.is_dir():
        return []
    return sorted((path for path in folder.iterdir() if _NAME.fullmatch(path.name)), reverse=True)


def write_checkpoint(checkpoint: Checkpoint, settings: CheckpointSettings) -> Path:
    """Writes a checkpoint, then deletes those older than the `num_kept` newest.

    Args:
        checkpoint: the state; its numbers must be finite.
        settings: where it goes and how many stay.

    Returns:
        Path of the new file.

    Raises:
        InputError: if a number in it is not finite; nothing is written.
        CheckpointError: if the disk is full, takes no file, or returns other bytes than
            were written; older checkpoints stay as they are.

    Limits:
        Survives a killed process, and a power cut if the file system honours `fsync`. The
        whole state passes through memory once more.
    """
    for name, array in checkpoint.arrays.items():
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise InputError(
                name, "must be finite to be promoted", "NaN or infinity", "keep the one before"
            )
    payload = _encode(checkpoint)
    name = f"step-{checkpoint.step:09d}-{hashlib.sha256(payload).hexdigest()}.npz"
    folder = Path(settings.directory)
    target, partial = folder / name, folder / (name + _PARTIAL)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as file:
            file.write(payload)
            file.flush()
            os.fsync(file.fileno())
        if not _is_whole(partial, name):
            raise OSError("the file reads back with other bytes than were written")
        partial.replace(target)
        _flush_folder(folder)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise CheckpointError(
            f"`checkpoints` must be writable in {folder}. Received: {error}. Fix: free disk space "
            "or pass another directory, then run the same call again; it goes on from the "
            "newest checkpoint there"
        ) from error
    for old in list_checkpoints(folder)[settings.num_kept :]:
        old.unlink()
    return target


def read_newest_checkpoint(directory: str | Path) -> Checkpoint | None:
    """Reads the newest checkpoint that is whole; warns of every damaged one it passes.

    Leftovers of a write that was killed are deleted.

    Args:
        directory: the run's folder.

    Returns:
        The checkpoint, or `None` if the folder holds none.

    Raises:
        InputError: if there are checkpoints and all are damaged.

    Example:
        >>> read_newest_checkpoint("no-such-folder") is None
        True
    """
    paths = list_checkpoints(directory)
    for leftover in Path(directory).glob(f"step-*{_PARTIAL}"):
        leftover.unlink()
    for path in paths:
        if _is_whole(path, path.name):
            return _decode(path)
        warnings.warn(
            f"{path.name} is damaged: its bytes have another SHA-256 than its name says. "
            "Going on from the checkpoint before it.",
            CheckpointWarning,
            stacklevel=2,
        )
    if paths:
        raise InputError(
            "directory",
            "must hold at least one whole checkpoint",
            f"{len(paths)} damaged ones in {directory}",
            "restore one from a backup, or pass an empty directory to begin afresh",
        )
    return None


def _encode(checkpoint: Checkpoint) -> bytes:
    record = json.dumps({**checkpoint.record, "format": FORMAT, "step": checkpoint.step})
    buffer = io.BytesIO()
    np.savez(buffer, record=np.frombuffer(record.encode(), np.uint8), **checkpoint.arrays)  # type: ignore[arg-type]
    return buffer.getvalue()


def _decode(path: Path) -> Checkpoint:
    with np.load(path, allow_pickle=False) as stored:
        arrays = {name: stored[name] for name in stored.files}
    record = json.loads(arrays.pop("record").tobytes())
    if record["format"] != FORMAT:
        raise InputError(
            "directory",
            f"must hold checkpoints of format {FORMAT}",
            f"format {record['format']} in {path.name}",
            "finish the run with the version that began it",
        )
    return Checkpoint(record["step"], arrays, record)


def _is_whole(path: Path, name: str) -> bool:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return f"-{digest}.npz" in name


def _flush_folder(folder: Path) -> None:
    """Makes the new name itself survive a power cut; not every system can."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
