"""Asks a classifier that runs without an error whether it is right all the same.

Put your images into `load_sets`, your network into `build_model`, and the lines that make
your report into `predict`. The script ends with status 1 if a clause is broken.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from bigmodel_utils import data, evaluation, models, training
from bigmodel_utils.standards import LEVELS, get_clause

SHARES = {"training": 0.6, "validation": 0.2, "test": 0.2}


def load_sets() -> dict[str, data.Dataset]:
    """Splits the images by a hash of their content: equal images stay on one side."""
    digits = data.load_digits()
    sides = data.split_by_hash(digits.keys, SHARES)
    return {name: digits.take(indices) for name, indices in sides.items()}


def build_model() -> Any:
    """Builds and compiles the network; it gives probabilities."""
    return models.build_small_image_classifier()


def compute_loss(target: Any, given: Any) -> Any:
    """The loss that `build_model` compiles with, from scores before the softmax."""
    return keras.losses.categorical_crossentropy(
        keras.ops.softmax(target), keras.ops.softmax(given)
    )


def predict(model: Any, x: Any) -> np.ndarray:
    """The probabilities that the report is made from."""
    return np.asarray(model(x, training=False))


def measure_clauses(
    model: Any, sets: dict[str, data.Dataset], *, settings: training.TrainingSettings
) -> dict[str, float]:
    """Measures what each clause bounds."""
    test = sets["test"]
    fit, choose, report = (make_examples(sets[name]) for name in SHARES)
    few = fit[0][:64], fit[1][:64]
    short = training.TrainingSettings(1, 16, seed=settings.seed, precision="float32")
    scores = 3 * np.random.default_rng(settings.seed).normal(size=(20, test.num_classes))

    def evaluate(batch_size: int) -> float:
        results = model.evaluate(*report, batch_size=batch_size, verbose=0, return_dict=True)
        return float(results["accuracy"])

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.keras"
        model.save(path)
        release = models.measure_release_difference(
            path, test.x, predictions=predict(model, test.x)
        )
    return {
        "EVAL-001": data.count_overlap(sets["validation"].keys, test.keys),
        "EVAL-003": models.measure_batch_dependence(model, test.x),
        "EVAL-007": evaluation.measure_batch_size_spread(evaluate, [32, len(test) - 1]),
        "TRAIN-002": training.measure_resume_difference(
            build_model, few, validation_data=choose, settings=short, num_steps=2
        ),
        "TRAIN-003": training.measure_loss_fall(
            lambda target, given: keras.ops.mean(compute_loss(target, given)), scores
        ),
        "REPRO-001": training.measure_seed_difference(
            build_model, few, validation_data=choose, settings=short
        ),
        "REPRO-003": release,
    }


def make_examples(images: data.Dataset) -> training.Examples:
    """Returns inputs `(num_examples, 28, 28, 1)` and one-hot targets."""
    return images.x, np.eye(images.num_classes, dtype=np.float32)[images.y]


def main(arguments: Sequence[str] | None = None) -> list[str]:
    """Trains, measures, prints clause by clause, and returns the clauses that are broken."""
    parser = argparse.ArgumentParser(description="Find failures that raise no error.")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--level", choices=LEVELS, default="production")
    options = parser.parse_args(arguments)

    sets = load_sets()
    settings = training.TrainingSettings(options.epochs, precision="float32")
    run = training.train(
        build_model,
        make_examples(sets["training"]),
        validation_data=make_examples(sets["validation"]),
        settings=settings,
    )
    broken = []
    for clause_id, value in measure_clauses(run.model, sets, settings=settings).items():
        clause = get_clause(clause_id)
        bound = clause.thresholds[options.level]
        holds = value <= bound
        broken += [] if holds else [clause_id]
        verdict = "holds " if holds else "BROKEN"
        print(f"{clause_id:<9}  {verdict}  {clause.metric} {value:.2g}, at most {bound:g}")
    return broken


if __name__ == "__main__":
    sys.exit(1 if main() else 0)
