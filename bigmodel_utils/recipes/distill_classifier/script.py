"""Distills a classifier and compares with the same student on the labels alone.

Put your images into `load_sets` and your networks into `build`. An image without a label has
a row of zeros for one.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

import numpy as np

from bigmodel_utils import compression, data, evaluation, training

SHARES = {"training": 0.5, "validation": 0.2, "test": 0.3}


def load_sets() -> dict[str, data.Dataset]:
    """Splits the images by a hash of their content: equal images stay on one side."""
    digits = data.load_digits()
    sides = data.split_by_hash(digits.keys, SHARES)
    return {name: digits.take(indices) for name, indices in sides.items()}


def make_examples(images: data.Dataset) -> training.Examples:
    """Returns inputs `(num_examples, 28, 28, 1)` and one-hot targets."""
    return images.x, np.eye(images.num_classes, dtype=np.float32)[images.y]


def build(width: int) -> Any:
    """Builds a network of two convolutions that gives logits."""
    import keras
    from keras import layers

    model = keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            layers.AveragePooling2D(2),
            layers.Conv2D(width, 3, strides=2, padding="same", activation="relu"),
            layers.Conv2D(2 * width, 3, padding="same", activation="relu"),
            layers.MaxPooling2D(2),
            layers.Flatten(),
            layers.Dense(4 * width, activation="relu"),
            layers.Dense(10),
        ]
    )
    loss = keras.losses.CategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(0.005), loss, metrics=["accuracy"])
    return model


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    """Prints whether the teacher may teach and what it was worth, and returns both."""
    parser = argparse.ArgumentParser(description="Distill a classifier of digits.")
    parser.add_argument("--labeled", type=int, default=60, help="labels of the student")
    parser.add_argument("--seeds", type=int, default=5, help="runs of each (%(default)s)")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--temperature", type=float, default=2.0)
    options = parser.parse_args(arguments)

    sets = load_sets()
    x, labels = make_examples(sets["training"])
    held_out, unseen = make_examples(sets["validation"]), sets["test"]

    def fit(make: Any, examples: training.Examples, num_epochs: int, seed: int) -> Any:
        settings = training.TrainingSettings(num_epochs, 32, seed=seed, monitor="accuracy")
        return training.train(make, examples, validation_data=held_out, settings=settings).model

    def is_right(model: Any) -> np.ndarray:
        chosen = model.predict(unseen.x, verbose=0).argmax(axis=1)
        return np.asarray(chosen == unseen.y)

    teacher = fit(lambda: build(16), (x, labels), options.epochs, 0)
    # Fewer examples, as many steps: the teacher shall be what makes the difference.
    few_epochs = options.epochs * len(x) // options.labeled
    scores: dict[str, list[float]] = {"labels": [], "teacher": []}
    for seed in range(options.seeds):
        few = np.random.default_rng(seed).permutation(len(x))[: options.labeled]
        partly = np.zeros_like(labels)
        partly[few] = labels[few]
        alone = fit(lambda: build(4), (x[few], labels[few]), few_epochs, seed)
        distiller = fit(
            lambda: compression.build_distiller(teacher, build(4), temperature=options.temperature),
            (x, partly),
            options.epochs,
            seed,
        )
        for name, model in (("labels", alone), ("teacher", distiller.copy_student())):
            scores[name].append(float(is_right(model).mean()))
        if seed == 0:
            worth = evaluation.compare_accuracy(is_right(teacher), is_right(alone))
    budget = alone.count_params()
    report = evaluation.compare_over_seeds(
        scores["teacher"], scores["labels"], budgets=(budget, budget)
    )
    print(f"teacher over the student on its labels: {worth.difference:.1%}")
    print(f"the student with the teacher over that without: {report}")
    return {"scores": scores, "lead": report.lead, "teacher_lead": worth.difference}


if __name__ == "__main__":
    main()
