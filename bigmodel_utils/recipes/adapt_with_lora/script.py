"""Adapts a classifier to a new task and compares with the same network from scratch.

Put your images into `load_sets` and your network into `build`. Here the source task is digits
under noise, and the target the same kind of digits without it.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bigmodel_utils import compression, data, evaluation

SHARES = {"source": 0.4, "target": 0.25, "test": 0.35}
BATCH_SIZE = 32


def load_sets() -> dict[str, data.Dataset]:
    """Splits the images by a hash of their content: equal images stay on one side."""
    digits = data.load_digits()
    sides = data.split_by_hash(digits.keys, SHARES)
    return {name: digits.take(indices) for name, indices in sides.items()}


def make_source(images: np.ndarray) -> np.ndarray:
    """Returns the inputs of the source task, `(num_examples, 28, 28, 1)`."""
    noise = np.random.default_rng(7).normal(0, 0.25, images.shape)
    return np.clip(images + noise, 0, 1).astype(np.float32)


def build() -> Any:
    """Builds a network of two convolutions that gives logits."""
    import keras
    from keras import layers

    model = keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            layers.AveragePooling2D(2),
            layers.Conv2D(12, 3, strides=2, padding="same", activation="relu"),
            layers.Conv2D(24, 3, padding="same", activation="relu"),
            layers.MaxPooling2D(2),
            layers.Flatten(),
            layers.Dense(48, activation="relu"),
            layers.Dense(10),
        ]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(0.006), loss)
    return model


def fit(model: Any, examples: tuple[np.ndarray, np.ndarray], *, num_steps: int, seed: int) -> Any:
    """Trains for a number of steps, in an order that the seed decides."""
    x, y = examples
    draw = np.random.default_rng(seed)
    passes = -(-num_steps * BATCH_SIZE // len(x))
    order = np.concatenate([draw.permutation(len(x)) for _ in range(passes)])
    rows = order[: num_steps * BATCH_SIZE]
    model.fit(x[rows], y[rows], batch_size=BATCH_SIZE, shuffle=False, verbose=0)
    return model


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    """Prints what the adapters were worth, stores those of the last seed, returns both."""
    import keras

    parser = argparse.ArgumentParser(description="Adapt a classifier of digits.")
    parser.add_argument("--labeled", type=int, default=30, help="labels of the target task")
    parser.add_argument("--seeds", type=int, default=5, help="runs of each (%(default)s)")
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--rank", type=int, default=4)
    parser.add_argument("--out", type=Path, default=Path("adapters.npz"))
    options = parser.parse_args(arguments)

    sets = load_sets()
    source, target, unseen = sets["source"], sets["target"], sets["test"]
    scores: dict[str, list[float]] = {"scratch": [], "adapters": []}
    for seed in range(options.seeds):
        keras.utils.set_random_seed(seed)
        base = build()
        alone = keras.models.clone_model(base)
        alone.set_weights(base.get_weights())
        alone.compile_from_config(base.get_compile_config())
        known = make_source(source.x), source.y
        fit(base, known, num_steps=3 * options.steps, seed=seed)
        few = np.random.default_rng(seed).permutation(len(target.y))[: options.labeled]
        examples = target.x[few], target.y[few]
        adapted = compression.add_adapters(base, examples[0], rank=options.rank).model
        for name, model in (("scratch", alone), ("adapters", adapted)):
            fit(model, examples, num_steps=options.steps, seed=seed)
            chosen = model.predict(unseen.x, verbose=0).argmax(axis=1)
            scores[name].append(float((chosen == unseen.y).mean()))
    budget = base.count_params()
    report = evaluation.compare_over_seeds(
        scores["adapters"], scores["scratch"], budgets=(budget, budget)
    )
    path = compression.write_adapters(adapted, options.out)
    again = compression.load_adapters(base, path)
    merged = compression.merge_adapters(again, examples[0])
    print(f"adapters over the network from scratch: {report}")
    print(f"merged, outputs move by {merged.report.agreement.largest_difference:.1e}")
    return {"scores": scores, "lead": report.lead, "agreement": merged.report.agreement}


if __name__ == "__main__":
    main()
