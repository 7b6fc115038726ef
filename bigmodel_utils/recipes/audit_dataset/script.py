"""Audits labelled texts: copies, leakage, doubtful labels and drift.

Put your texts and labels into `load_texts`, and what the service receives into
`load_service_texts`. The script ends with status 1 if a clause is broken.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_predict
from sklearn.pipeline import make_pipeline

from bigmodel_utils import data, reliability
from bigmodel_utils.standards import LEVELS, get_clause

FAMILIES = ("asyncio", "email", "logging", "tkinter", "turtle", "xml")
MINIMUM_WORDS = 5
# Features that drift is looked for in: more of them need more texts.
NUM_TOPICS = 10


class LabelledTexts(NamedTuple):
    """Texts and their class numbers `(num_texts,)`."""

    texts: list[str]
    y: np.ndarray


def load_texts() -> LabelledTexts:
    """Loads docstrings of a few packages, labelled by package; load your texts here."""
    corpus = data.load_standard_library("docstrings")
    chosen = [
        document
        for document in corpus.documents
        if document.family in FAMILIES and len(document.text.split()) >= MINIMUM_WORDS
    ]
    labels = [FAMILIES.index(document.family) for document in chosen]
    return LabelledTexts([document.text for document in chosen], np.array(labels))


def load_service_texts(given: LabelledTexts, test: np.ndarray) -> list[str]:
    """Stands in for what the service receives: the test texts, so that nothing drifts."""
    return [given.texts[index] for index in test]


def split_by_family(texts: list[str], *, seed: int) -> dict[str, np.ndarray]:
    """Splits so that near-duplicates stay on one side, with a margin below the threshold."""
    originals = list(texts)
    for group in reliability.find_near_duplicates(texts, threshold=0.6, seed=seed).groups:
        for index in group:
            originals[index] = texts[group[0]]
    return data.split_by_hash(originals, {"training": 0.7, "test": 0.3}, salt=str(seed))


def find_doubtful_labels(given: LabelledTexts) -> reliability.LabelIssueReport:
    """Asks a plain model, cross-validated, which labels it does not believe."""
    doubter = make_pipeline(TfidfVectorizer(), LogisticRegression(C=10, max_iter=500))
    beliefs = cross_val_predict(doubter, given.texts, given.y, cv=5, method="predict_proba")
    return reliability.find_label_issues(beliefs, given.y)


def measure_topic_drift(
    reference: list[str], current: list[str], *, seed: int
) -> reliability.DriftReport:
    """Compares topics and length; copies are dropped, because they raise alarms by themselves."""
    kept = reliability.find_near_duplicates([*reference, *current], seed=seed).kept
    distinct = [[*reference, *current][index] for index in kept]
    topics = make_pipeline(
        TfidfVectorizer(), TruncatedSVD(NUM_TOPICS, random_state=seed)
    ).fit_transform(distinct)
    lengths = np.log([len(text) for text in distinct])
    features = np.column_stack([topics, lengths])
    is_reference = kept < len(reference)
    return reliability.measure_drift(
        features[is_reference], features[~is_reference], max_examples=500, seed=seed
    )


def measure_clauses(given: LabelledTexts, *, seed: int) -> dict[str, float]:
    """Measures what each clause bounds."""
    sides = split_by_family(given.texts, seed=seed)
    training, test = ([given.texts[n] for n in sides[name]] for name in ("training", "test"))
    learned = LabelledTexts(training, given.y[sides["training"]])
    copies = reliability.find_near_duplicates(training, seed=seed)
    doubtful = find_doubtful_labels(learned)
    print(f"copies in training: {copies.redundant_share:.1%}, largest family")
    for index in copies.groups[0][:3] if copies.groups else ():
        print(f"    {training[index][:70]!r}")
    print(f"doubtful labels: {len(doubtful.indices)}, the most doubtful")
    for index, suggested in list(zip(doubtful.indices, doubtful.suggested, strict=True))[:3]:
        print(f"    {learned.y[index]}, not {suggested}?  {training[index][:60]!r}")
    service = load_service_texts(given, sides["test"])
    return {
        "DATA-001": reliability.measure_leakage(training, test, seed=seed).share.value,
        "DATA-003": doubtful.share,
        "DATA-004": measure_topic_drift(training, service, seed=seed).p_value,
    }


def main(arguments: Sequence[str] | None = None) -> list[str]:
    """Prints clause by clause what was found, and returns the clauses that are broken."""
    parser = argparse.ArgumentParser(description="Audit a data set.")
    parser.add_argument("--level", choices=LEVELS, default="production")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)

    broken = []
    for clause_id, value in measure_clauses(load_texts(), seed=options.seed).items():
        clause = get_clause(clause_id)
        bound = clause.thresholds[options.level]
        is_upper = clause.direction == "at_most"
        holds = value <= bound if is_upper else value >= bound
        broken += [] if holds else [clause_id]
        verdict = "holds " if holds else "BROKEN"
        wanted = f"{'at most' if is_upper else 'at least'} {bound:g}"
        print(f"{clause_id:<9}  {verdict}  {clause.metric} {value:.3g}, {wanted}")
    return broken


if __name__ == "__main__":
    sys.exit(1 if main() else 0)
