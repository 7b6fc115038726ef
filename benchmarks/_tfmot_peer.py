"""Magnitude pruning by tensorflow-model-optimization, run by its own Python with tf-keras.

Reads `digits.npz` of the folder that is passed, and prints one line of JSON: the accuracy of
the article's network before and after pruning half of its weights, and their share of zeros.
"""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_model_optimization as tfmot
import tf_keras as keras

NUM_EPOCHS = 15


def main() -> None:
    """Trains, prunes with fine-tuning, and prints what came of it."""
    digits = np.load(Path(sys.argv[1]) / "digits.npz")
    keras.utils.set_random_seed(0)
    layers = keras.layers
    model = keras.Sequential(
        [
            layers.Conv2D(32, 3, activation="relu", input_shape=(28, 28, 1)),
            layers.MaxPooling2D(),
            layers.Conv2D(64, 3, activation="relu"),
            layers.MaxPooling2D(),
            layers.Flatten(),
            layers.Dense(128, activation="relu"),
            layers.Dense(10, activation="softmax"),
        ]
    )
    before = fit(model, digits)
    schedule = tfmot.sparsity.keras.ConstantSparsity(0.5, 0)
    pruned = tfmot.sparsity.keras.prune_low_magnitude(model, schedule)
    after = fit(pruned, digits, callbacks=(tfmot.sparsity.keras.UpdatePruningStep(),))
    kernels = [w for w in tfmot.sparsity.keras.strip_pruning(pruned).get_weights() if w.ndim > 1]
    zeros = sum(int((w == 0).sum()) for w in kernels) / sum(w.size for w in kernels)
    print(json.dumps({"accuracy": before, "accuracy_pruned": after, "zeros": zeros}))


def fit(model: Any, digits: Any, *, callbacks: tuple[Any, ...] = ()) -> float:
    """Trains and returns the accuracy on the test side."""
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(
        digits["x_training"],
        digits["y_training"],
        epochs=NUM_EPOCHS,
        verbose=0,
        callbacks=list(callbacks),
    )
    return float(model.evaluate(digits["x_test"], digits["y_test"], verbose=0)[1])


if __name__ == "__main__":
    main()
