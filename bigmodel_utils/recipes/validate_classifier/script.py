"""Validates a classifier beyond loss and accuracy.

Put your model into `load_model`, the one it must beat into `load_baseline`, and test images
that fitted and chose nothing into `load_sets`.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from bigmodel_utils import benchmark, data, evaluation, models, training

SHARES = {"training": 0.6, "validation": 0.2, "test": 0.2}
# The worst that the service is expected to see.
SEVERITIES = (0, 1, 2)

Predict = Callable[[Any], np.ndarray]
"""Function from images to class probabilities `(num_examples, num_classes)`."""


def load_sets() -> dict[str, data.Dataset]:
    """Splits the images by a hash of their content: equal images stay on one side."""
    digits = data.load_digits()
    sides = data.split_by_hash(digits.keys, SHARES)
    return {name: digits.take(indices) for name, indices in sides.items()}


def load_model(sets: dict[str, data.Dataset], *, num_epochs: int) -> Predict:
    """Trains the book's classifier; load yours here instead."""
    fit, choose = (
        (sets[name].x, np.eye(sets[name].num_classes, dtype=np.float32)[sets[name].y])
        for name in ("training", "validation")
    )
    run = training.train(
        lambda: models.build_image_classifier("none"),
        fit,
        validation_data=choose,
        settings=training.TrainingSettings(num_epochs=num_epochs),
    )
    return lambda x: np.asarray(run.model(x))


def load_baseline(sets: dict[str, data.Dataset]) -> Predict:
    """The nearest training image decides; put what is in service here instead."""
    known = sets["training"]
    rows = known.x.reshape(len(known), -1)

    def predict(x: Any) -> np.ndarray:
        distances = (rows**2).sum(axis=1) - 2 * np.asarray(x).reshape(len(x), -1) @ rows.T
        return np.asarray(np.eye(known.num_classes)[known.y[distances.argmin(axis=1)]])

    return predict


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    """Prints what was found and returns all reports as plain dictionaries."""
    parser = argparse.ArgumentParser(description="Validate a classifier of digits.")
    parser.add_argument("--epochs", type=int, default=6)
    options = parser.parse_args(arguments)

    sets = load_sets()
    test = sets["test"]
    predict = load_model(sets, num_epochs=options.epochs)
    probabilities = predict(test.x)
    correct = probabilities.argmax(axis=1) == test.y
    baseline = load_baseline(sets)(test.x).argmax(axis=1) == test.y

    accuracy = benchmark.estimate_proportion_interval(int(correct.sum()), len(test))
    slices = evaluation.measure_slices(
        correct, {name: test.y == number for number, name in enumerate(test.class_names)}
    )
    calibration = evaluation.measure_calibration(probabilities, test.y)
    robustness = evaluation.measure_robustness(
        predict,
        (test.x, test.y),
        corrupt=data.corrupt_images,
        kinds=data.CORRUPTIONS,
        severities=SEVERITIES,
    )
    comparison = evaluation.compare_accuracy(correct, baseline)
    worst = evaluation.find_worst_errors(probabilities, test.y, num_errors=5)

    print(f"accuracy     {accuracy:.1%} on {len(test)} images")
    print(f"worst class  {slices.worst}: {slices.slices[slices.worst]:.1%}")
    chance = f"{calibration.chance_error:.1%} by chance alone"
    print(f"calibration  error {calibration.expected_error:.1%}, {chance}")
    print(f"robustness   {robustness.retained:.0%} of the accuracy retained")
    print(f"baseline     {comparison.difference:+.1%}, p = {comparison.p_value:.2g}")
    print(f"look at      test images {', '.join(map(str, worst))}")
    return {
        "accuracy": accuracy.to_dict(),
        "slices": slices.to_dict(),
        "calibration": calibration.to_dict(),
        "robustness": robustness.to_dict(),
        "comparison": comparison.to_dict(),
        "worst_errors": worst.tolist(),
    }


if __name__ == "__main__":
    main()
