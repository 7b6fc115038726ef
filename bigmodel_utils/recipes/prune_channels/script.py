"""Cuts channels, trains on, and says whether a small network from scratch would do as well.

Put your network into `build_model` and your examples into `load_sets`.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

import numpy as np

from bigmodel_utils import compression, data, evaluation, models

SHARES = {"training": 0.6, "test": 0.4}


def load_sets() -> dict[str, data.Dataset]:
    """Splits the images by a hash of their content: equal images stay on one side."""
    digits = data.load_digits()
    sides = data.split_by_hash(digits.keys, SHARES)
    return {name: digits.take(indices) for name, indices in sides.items()}


def build_model() -> Any:
    """Builds and compiles the network that is cut."""
    return models.build_small_image_classifier()


def train(model: Any, sets: dict[str, data.Dataset], *, num_epochs: int) -> float:
    """Trains a compiled model on and returns its accuracy on the test images."""
    fit, test = (sets[name] for name in SHARES)
    targets = np.eye(fit.num_classes, dtype=np.float32)[fit.y]
    model.fit(fit.x, targets, batch_size=32, epochs=num_epochs, verbose=0)
    predicted = model.predict(test.x, batch_size=256, verbose=0).argmax(axis=1)
    return float((predicted == test.y).mean())


def count_operations(size: compression.ModelSize) -> int:
    """Operations of one forward pass; stops where a layer cannot be counted."""
    if size.num_flops is None:
        raise SystemExit("A layer of this network has operations that are not counted.")
    return size.num_flops


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    """Prints the report of the cut and the comparison, and returns both."""
    parser = argparse.ArgumentParser(description="Cut channels; compare with a small network.")
    parser.add_argument("--share", type=float, default=0.5, help="to cut (%(default)s)")
    parser.add_argument("--seeds", type=int, default=5, help="runs of each (%(default)s)")
    parser.add_argument("--epochs", type=int, default=6, help="before the cut (%(default)s)")
    parser.add_argument("--epochs-after", type=int, default=3)
    options = parser.parse_args(arguments)
    import keras

    sets = load_sets()
    examples = sets["training"].x[:64]
    pruned_scores, scratch_scores = [], []
    for seed in range(options.seeds):
        keras.utils.set_random_seed(seed)
        large = build_model()
        train(large, sets, num_epochs=options.epochs)
        result = compression.prune_units(large, examples, share=options.share)
        pruned, report = result.model, result.report
        pruned_scores.append(train(pruned, sets, num_epochs=options.epochs_after))
        ratio = count_operations(report.before) / count_operations(report.after)
        equal = round(options.epochs * ratio) + options.epochs_after
        scratch = keras.models.clone_model(pruned)
        scratch.compile("adam", "categorical_crossentropy")
        scratch_scores.append(train(scratch, sets, num_epochs=equal))
    comparison = evaluation.compare_over_seeds(
        pruned_scores,
        scratch_scores,
        budgets=(options.epochs * ratio + options.epochs_after, equal),
    )
    print(report)
    print(f"pruned against {equal} epochs from scratch: {comparison}")
    return {
        "report": report.to_dict(),
        "comparison": comparison.to_dict(),
        "accuracies": {"pruned": pruned_scores, "scratch": scratch_scores},
    }


if __name__ == "__main__":
    main()
