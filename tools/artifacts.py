"""Trains the reference models anew: ``python -m tools.artifacts [--seeds N]``.

The language model of the first seed is shipped; those of the other seeds say how far chance
alone moves its loss, and the shipped loss must lie between theirs. Up to an hour per seed on
one core, and half an hour for the student, which is shipped too. A run that was stopped goes on.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from bigmodel_utils.artifacts import _reference, load_reference_model, train_reference_model
from bigmodel_utils.training import CheckpointSettings

ROOT = Path(__file__).resolve().parent.parent
SHIPPED_NAME = "language_model"
STUDENT_NAME = "language_model_student"


def main(arguments: Sequence[str] | None = None) -> int:
    """Trains, stores, compares; returns 0 if the shipped model lies inside the seeds' band."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3, help="trainings of the language model")
    parser.add_argument("--keep", action="store_true", help="train the other seeds only")
    parser.add_argument("--student", action="store_true", help="train the student only")
    options = parser.parse_args(arguments)
    if options.student:
        _write_student()
        return 0
    if options.seeds < 3:
        parser.error("--seeds must be at least 3: the shipped model lies between two others")
    folder = _reference.SHIPPED / SHIPPED_NAME
    if not options.keep:
        _reference.write_reference_model(
            SHIPPED_NAME, folder, dtype="float16", checkpoints=_keep_checkpoints(0)
        )
    path = folder / _reference.PROVENANCE
    provenance = json.loads(path.read_text(encoding="utf-8"))
    others = {}
    for seed in range(1, options.seeds):
        trained = train_reference_model(
            SHIPPED_NAME, seed=seed, checkpoints=_keep_checkpoints(seed)
        )
        others[str(seed)] = trained.measure(trained.model)
        path.write_text(json.dumps({**provenance, "other_seeds": others}, indent=1) + "\n")
    _write_student()
    for name in ("digits_teacher", "digits_student"):
        reference = load_reference_model(name)
        print(f"{name}: {reference.origin}, test {reference.provenance['test']}")
    return _compare(provenance["test_as_stored"]["loss"], [o["loss"] for o in others.values()])


def _write_student() -> None:
    _reference.write_reference_model(
        STUDENT_NAME,
        _reference.SHIPPED / STUDENT_NAME,
        dtype="float16",
        checkpoints=_keep_checkpoints(0, name=STUDENT_NAME),
    )


def _keep_checkpoints(seed: int, *, name: str = SHIPPED_NAME) -> CheckpointSettings:
    return CheckpointSettings(ROOT / "_build" / "artifacts" / f"{name}-seed-{seed}")


def _compare(shipped: float, others: list[float]) -> int:
    low, high = min(others), max(others)
    print(f"{SHIPPED_NAME}: test loss {shipped:.4f} as shipped, {low:.4f} to {high:.4f} elsewhere")
    return 0 if low <= shipped <= high else 1


if __name__ == "__main__":
    sys.exit(main())
