"""Explains one prediction with LIME, with as many draws as a stable order of features needs.

Put your table into `load_sets` and your network into `build_model`.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

import numpy as np

from bigmodel_utils import data, explanation

SHARES = {"training": 0.7, "test": 0.3}
MOST_DRAWS = 64_000


def load_sets() -> tuple[data.Dataset, data.Dataset]:
    """Splits the rows by a hash of their content: equal rows stay on one side."""
    table = data.load_breast_cancer()
    sides = data.split_by_hash(table.keys, SHARES)
    training, test = (table.take(indices) for indices in sides.values())
    return training, test


def build_model(num_features: int, num_classes: int) -> Any:
    """Builds and compiles a network that gives probabilities."""
    import keras

    model = keras.Sequential(
        [
            keras.Input((num_features,)),
            keras.layers.Dense(32, "relu"),
            keras.layers.Dense(num_classes, "softmax"),
        ]
    )
    model.compile(keras.optimizers.Adam(0.005), "sparse_categorical_crossentropy")
    return model


def explain(
    model: Any, row: np.ndarray, *, background: np.ndarray, wanted: float
) -> explanation.Explanation:
    """Doubles the draws until the order of features is as stable as wanted."""
    num_samples = 1_000
    target = int(explanation.build_predict_fn(model)(row)[0].argmax())
    while True:
        found = explanation.explain_with_lime_tabular(
            model, row, background=background, num_samples=num_samples, targets=target
        )
        if found.diagnostics["stability"].min() >= wanted or num_samples >= MOST_DRAWS:
            return found
        num_samples *= 2


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    """Prints the coefficients of one prediction with their errors, and returns them."""
    import keras

    parser = argparse.ArgumentParser(description="Explain a classifier of a table.")
    parser.add_argument("--row", type=int, default=0, help="row of the test set")
    parser.add_argument("--stability", type=float, default=0.7, help="(%(default)s)")
    parser.add_argument("--epochs", type=int, default=12)
    options = parser.parse_args(arguments)

    keras.utils.set_random_seed(0)
    training, test = load_sets()
    middle, spread = training.x.mean(axis=0), training.x.std(axis=0)
    known, unseen = (((part.x - middle) / spread).astype(np.float32) for part in (training, test))
    model = build_model(known.shape[1], training.num_classes)
    model.fit(known, training.y, batch_size=32, epochs=options.epochs, verbose=0)

    row = unseen[options.row : options.row + 1]
    found = explain(model, row, background=known, wanted=options.stability)
    values, errors = found.values[0, :, 0], found.standard_errors
    stability = float(found.diagnostics["stability"][0, 0])
    reached = "" if stability >= options.stability else ", less than was asked for"
    print(f"class {found.targets[0]}, stability {stability:.2f}{reached}")
    for place in np.argsort(-np.abs(values))[:10]:
        error = 0.0 if errors is None else errors[0, place, 0]
        print(f"  feature {place:>3}  {values[place]:+.4f} ± {error:.4f}")
    return {"values": values, "stability": stability, "target": found.targets[0]}


if __name__ == "__main__":
    main()
