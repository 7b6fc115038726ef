"""Compares two ways of training a classifier on every example, trained anew several times.

Put your examples into `load_examples` and the two ways into `build_model` and
`build_baseline`: each takes a seed and returns something with `fit` and `predict`.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from bigmodel_utils import benchmark, data, evaluation

NUM_FOLDS = 5

Examples = tuple[np.ndarray, np.ndarray, Sequence[str]]
"""Inputs, class numbers and one key per example."""

Build = Callable[[int], Any]
"""Function from a seed to an untrained classifier with `fit(x, y)` and `predict(x)`."""


def load_examples() -> Examples:
    """Inputs `(num_examples, num_features)`, class numbers and one key per example."""
    digits = data.load_digits()
    pixels = digits.x[:, 3:-2:3, 3:-2:3, 0]  # the image as scanned, 8 × 8
    return pixels.reshape(len(digits), -1), digits.y, digits.keys


def build_model(seed: int) -> Any:
    """What might be released; put your own here."""
    from sklearn.ensemble import ExtraTreesClassifier

    return ExtraTreesClassifier(60, random_state=seed)


def build_baseline(seed: int) -> Any:  # noqa: ARG001  (draws nothing)
    """What it must beat."""
    from sklearn.naive_bayes import GaussianNB

    return GaussianNB(var_smoothing=0.01)


def judge_out_of_fold(build: Build, examples: Examples, *, dealing: int) -> np.ndarray:
    """Whether each example is right, judged by a model that was trained without it."""
    x, y, keys = examples
    shares = {f"fold {number}": 1 / NUM_FOLDS for number in range(NUM_FOLDS)}
    correct = np.zeros(len(y), dtype=bool)
    for left_out in data.split_by_hash(keys, shares, salt=f"dealing {dealing}").values():
        rest = np.setdiff1d(np.arange(len(y)), left_out)
        model = build(dealing)
        model.fit(x[rest], y[rest])
        correct[left_out] = model.predict(x[left_out]) == y[left_out]
    return correct


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    """Prints what was found and returns it as plain data."""
    parser = argparse.ArgumentParser(description="Compare two ways of training a classifier.")
    parser.add_argument("--dealings", type=int, default=5)
    parser.add_argument("--test-size", type=int, default=180)
    options = parser.parse_args(arguments)

    examples = load_examples()
    ours, theirs = (
        np.array([judge_out_of_fold(build, examples, dealing=n) for n in range(options.dealings)])
        for build in (build_model, build_baseline)
    )
    per_example = (ours.astype(float) - theirs).mean(axis=0)
    lead = benchmark.bootstrap_interval(per_example)
    p_values = [
        evaluation.compare_accuracy(one, other).p_value
        for one, other in zip(ours, theirs, strict=True)
    ]
    disagreement = float((ours != theirs).mean())
    flips, needed = None, None
    if lead.value != 0 and ours[0].sum() != theirs[0].sum():
        flips = evaluation.measure_flip_rate(ours[0], theirs[0], num_examples=options.test_size)
        needed = evaluation.estimate_num_test_examples(abs(lead.value), disagreement)

    print(f"accuracy      {ours.mean():.1%} against {theirs.mean():.1%}, out of fold")
    print(
        f"lead          {lead:+.2%} over {len(examples[1]):,} examples, {options.dealings} dealings"
    )
    print(f"paired tests  p from {min(p_values):.2g} to {max(p_values):.2g}")
    if flips is not None:
        print(f"wrong set     {flips.flipped:.1%} of test sets of {options.test_size} examples")
        print(f"needed        {needed:,} test examples to show the difference")
    return {
        "lead": lead.to_dict(),
        "p_values": p_values,
        "disagreement": disagreement,
        "flips": flips.to_dict() if flips is not None else None,
        "num_examples_needed": needed,
    }


if __name__ == "__main__":
    main()
