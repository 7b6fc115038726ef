"""Explains predictions of a classifier with Shapley values, and tests the explainer itself.

Put your table into `load_sets` and your network into `build_model`. The background is part of
the question: here it is rows of the training set, so a value says what sets a row apart from
what is usual.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from bigmodel_utils import data, explanation

SHARES = {"training": 0.7, "test": 0.3}


def load_sets() -> tuple[data.Dataset, data.Dataset]:
    """Splits the rows by a hash of their content: equal rows stay on one side."""
    table = data.load_breast_cancer()
    sides = data.split_by_hash(table.keys, SHARES)
    training, test = (table.take(indices) for indices in sides.values())
    return training, test


def build_model(num_features: int) -> Any:
    """Builds and compiles a network that gives the log-odds of the first class."""
    import keras

    model = keras.Sequential(
        [
            keras.Input((num_features,)),
            keras.layers.Dense(32, "relu"),
            keras.layers.Dense(16, "relu"),
            keras.layers.Dense(1),
        ]
    )
    loss = keras.losses.BinaryCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(0.01), loss)
    return model


def make_explainer(background: np.ndarray) -> Callable[..., explanation.Explanation]:
    """Returns what explains rows until each value is known well enough."""
    budget = explanation.SamplingBudget(num_evaluations=4_000, tolerance=0.1)

    def explain(model: Any, inputs: np.ndarray, *, seed: int) -> explanation.Explanation:
        return explanation.explain_with_kernel_shap(
            model, inputs, background=background, budget=budget, seed=seed
        )

    return explain


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    """Prints the values of one prediction and the verdict on the explainer; returns both."""
    import keras

    parser = argparse.ArgumentParser(description="Explain a classifier of a table.")
    parser.add_argument("--row", type=int, default=0, help="row of the test set")
    parser.add_argument("--background", type=int, default=50, help="rows (%(default)s)")
    parser.add_argument("--audited", type=int, default=12, help="rows that test the explainer")
    parser.add_argument("--epochs", type=int, default=15)
    options = parser.parse_args(arguments)

    keras.utils.set_random_seed(0)
    training, test = load_sets()
    middle, spread = training.x.mean(axis=0), training.x.std(axis=0)
    known, unseen = (((part.x - middle) / spread).astype(np.float32) for part in (training, test))
    model = build_model(known.shape[1])
    targets = (training.y == 0).astype(np.float32)[:, None]
    model.fit(known, targets, batch_size=32, epochs=options.epochs, verbose=0)

    chosen = np.random.default_rng(0).choice(len(known), options.background, replace=False)
    explain = make_explainer(known[chosen])
    found = explain(model, unseen[options.row : options.row + 1], seed=0)
    values = found.values[0, :, 0]
    stated = found.standard_errors  # none if every coalition was asked
    errors = np.zeros_like(values) if stated is None else stated[0, :, 0]
    print(f"log-odds {found.outputs[0, 0]:+.2f}, usual {found.base_values[0, 0]:+.2f}")
    for place in np.argsort(-np.abs(values))[:10]:
        print(f"  feature {place:>3}  {values[place]:+.2f} ± {errors[place]:.2f}")
    verdict = explanation.check_explanation(
        model, unseen[: options.audited], explain=explain, baselines={"the mean": 0.0}
    )
    print(verdict)
    return {"values": values, "errors": errors, "verdict": verdict}


if __name__ == "__main__":
    main()
