"""Exports a classifier with integers, and takes the fastest file whose loss is allowed.

Put your network into `build_model` and your examples into `load_sets`. Run it on the kind of
machine that will serve the model: another one has another winner.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from bigmodel_utils import benchmark, compression, data, evaluation, models

Run = Callable[[np.ndarray], np.ndarray]

SHARES = {"training": 0.6, "test": 0.4}
WAYS: dict[str, tuple[Callable[..., Any], tuple[str, ...]]] = {
    ".tflite": (compression.export_litert, ("float32", "int8", "static_int8")),
    ".onnx": (compression.export_onnx, ("float32", "int8", "static_int8")),
}


def load_sets() -> dict[str, data.Dataset]:
    """Splits the images by a hash of their content: equal images stay on one side."""
    digits = data.load_digits()
    sides = data.split_by_hash(digits.keys, SHARES)
    return {name: digits.take(indices) for name, indices in sides.items()}


def build_model() -> Any:
    """Builds and compiles the network that is exported."""
    return models.build_small_image_classifier()


def is_right(run: Run, images: data.Dataset) -> np.ndarray:
    """Whether a file is right about each image, asked one by one as it will be."""
    scores = np.concatenate([run(images.x[row : row + 1]) for row in range(len(images.x))])
    return np.asarray(scores.argmax(axis=1) == images.y)


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    """Prints accuracy, time and size of each file and the one to take, and returns them."""
    parser = argparse.ArgumentParser(description="Export with integers; judge each file.")
    parser.add_argument("folder", nargs="?", default="exported", help="(%(default)s)")
    parser.add_argument("--allowed", type=float, default=0.01, help="loss of accuracy")
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--rounds", type=int, default=100)
    options = parser.parse_args(arguments)

    fit, test = load_sets().values()
    model = build_model()
    targets = np.eye(fit.num_classes, dtype=np.float32)[fit.y]
    model.fit(fit.x, targets, batch_size=32, epochs=options.epochs, verbose=0)
    expected = model.predict(test.x, verbose=0).argmax(axis=1) == test.y

    runs, rows = {}, {}
    for suffix, (export, precisions) in WAYS.items():
        for precision in precisions:
            file = Path(options.folder) / f"{precision}{suffix}"
            # The first examples fix the ranges: they must look like what will be asked.
            report = export(model, file, examples=fit.x[:200], precision=precision)
            runs[file.name] = compression.load_runner(file)
            change = evaluation.compare_accuracy(is_right(runs[file.name], test), expected)
            rows[file.name] = {"change": change.difference, "bytes": report.file_bytes}
    latencies = benchmark.measure_latency(
        {name: partial(run, test.x[:1]) for name, run in runs.items()},
        num_warmup=10,
        num_rounds=options.rounds,
    )
    for name, row in rows.items():
        row["seconds"] = latencies[name].median
        print(
            f"{name:<20} {1e6 * row['seconds']:8.0f} microseconds"
            f"{row['bytes'] / 1000:9.0f} kB   accuracy {row['change']:+.2%}"
        )
    # The lower end of the interval is what may be lost.
    allowed = [name for name, row in rows.items() if row["change"].low >= -options.allowed]
    fastest = min(allowed, key=lambda name: rows[name]["seconds"], default=None)
    print(f"take {fastest}" if fastest else "no file is allowed")
    return {"files": rows, "fastest": fastest}


if __name__ == "__main__":
    main()
