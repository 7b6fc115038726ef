"""Trains by parts of a batch, after proof that the updates are those of whole batches.

Put your model into `build_model` and your examples into `load_sets`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from functools import partial
from typing import Any

from bigmodel_utils import data, training

BATCH_SIZE = 64
SHARES = {"training": 0.8, "validation": 0.2}
# What clause TRAIN-004 allows in production.
LARGEST_DIFFERENCE = 1e-3


def load_sets() -> dict[str, data.Dataset]:
    """Splits the images by a hash of their content: equal images stay on one side."""
    digits = data.load_digits()
    sides = data.split_by_hash(digits.keys, SHARES)
    return {name: digits.take(indices) for name, indices in sides.items()}


def build_model(num_parts: int, *, num_updates: int) -> Any:
    """Builds a model that takes one update from `num_parts` parts, and of 1 from each batch."""
    import keras
    from keras import layers

    num_warmup = max(1, num_updates // 10)
    schedule = keras.optimizers.schedules.CosineDecay(
        0.0, num_updates - num_warmup, warmup_target=0.003, warmup_steps=num_warmup
    )
    optimizer = keras.optimizers.AdamW(
        training.UpdateSchedule(schedule, num_parts),
        global_clipnorm=1.0,
        gradient_accumulation_steps=num_parts if num_parts > 1 else None,
    )
    model = keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            layers.AveragePooling2D(2),
            layers.Flatten(),
            layers.Dense(64, use_bias=False),
            layers.LayerNormalization(),  # over each example, never over the batch
            layers.Activation("relu"),
            layers.Dense(10, dtype="float32"),
        ]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer, loss, metrics=["accuracy"])
    return model


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    """Prints the difference of the updates, trains if it is small, and returns both."""
    parser = argparse.ArgumentParser(description="Train by parts of a batch.")
    parser.add_argument("--parts", type=int, default=8, help="parts of a batch (%(default)s)")
    parser.add_argument("--epochs", type=int, default=10)
    options = parser.parse_args(arguments)

    sets = load_sets()
    fit, choose = ((sets[name].x, sets[name].y) for name in SHARES)
    num_whole = len(fit[0]) - len(fit[0]) % BATCH_SIZE  # a short last batch would weigh too much
    fit = fit[0][:num_whole], fit[1][:num_whole]
    num_updates = options.epochs * num_whole // BATCH_SIZE
    build = partial(build_model, num_updates=num_updates)
    difference = training.measure_accumulation_difference(
        build,
        (fit[0][: 2 * BATCH_SIZE], fit[1][: 2 * BATCH_SIZE]),
        num_parts=options.parts,
        num_updates=2,
    )
    print(f"updates differ by {difference:.1e} of their size")
    if difference > LARGEST_DIFFERENCE:
        print("not trained: the parts do not make up the whole batch")
        return {"difference": difference, "accuracy": None}
    run = training.train(
        partial(build, options.parts),
        fit,
        validation_data=choose,
        settings=training.TrainingSettings(
            num_epochs=options.epochs, batch_size=BATCH_SIZE // options.parts, precision="float32"
        ),
    )
    accuracy = run.epochs[-1].validation["accuracy"]
    print(f"trained; accuracy {accuracy:.1%} on validation images, which choose and do not report")
    return {"difference": difference, "accuracy": accuracy}


if __name__ == "__main__":
    sys.exit(main()["accuracy"] is None)
