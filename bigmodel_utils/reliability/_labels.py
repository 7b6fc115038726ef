"""Labels that a model, asked about examples it did not learn from, finds hard to believe."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np

from .._checks import (
    InputError,
    check_integer,
    check_labels,
    check_predictions,
    check_real,
    import_extra,
)


@dataclass(frozen=True)
class LabelIssueReport:
    """Examples whose label is probably wrong.

    Attributes:
        indices: these examples, the least believable label first, `(num_issues,)` int64.
        suggested: the class that the model holds most likely for each, `(num_issues,)`.
        quality: probability of the given label of every example, `(num_examples,)`.
    """

    indices: np.ndarray
    suggested: np.ndarray
    quality: np.ndarray

    @property
    def share(self) -> float:
        """Share of the examples that are listed."""
        return len(self.indices) / len(self.quality)

    def to_dict(self) -> dict[str, Any]:
        """Returns the issues as plain lists, and their share."""
        return {
            "indices": self.indices.tolist(),
            "suggested": self.suggested.tolist(),
            "quality": self.quality[self.indices].tolist(),
            "num_examples": len(self.quality),
            "share": self.share,
        }


def find_label_issues(probabilities: Any, y: Any) -> LabelIssueReport:
    """Finds labels that are probably wrong, by confident learning (cleanlab).

    For each class, the mean probability that its own examples give it is the bar from which
    the model is taken to be confident of that class. Counting the examples that pass the bar
    of another class than their own estimates how many of each class belong to each other
    one; as many of those that speak most clearly for the other class are listed.

    Args:
        probabilities: `(num_examples, num_classes)`, predicted *out of sample*: by a model
            that did not learn from the example, such as in cross-validation.
        y: the given class numbers, `(num_examples,)`; each class occurs at least twice.

    Returns:
        The report.

    Raises:
        InputError: if rows are no probabilities, lengths differ, only one class occurs, or a
            class occurs less than twice.
        MissingExtraError: if cleanlab is not installed.

    Limits:
        Probabilities from the training examples themselves agree with the wrong labels, and
        nothing is found. An issue is a candidate for a second look, not an error: where
        classes overlap, true labels are listed too. Assumes that a label's chance of being
        wrong depends on its class alone.

    Example:
        >>> sure = np.array([[0.9, 0.1]] * 5 + [[0.1, 0.9]] * 5)
        >>> report = find_label_issues(sure, [0, 0, 0, 0, 1, 1, 1, 1, 1, 1])
        >>> report.indices, report.suggested, report.share
        (array([4]), array([0]), 0.1)

    References:
        Northcutt, Jiang and Chuang, Confident Learning: Estimating Uncertainty in Dataset
        Labels, Journal of Artificial Intelligence Research 70, 2021.
    """
    table, labels = _check_out_of_sample(probabilities, y)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it misses a progress bar that nobody asked for
        cleanlab = import_extra("cleanlab.filter", extra="data")
    with warnings.catch_warnings():
        # It says what a class of few examples leads to even where nothing is left out.
        warnings.simplefilter("ignore", UserWarning)
        # One process: results are the same, and a notebook forks no copy of its backend.
        issues = cleanlab.find_label_issues(labels, table, n_jobs=1)
    quality = table[np.arange(len(labels)), labels]
    found = np.flatnonzero(issues)
    found = found[np.argsort(quality[found], kind="stable")]
    return LabelIssueReport(found, table[found].argmax(axis=1), quality)


def corrupt_labels(
    y: Any, share: float, *, num_classes: int, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Replaces some labels by wrong ones, to see what noise does and whether it is found.

    Args:
        y: class numbers, `(num_examples,)`.
        share: share of the examples that get a wrong label, from 0 to 1.
        num_classes: number of classes; each wrong one is equally likely.
        seed: seed of the choice.

    Returns:
        The new labels, `(num_examples,)` int64, and the sorted indices of the wrong ones.

    Raises:
        InputError: if a label or a number is out of range.

    Limits:
        Errors fall evenly. People confuse what looks alike, which is harder to find.

    Example:
        >>> corrupt_labels([0, 0, 0, 0], 0.5, num_classes=2)
        (array([0, 0, 1, 1]), array([2, 3]))
    """
    count = check_integer("num_classes", num_classes, at_least=2)
    labels = check_labels("y", y, num_classes=count)
    wanted = check_real("share", share, at_least=0, at_most=1)
    generator = np.random.default_rng(check_integer("seed", seed, at_least=0))
    num_wrong = round(wanted * len(labels))
    wrong = np.sort(generator.choice(len(labels), size=num_wrong, replace=False))
    # A step of 1 to num_classes - 1 around the circle of classes never comes back.
    labels[wrong] = (labels[wrong] + generator.integers(1, count, size=num_wrong)) % count
    return labels, wrong


def _check_out_of_sample(probabilities: Any, y: Any) -> tuple[np.ndarray, np.ndarray]:
    table, labels = check_predictions(probabilities, y)
    counts = np.bincount(labels, minlength=table.shape[1])
    if (counts > 0).sum() < 2:
        raise InputError("y", "must hold at least two classes", "one", "pass all classes")
    if counts.min() < 2:
        rare = int(counts.argmin())
        raise InputError(
            "y",
            "must hold at least two examples of each class",
            f"{counts[rare]} of class {rare}",
            "drop that class from `y` and `probabilities`, or collect more of it",
        )
    return table, labels
