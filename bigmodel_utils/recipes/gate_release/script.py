"""Holds a release against the standard and keeps the evidence; any framework will do.

Put your data into `load_data`, your model into `train` and `predict`. The gate sees numbers
only. The script ends with status 1 if a clause that applies is not met.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.datasets import load_breast_cancer
from sklearn.dummy import DummyClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from bigmodel_utils import data, evaluation, reliability, standards
from bigmodel_utils.benchmark import estimate_proportion_interval

SUBJECTS = ["classifier"]  # what you release: see standards.load_subjects()
SHARES = {"training": 0.6, "test": 0.4}
CARD = standards.ModelCard(
    "breast cancer, logistic regression",
    "1",
    model_details="Logistic regression on thirty scaled features of cell nuclei.",
    intended_use="An example of a release. Not for diagnosis.",
)
SHEET = standards.DataSheet("Breast Cancer Wisconsin (Diagnostic)", "1995")

Predict = Callable[[np.ndarray], np.ndarray]


def load_data() -> tuple[np.ndarray, np.ndarray]:
    """Loads inputs `(num_examples, num_features)` and class numbers; load yours here."""
    x, y = load_breast_cancer(return_X_y=True)
    return x, y


def train(x: np.ndarray, y: np.ndarray) -> Any:
    """Fits the model; fit yours here."""
    return make_pipeline(StandardScaler(), LogisticRegression(C=0.3)).fit(x, y)


def find_code() -> Path:
    """The file that trains; name yours."""
    return Path(__file__)


def hash_data(x: np.ndarray, y: np.ndarray) -> str:
    """The SHA-256 of the examples."""
    return hashlib.sha256(x.tobytes() + y.tobytes()).hexdigest()


def save(model: Any, path: Path) -> None:
    """Stores what was learned as plain arrays, with the hashes of the code and the data.

    Store yours in a format that runs no code when it is loaded.
    """
    scaler, regression = model[0], model[1]
    np.savez(
        path,
        code_sha256=standards.hash_file(find_code()),
        data_sha256=hash_data(*load_data()),
        mean=scaler.mean_,
        scale=scaler.scale_,
        weights=regression.coef_,
        bias=regression.intercept_,
    )


def load_predictor(path: Path) -> Predict:
    """Returns the function that serves: from inputs to probabilities `(num_examples, 2)`."""
    with np.load(path, allow_pickle=False) as stored:
        part = {name: stored[name] for name in ("mean", "scale", "weights", "bias")}

    def predict(x: np.ndarray) -> np.ndarray:
        score = (x - part["mean"]) / part["scale"] @ part["weights"].T + part["bias"]
        positive = 1 / (1 + np.exp(-score))
        return np.hstack([1 - positive, positive])

    return predict


def count_stale_parts(path: Path) -> int:
    """Counts what made the stored weights and is not here any more: the code, the data."""
    with np.load(path, allow_pickle=False) as stored:
        code, data_hash = str(stored["code_sha256"]), str(stored["data_sha256"])
    stale = standards.find_stale_files({find_code().name: code}, find_code().parent)
    return len(stale) + (data_hash != hash_data(*load_data()))


def split(x: np.ndarray) -> tuple[list[str], dict[str, np.ndarray]]:
    """Deals the examples by a hash of their content, so that each stays where it is."""
    keys = [row.tobytes().hex() for row in np.ascontiguousarray(x)]
    return keys, data.split_by_hash(keys, SHARES)


def measure_release(path: Path) -> dict[str, Any]:
    """Trains, stores, loads anew, and measures what the clauses bound, by metric."""
    x, y = load_data()
    keys, sides = split(x)
    fit, test = sides["training"], sides["test"]
    model = train(x[fit], y[fit])
    save(model, path)
    predict = load_predictor(path)
    probabilities = predict(x[test])
    correct = probabilities.argmax(axis=1) == y[test]
    interval = estimate_proportion_interval(int(correct.sum()), len(correct))
    slices = {f"class {c}": y[test] == c for c in np.unique(y)}
    worst = min(
        evaluation.measure_slices(correct, slices).slices.values(), key=lambda part: part.low
    )
    simplest = DummyClassifier().fit(x[fit], y[fit]).predict(x[test]) == y[test]
    beliefs = cross_val_predict(train(x[fit], y[fit]), x[fit], y[fit], method="predict_proba")
    early_keys, early = split(x[::2])
    alone = np.vstack([predict(row[None]) for row in x[test[:16]]])

    def evaluate(batch_size: int) -> float:
        starts = range(0, len(test), batch_size)
        hits = [predict(x[test[i : i + batch_size]]).argmax(axis=1) for i in starts]
        return float((np.concatenate(hits) == y[test]).mean())

    return {
        "stale_parts": count_stale_parts(path),
        "selection_overlap": 0,  # nothing was selected: one model, one setting
        "leaked_share": data.count_overlap([keys[i] for i in fit], [keys[i] for i in test])
        / len(test),
        "num_moved": data.count_overlap(
            [early_keys[i] for i in early["training"]], [keys[i] for i in test]
        ),
        "release_difference": float(np.abs(model.predict_proba(x[test]) - probabilities).max()),
        "interval_half_width": (interval.high - interval.low) / 2,
        "batch_dependence": float(np.abs(alone - probabilities[:16]).max()),
        "worst_slice_accuracy": worst,
        "calibration_excess": evaluation.measure_calibration(probabilities, y[test]).excess_error,
        "batch_size_spread": evaluation.measure_batch_size_spread(evaluate, [7, 50, len(test)]),
        "label_issue_share": reliability.find_label_issues(beliefs, y[fit]).share,
        "lead_over_simplest": evaluation.compare_accuracy(correct, simplest).difference,
    }


def main(arguments: Sequence[str] | None = None) -> standards.ReleaseReport:
    """Prints the verdict, writes the evidence, and returns the report."""
    parser = argparse.ArgumentParser(description="Hold a release against the standard.")
    parser.add_argument("--level", choices=standards.LEVELS, default="production")
    parser.add_argument("--out", help="where the evidence goes; nowhere if left out")
    options = parser.parse_args(arguments)

    with tempfile.TemporaryDirectory() as folder:
        weights = Path(folder, "weights.npz")
        report = standards.check_release(measure_release(weights), options.level, subjects=SUBJECTS)
        print(report)
        if options.out:
            bundle = standards.write_evidence(
                options.out,
                report,
                model_card=CARD,
                data_sheet=SHEET,
                files={"weights": weights, "code": find_code()},
            )
            print(bundle)
    return report


if __name__ == "__main__":
    sys.exit(main().exit_status)
