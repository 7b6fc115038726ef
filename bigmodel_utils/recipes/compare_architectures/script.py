"""Compares architectures at an equal number of parameters, over several seeds.

Put your builders into `BUILDERS` and your examples into `load_sets`.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Sequence
from typing import Any

from bigmodel_utils import costs, data, evaluation

SHARES = {"training": 0.6, "validation": 0.4}


def load_sets() -> dict[str, data.Dataset]:
    """Splits the images by a hash of their content: equal images stay on one side."""
    digits = data.load_digits()
    sides = data.split_by_hash(digits.keys, SHARES)
    return {name: digits.take(indices) for name, indices in sides.items()}


def build_convolution(width: int) -> Any:
    """Builds two convolutions and the largest value over the image."""
    import keras
    from keras import layers

    return keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            layers.AveragePooling2D(2),
            layers.Conv2D(width, 3, strides=2, padding="same", activation="relu"),
            layers.Conv2D(width, 3, padding="same", activation="relu"),
            layers.GlobalMaxPooling2D(),
            layers.Dense(10),
        ]
    )


def build_recurrent(width: int) -> Any:
    """Builds an LSTM that reads the image row by row."""
    import keras
    from keras import layers

    return keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            layers.AveragePooling2D(2),
            layers.Reshape((14, 14)),
            layers.LSTM(width),
            layers.Dense(10),
        ]
    )


BUILDERS = {"convolution": build_convolution, "recurrent": build_recurrent}


def measure_score(model: Any, sets: dict[str, data.Dataset], *, num_epochs: int) -> float:
    """Trains a model and returns its accuracy on the examples held out."""
    import keras

    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(0.01), loss)
    fit, held_out = (sets[name] for name in SHARES)
    model.fit(fit.x, fit.y, batch_size=32, epochs=num_epochs, verbose=0)
    predicted = model.predict(held_out.x, batch_size=256, verbose=0).argmax(axis=1)
    return float((predicted == held_out.y).mean())


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    """Prints the accuracies and the leads, and returns both."""
    parser = argparse.ArgumentParser(description="Compare architectures at an equal budget.")
    parser.add_argument("--parameters", type=int, default=3_000, help="budget (%(default)s)")
    parser.add_argument("--seeds", type=int, default=5, help="runs of each (%(default)s)")
    parser.add_argument("--epochs", type=int, default=5)
    options = parser.parse_args(arguments)
    import keras

    sets = load_sets()
    scores: dict[str, list[float]] = {}
    budgets = {}
    for name, build in BUILDERS.items():
        width = costs.find_width(build, budget=options.parameters)
        scores[name] = []
        for seed in range(options.seeds):
            keras.utils.set_random_seed(seed)
            model = build(width)
            scores[name].append(measure_score(model, sets, num_epochs=options.epochs))
        budgets[name] = model.count_params()
        print(f"{name}: {budgets[name]:,} parameters, {statistics.mean(scores[name]):.1%}")
    best = max(scores, key=lambda name: statistics.mean(scores[name]))
    leads = {
        other: evaluation.compare_over_seeds(
            scores[best], scores[other], budgets=(budgets[best], budgets[other])
        )
        for other in scores
        if other != best
    }
    for other, report in leads.items():
        verdict = "beats" if report.lead.low > 0 else "is not told apart from"
        print(f"{best} {verdict} {other}: {report}")
    return {
        "best": best,
        "scores": scores,
        "leads": {other: report.to_dict() for other, report in leads.items()},
    }


if __name__ == "__main__":
    main()
