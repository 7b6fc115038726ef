"""Measures whether a classifier keeps its prediction when an object moves.

Put your model into `load_model` and images of your service into `load_images`: they need no
labels, but room around the object, so that moving it loses nothing.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from bigmodel_utils import data, evaluation, models, training

WAYS = {"right": (0, 1), "left": (0, -1), "down": (1, 0), "up": (-1, 0)}

Predict = Callable[[Any], np.ndarray]
"""Function from images to class probabilities `(num_examples, num_classes)`."""


def load_images() -> tuple[data.Dataset, data.Dataset]:
    """Splits the digits into images that train and images that are moved; load yours here."""
    digits = data.load_digits()
    sides = data.split_by_hash(digits.keys, {"training": 0.5, "moved": 0.5})
    return digits.take(sides["training"]), digits.take(sides["moved"])


def load_model(training_set: data.Dataset, *, num_epochs: int) -> Predict:
    """Trains a small convolutional network; load yours here instead."""
    examples = (training_set.x, np.eye(training_set.num_classes, dtype=np.float32)[training_set.y])
    run = training.train(
        models.build_small_image_classifier,
        examples,
        validation_data=examples,
        settings=training.TrainingSettings(num_epochs=num_epochs),
    )
    return lambda x: np.asarray(run.model(x))


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    """Prints the share of predictions kept for each move and returns the report."""
    parser = argparse.ArgumentParser(description="Move images; count predictions that stay.")
    parser.add_argument("--pixels", type=int, default=2, help="farthest move (%(default)s)")
    parser.add_argument("--at-least", type=float, default=0.9, help="lower end that passes")
    parser.add_argument("--epochs", type=int, default=6)
    options = parser.parse_args(arguments)

    training_set, moved = load_images()
    report = evaluation.measure_consistency(
        load_model(training_set, num_epochs=options.epochs),
        moved.x,
        changes={
            f"{n} {name}": partial(data.shift_images, down=n * down, right=n * right)
            for n in range(1, options.pixels + 1)
            for name, (down, right) in WAYS.items()
        },
    )
    holds = report.kept[report.worst].low >= options.at_least
    print(report)
    print(f"worst: {report.worst}; {'holds' if holds else 'BREAKS'} the bound")
    return {**report.to_dict(), "holds": holds}


if __name__ == "__main__":
    main()
