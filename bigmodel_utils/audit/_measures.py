"""What an audit measures by itself, and what each measurement needs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from .. import data, evaluation, generation, models, reliability
from .._checks import check_array, check_predictions, import_extra
from ..benchmark import estimate_proportion_interval
from ..standards import Measurement, load_clauses
from ..training import count_nonfinite_weights
from ._model import AuditedModel

SEVERITIES = (0, 1, 2)
SHIFT_PIXELS = 1
BATCH_SIZES = (64, 50, 7)  # two of them leave a last batch that is not full


@dataclass(frozen=True)
class Case:
    """A model and its data, and what the model answers to the test inputs, computed once.

    Attributes:
        model: the model.
        arrays: the data by name, see `ARRAYS`.
    """

    model: AuditedModel
    arrays: Mapping[str, np.ndarray]

    @cached_property
    def outputs(self) -> np.ndarray:
        """What the model answers, `(num_examples, …)`."""
        return self.model.predict(self.arrays["x_test"])

    @cached_property
    def correct(self) -> np.ndarray:
        """Which test examples are classified right, booleans `(num_examples,)`."""
        probabilities, y = check_predictions(self.outputs, self.arrays["y_test"])
        return np.asarray(probabilities.argmax(axis=1) == y)

    def flatten(self, name: str) -> np.ndarray:
        """The inputs of that name as rows of features, `(num_examples, num_features)`."""
        return self.arrays[name].reshape(len(self.arrays[name]), -1)

    def write_keys(self, name: str) -> list[str]:
        """A key for each input of that name, equal where the numbers are, whatever their type."""
        rows = np.ascontiguousarray(self.arrays[name], dtype=np.float64) + 0.0  # -0 becomes 0
        return [row.tobytes().hex() for row in rows]


@dataclass(frozen=True)
class Measure:
    """One metric of the standard and how an audit finds it.

    Attributes:
        metric: name of the metric.
        needs: names of arrays, and `"keras"` for a model that is no exported file.
        find: function from the case to what `check_release` takes.
    """

    metric: str
    needs: tuple[str, ...]
    find: Callable[[Case], Any]


def list_measures(subjects: Sequence[str]) -> tuple[Measure, ...]:
    """Lists what an audit can measure for a release of some kinds.

    Args:
        subjects: kinds of release, from the names in `standards.load_subjects()`.

    Returns:
        The measures in the order of the standard, each for a clause that applies.

    Example:
        >>> [measure.metric for measure in list_measures(["language_model"])][:2]
        ['selection_overlap', 'cache_difference']
    """
    applying = [c.metric for c in load_clauses() if c.applies_to in ("every release", *subjects)]
    return tuple(_MEASURES[metric] for metric in applying if metric in _MEASURES)


def _measure_half_width(case: Case) -> float:
    interval = estimate_proportion_interval(int(case.correct.sum()), len(case.correct))
    return (interval.high - interval.low) / 2


def _measure_worst_slice(case: Case) -> Measurement:
    """The group, or the class where no groups are given, of the lowest lower end."""
    groups = case.arrays.get("groups_test", case.arrays["y_test"])
    slices = {str(group): groups == group for group in np.unique(groups)}
    report = evaluation.measure_slices(case.correct, slices)
    worst = min(report.slices.values(), key=lambda interval: interval.low)
    return Measurement(worst.value, worst.low, worst.high)


def _measure_calibration_excess(case: Case) -> float:
    return evaluation.measure_calibration(case.outputs, case.arrays["y_test"]).excess_error


def _measure_batch_size_spread(case: Case) -> float:
    def measure_log_loss(batch_size: int) -> float:
        probabilities = case.model.predict(case.arrays["x_test"], batch_size=batch_size)
        return evaluation.measure_calibration(
            probabilities, case.arrays["y_test"], num_resamples=1
        ).log_loss

    return evaluation.measure_batch_size_spread(measure_log_loss, BATCH_SIZES)


def _measure_lead_over_simplest(case: Case) -> Measurement:
    """The lead over logistic regression on the inputs, each scaled."""
    pipeline = import_extra("sklearn.pipeline", extra="data")
    preprocessing = import_extra("sklearn.preprocessing", extra="data")
    linear_model = import_extra("sklearn.linear_model", extra="data")
    simplest = pipeline.make_pipeline(
        preprocessing.StandardScaler(), linear_model.LogisticRegression(tol=0.01, max_iter=500)
    ).fit(case.flatten("x_training"), case.arrays["y_training"])
    baseline = simplest.predict(case.flatten("x_test")) == case.arrays["y_test"]
    return _take(evaluation.compare_accuracy(case.correct, baseline).difference)


def _measure_retained_accuracy(case: Case) -> float:
    return evaluation.measure_robustness(
        case.model.predict,
        (case.arrays["x_test"], case.arrays["y_test"]),
        corrupt=data.corrupt_images,
        kinds=data.CORRUPTIONS,
        severities=SEVERITIES,
    ).retained


def _measure_shift_consistency(case: Case) -> Measurement:
    def move(*, right: int, down: int) -> Callable[[np.ndarray], np.ndarray]:
        return lambda x: data.shift_images(x, right=right, down=down)

    steps = {"right": (1, 0), "left": (-1, 0), "down": (0, 1), "up": (0, -1)}
    report = evaluation.measure_consistency(
        case.model.predict,
        case.arrays["x_test"],
        changes={
            name: move(right=SHIFT_PIXELS * right, down=SHIFT_PIXELS * down)
            for name, (right, down) in steps.items()
        },
    )
    return _take(report.kept[report.worst])


def _measure_release_difference(case: Case) -> float:
    stated = check_array(
        "predictions_test", case.arrays["predictions_test"], shape=case.outputs.shape
    )
    return float(np.abs(case.outputs - stated).max())


def _measure_leaked_share(case: Case) -> float:
    """The share of exact copies; near-duplicates of arrays need a measure of their own."""
    test = case.write_keys("x_test")
    return data.count_overlap(case.write_keys("x_training"), test) / len(test)


def _measure_selection_overlap(case: Case) -> int:
    return data.count_overlap(case.write_keys("x_validation"), case.write_keys("x_test"))


def _measure_drift(case: Case) -> float:
    return reliability.measure_drift(case.flatten("x_training"), case.flatten("x_service")).p_value


def _measure_label_issues(case: Case) -> float:
    report = reliability.find_label_issues(
        case.arrays["probabilities_training"], case.arrays["y_training"]
    )
    return report.share


def _measure_cache_difference(case: Case) -> float:
    return generation.measure_cache_difference(case.model.keras_model, case.arrays["x_test"][0])


def _measure_future_dependence(case: Case) -> float:
    return models.measure_future_dependence(case.model.keras_model, case.arrays["x_test"][:8])


def _take(interval: Any) -> Measurement:
    return Measurement(interval.value, interval.low, interval.high)


_LABELED = ("x_test", "y_test")
_MEASURES = {
    measure.metric: measure
    for measure in (
        Measure("selection_overlap", ("x_validation",), _measure_selection_overlap),
        Measure("interval_half_width", _LABELED, _measure_half_width),
        Measure(
            "batch_dependence",
            ("x_test",),
            lambda case: models.measure_batch_dependence(case.model, case.arrays["x_test"]),
        ),
        Measure(
            "num_nonfinite_weights",
            ("keras",),
            lambda case: count_nonfinite_weights(case.model.keras_model),
        ),
        Measure("worst_slice_accuracy", _LABELED, _measure_worst_slice),
        Measure("calibration_excess", _LABELED, _measure_calibration_excess),
        Measure("batch_size_spread", _LABELED, _measure_batch_size_spread),
        Measure("retained_accuracy", _LABELED, _measure_retained_accuracy),
        Measure("leaked_share", ("x_training",), _measure_leaked_share),
        Measure("release_difference", ("predictions_test",), _measure_release_difference),
        Measure(
            "label_issue_share", ("probabilities_training", "y_training"), _measure_label_issues
        ),
        Measure("drift_p_value", ("x_training", "x_service"), _measure_drift),
        Measure(
            "lead_over_simplest",
            (*_LABELED, "x_training", "y_training"),
            _measure_lead_over_simplest,
        ),
        Measure("shift_consistency", ("x_test",), _measure_shift_consistency),
        Measure("cache_difference", ("keras",), _measure_cache_difference),
        Measure("future_dependence", ("keras",), _measure_future_dependence),
    )
}
