"""Time of one epoch of `training.train` over that of the loops a user would otherwise pick.

The peers are Keras' own ``model.fit(x, y)`` and, where PyTorch is installed (extra `bench`), a
plain hand-written loop: same shapes, batch size, precision, loss reporting and validation
after the epoch. All are past tracing and compilation; rounds are interleaved. Below 1 is
faster than the peer. The time of a checkpoint is given over that of a hundred steps.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import platform
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np

from bigmodel_utils import benchmark, data, hardware, models, training
from bigmodel_utils.training import _loop
from bigmodel_utils.training._prepare import make_variables

RESULTS = Path(__file__).parent / "results"
BACKEND = keras.backend.backend()
MODES = ("plain", "xla") if BACKEND == "tensorflow" else ("xla",)
HAS_TORCH = importlib.util.find_spec("torch") is not None
LANGUAGE_MODEL = models.LanguageModelSettings(
    vocabulary_size=2048,
    num_layers=4,
    width=160,
    num_heads=5,
    feedforward_width=432,
    context_length=128,
)


def main() -> None:
    """Measures both models and writes one JSON for this backend and device."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    rounds = parser.parse_args().rounds
    device = hardware.detect_devices()[-1]
    report: dict[str, Any] = {
        "device": device.name,
        "backend": BACKEND,
        "keras": keras.__version__,
        "python": platform.python_version(),
        "rounds": rounds,
        "unit": "time per epoch over the peer's: median [95 % interval over rounds]",
    }
    print(f"time of one epoch over the peer's, {BACKEND} on {device.name}, {rounds} rounds")
    for name, measure in (("cnn", measure_cnn), ("language_model", measure_language_model)):
        report[name] = measure(rounds)
    RESULTS.mkdir(exist_ok=True)
    slug = "".join(c if c.isalnum() else "-" for c in device.name.lower()).strip("-")
    path = RESULTS / f"training-{BACKEND}-{slug}.json"
    path.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    print(f"written to benchmarks/results/{path.name}")


def measure_cnn(rounds: int) -> dict[str, Any]:
    """The article's network on 640 digits in batches of 32."""
    digits = data.load_digits()
    targets = np.eye(10, dtype="float32")[digits.y]
    sides = (digits.x[:640], targets[:640]), (digits.x[640:800], targets[640:800])
    peers = {}
    if HAS_TORCH:
        import _torch_peer

        peers["torch"] = _torch_peer.make_image_epoch(*sides)
    return measure_epochs(lambda: models.build_image_classifier("none"), sides, peers, rounds)


def measure_language_model(rounds: int) -> dict[str, Any]:
    """A transformer of 1.5 million parameters on 16 batches of 16 windows of 128 tokens."""
    tokens = np.random.default_rng(0).integers(0, 2048, (288, 129)).astype("int32")
    inputs, targets = tokens[:, :-1], tokens[:, 1:]
    sides = (inputs[:256], targets[:256]), (inputs[256:], targets[256:])
    peers = {}
    if HAS_TORCH:
        import _torch_peer

        peers["torch"] = _torch_peer.make_language_epoch(*sides, LANGUAGE_MODEL)
    return measure_epochs(
        lambda: models.build_language_model(LANGUAGE_MODEL), sides, peers, rounds, batch_size=16
    )


def measure_epochs(
    build: Callable[[], Any],
    sides: tuple[training.Examples, training.Examples],
    peers: dict[str, Callable[..., float]],
    rounds: int,
    *,
    batch_size: int = 32,
) -> dict[str, Any]:
    """Times an epoch of every loop and prints the ratios."""
    fit, held_out = sides
    batches = data.shuffle_batches(len(fit[0]), batch_size=batch_size, seed=0, epoch=0)
    loops = {f"train {mode}": make_loop(build, sides, mode, batch_size) for mode in MODES}
    theirs = build()
    runs: dict[str, Callable[[], Any]] = {
        name: lambda loop=loop: run_epoch(loop) for name, loop in loops.items()
    }
    runs["fit"] = lambda: (
        theirs.fit(*fit, batch_size=batch_size, validation_data=held_out, verbose=0).epoch
    )
    runs |= {name: lambda run=run: run(batches) for name, run in peers.items()}
    measured = benchmark.measure_latency(runs, num_warmup=2, num_rounds=rounds)
    found: dict[str, Any] = {"seconds": {n: latency.to_dict() for n, latency in measured.items()}}
    for peer in ("fit", *peers):
        for name in runs:
            if name not in (peer, *peers):
                ratio = benchmark.compare_latency(measured[name], measured[peer])
                found[f"{name} / {peer}"] = ratio.to_dict()
                print(f"  {name:<12} / {peer:<6} {ratio:.2f}")
    found["checkpoint"] = measure_checkpoint(loops[f"train {MODES[0]}"], len(batches))
    return found


def make_loop(build: Callable[[], Any], sides: Any, mode: str, batch_size: int) -> _loop._Loop:
    """A run in progress, with its model built and its functions still to be traced."""
    fit, held_out = sides
    settings = training.TrainingSettings(
        num_epochs=1, batch_size=batch_size, precision="float32", compile_mode=mode
    )
    model = build()
    make_variables(model, held_out)
    return _loop._Loop(model, fit, held_out, settings)


def run_epoch(loop: _loop._Loop) -> float:
    """Trains and validates one epoch more."""
    loop.run_epoch(len(loop.epochs))
    return loop.epochs[-1].training["loss"]


def measure_checkpoint(loop: _loop._Loop, steps_per_epoch: int) -> dict[str, Any]:
    """Time of writing one checkpoint over that of a hundred steps."""
    with tempfile.TemporaryDirectory() as folder:
        checkpoints = training.CheckpointSettings(folder)
        loop.keep_checkpoints(checkpoints, None)
        loop.checkpoints = None  # written by hand, to be timed alone
        measured = benchmark.measure_latency(
            {
                "checkpoint": lambda: training.write_checkpoint(loop.capture(), checkpoints),
                "epoch": lambda: run_epoch(loop),
            },
            num_warmup=1,
            num_rounds=7,
        )
        size = training.list_checkpoints(folder)[0].stat().st_size
    ratio = benchmark.compare_latency(measured["checkpoint"], measured["epoch"])
    factor = steps_per_epoch / 100
    share = benchmark.Interval(ratio.value * factor, ratio.low * factor, ratio.high * factor)
    print(f"  a checkpoint every 100 steps costs {share:.1%} of their time")
    return {"share_of_100_steps": share.to_dict(), "bytes": size}


if __name__ == "__main__":
    main()
