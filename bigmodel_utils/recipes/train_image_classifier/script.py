"""Trains an image classifier and reports an accuracy that holds.

Three sets of images, three duties: the first fits the weights, the second chooses the epoch,
and the third, looked at once, gives the number to report. Put your images into `load_sets`.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import numpy as np

from bigmodel_utils import benchmark, data, models, training

SHARES = {"training": 0.6, "validation": 0.2, "test": 0.2}


def load_sets() -> dict[str, data.Dataset]:
    """Splits the images by a hash of their content: equal images stay on one side."""
    digits = data.load_digits()
    sides = data.split_by_hash(digits.keys, SHARES)
    return {name: digits.take(indices) for name, indices in sides.items()}


def make_examples(images: data.Dataset) -> training.Examples:
    """Returns inputs `(num_examples, 28, 28, 1)` and one-hot targets."""
    return images.x, np.eye(images.num_classes, dtype=np.float32)[images.y]


def main(arguments: Sequence[str] | None = None) -> benchmark.Interval:
    """Trains, prints what was found, and returns the accuracy on the test set."""
    parser = argparse.ArgumentParser(description="Train an image classifier on digits.")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)

    sets = load_sets()
    run = training.train(
        models.build_image_classifier,
        make_examples(sets["training"]),
        validation_data=make_examples(sets["validation"]),
        settings=training.TrainingSettings(
            num_epochs=options.epochs, seed=options.seed, monitor="accuracy"
        ),
    )
    predicted = run.model.predict(sets["test"].x, verbose=0).argmax(axis=1)
    num_correct = int((predicted == sets["test"].y).sum())
    accuracy = benchmark.estimate_proportion_interval(num_correct, len(predicted))
    overlap = data.count_overlap(sets["validation"].keys, sets["test"].keys)
    print(f"device             {run.device}, {run.precision}")
    print(f"best epoch         {run.best_epoch + 1} of {options.epochs}")
    print(f"accuracy           {accuracy:.1%} on {len(predicted)} test images")
    print(f"selection overlap  {overlap} images")
    return accuracy


if __name__ == "__main__":
    main()
