"""Tests a sequence model at the distance that it is said to reach.

Put your model into `load_model` and examples whose answer lies a known number of steps back
into `make_examples`.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from bigmodel_utils import data, evaluation, models

# Length of the vector of a symbol: long enough to drive the gates.
STRENGTH = 4.0
NUM_SYMBOLS = 2

Predict = Callable[[Any], np.ndarray]
"""Function from sequences to class probabilities `(num_examples, num_classes)`."""


def make_examples(distance: int, num_examples: int, *, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Makes sequences whose answer lies `distance` steps back; make yours here instead."""
    x, y = data.make_recall_examples(
        num_examples, distance=distance, num_symbols=NUM_SYMBOLS, seed=seed
    )
    return STRENGTH * x, y


def load_model(distance: int, *, num_steps: int, seed: int) -> Predict:
    """Trains an LSTM that is told the distance; load yours here instead."""
    import keras

    keras.utils.set_random_seed(seed)
    model = keras.Sequential(
        [
            keras.Input((None, 2 * NUM_SYMBOLS)),
            keras.layers.LSTM(
                32, unit_forget_bias=False, bias_initializer=models.ForgetBias(distance)
            ),
            keras.layers.Dense(NUM_SYMBOLS, activation="softmax"),
        ]
    )
    model.compile(keras.optimizers.Adam(0.005, clipnorm=1.0), "sparse_categorical_crossentropy")
    model.fit(*make_examples(distance, 32 * num_steps, seed=seed), batch_size=32, verbose=0)
    return lambda x: np.asarray(model(x))


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    """Prints the accuracy by distance and the reach, and returns them."""
    parser = argparse.ArgumentParser(description="Test how far back a sequence model recalls.")
    parser.add_argument("--distance", type=int, default=100, help="claimed context (%(default)s)")
    parser.add_argument("--steps", type=int, default=200, help="training steps (%(default)s)")
    parser.add_argument("--at-least", type=float, default=0.8, help="lower end that passes")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)

    claimed = options.distance
    distances = sorted({max(1, claimed // 10), max(1, claimed // 3), claimed, 2 * claimed})
    recall = evaluation.measure_recall(
        load_model(claimed, num_steps=options.steps, seed=options.seed),
        lambda distance: make_examples(distance, 400, seed=10_000 + options.seed),
        distances=distances,
    )
    reach = recall.find_reach(options.at_least)
    print(recall)
    print(f"reach {reach} steps; {'holds' if reach >= claimed else 'BREAKS'} the claim")
    return {**recall.to_dict(), "reach": reach, "holds": reach >= claimed}


if __name__ == "__main__":
    main()
