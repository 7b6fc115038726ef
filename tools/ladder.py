"""Records the scaling ladder anew: ``python -m tools.ladder``.

Five rungs and a larger one that no fit sees, three seeds each, in three series: equal tokens,
a fixed number of tokens per parameter, and equal operations. Before them, every rung tries
each learning rate at equal tokens; the validation loss, mean over the seeds, chooses. Runs
that an earlier call made are kept as long as code and data are the same, so a recording that
was stopped goes on.
"""

from __future__ import annotations

import itertools
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

import keras
from rich.progress import track

from bigmodel_utils.artifacts import _ladder, _reference
from bigmodel_utils.hardware import detect_devices

ROOT = Path(__file__).resolve().parent.parent
SEEDS = (0, 1, 2)
LEARNING_RATES = (1e-3, 3e-3, 1e-2, 3e-2)
EQUAL_TOKENS = 2**19
TOKENS_PER_PARAMETER = 20
EQUAL_OPERATIONS_WIDTH = 32  # its budget is that of this rung at 20 tokens per parameter
UNFINISHED = ROOT / "_build" / "artifacts" / "scaling_ladder.json"


def main() -> int:
    """Records what is missing; returns 0."""
    provenance = {**_ladder.describe_ladder(), "device": detect_devices()[-1].name}
    runs = _read_unfinished(provenance)
    sweep = list(itertools.product(_ladder.RUNGS, [EQUAL_TOKENS], LEARNING_RATES, SEEDS))
    for task in track(sweep, "learning rates", disable=not sys.stderr.isatty()):
        _record(runs, provenance, "learning rates", task)
    rates = {width: _choose_rate(runs["learning rates"], width) for width in _ladder.RUNGS}
    sizes = {run["width"]: run["num_parameters"] for run in runs["learning rates"]}
    tasks = [
        (series, (width, num_tokens, rates[width], seed))
        for seed in SEEDS
        for series, width, num_tokens in plan(sizes, provenance["num_training_tokens"])
    ]
    for series, task in track(tasks, "ladder", disable=not sys.stderr.isatty()):
        _record(runs, provenance, series, task)
    target = _reference.SHIPPED / _ladder.RECORD
    target.parent.mkdir(exist_ok=True)
    target.write_bytes(UNFINISHED.read_bytes())
    return 0


def plan(sizes: dict[int, int], most_tokens: int) -> Iterator[tuple[str, int, int]]:
    """Series, width and number of tokens of every rung that the text is long enough for."""
    budget = TOKENS_PER_PARAMETER * sizes[EQUAL_OPERATIONS_WIDTH] ** 2
    for width, size in sizes.items():
        yield "equal tokens", width, EQUAL_TOKENS
        yield "tokens per parameter", width, min(TOKENS_PER_PARAMETER * size, most_tokens)
        if budget // size <= most_tokens:
            yield "equal operations", width, budget // size


def _record(
    runs: dict[str, list[dict[str, Any]]],
    provenance: dict[str, Any],
    series: str,
    task: tuple[int, int, float, int],
) -> None:
    width, num_tokens, learning_rate, seed = task
    wanted = {
        "width": width,
        "num_tokens": num_tokens // _ladder.TOKENS_PER_STEP * _ladder.TOKENS_PER_STEP,
        "learning_rate": learning_rate,
        "seed": seed,
    }
    if any(wanted.items() <= run.items() for run in runs.setdefault(series, [])):
        return
    made = [run for found in runs.values() for run in found if wanted.items() <= run.items()]
    run = made[0] if made else _train(width, num_tokens, learning_rate, seed)
    runs[series].append(run)
    UNFINISHED.parent.mkdir(parents=True, exist_ok=True)
    beside = UNFINISHED.with_suffix(".part")
    beside.write_text(
        json.dumps({"provenance": provenance, "runs": runs}, indent=1) + "\n", encoding="utf-8"
    )
    beside.replace(UNFINISHED)


def _train(width: int, num_tokens: int, learning_rate: float, seed: int) -> dict[str, Any]:
    keras.backend.clear_session()  # or every model of the recording stays in memory
    run = _ladder.train_ladder_model(width, num_tokens, learning_rate=learning_rate, seed=seed)
    print(
        f"width {width}, {run.num_tokens:,} tokens, rate {learning_rate}, seed {seed}: "
        f"loss {run.loss:.4f} in {run.seconds:.0f} s",
        flush=True,
    )
    return run.to_dict()


def _choose_rate(sweep: Sequence[dict[str, Any]], width: int) -> float:
    losses = {
        rate: mean(
            run["validation_loss"]
            for run in sweep
            if (run["width"], run["learning_rate"]) == (width, rate)
        )
        for rate in LEARNING_RATES
    }
    return min(losses, key=losses.__getitem__)


def _read_unfinished(provenance: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    if not UNFINISHED.is_file():
        return {}
    stored = json.loads(UNFINISHED.read_text(encoding="utf-8"))
    return stored["runs"] if stored["provenance"] == provenance else {}


if __name__ == "__main__":
    sys.exit(main())
