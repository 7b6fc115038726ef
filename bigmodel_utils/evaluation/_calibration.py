"""Whether a model that is 90 % sure is right nine times in ten, and one way to mend it."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from .._checks import (
    InputError,
    check_array,
    check_integer,
    check_labels,
    check_predictions,
    check_real,
    check_same_length,
)
from ..benchmark import Interval, estimate_proportion_interval

# Temperatures outside are not a correction but a sign that something else is wrong.
_LOG_RANGE = math.log(1e4)


@dataclass(frozen=True)
class CalibrationBin:
    """Examples of similar confidence.

    Attributes:
        confidence: mean probability of the predicted class.
        accuracy: share of right predictions, with its Wilson interval.
        num_examples: examples in the bin.
    """

    confidence: float
    accuracy: Interval
    num_examples: int


@dataclass(frozen=True)
class Calibration:
    """How well probabilities match frequencies.

    Attributes:
        expected_error: expected calibration error: mean over examples of the distance
            between accuracy and confidence of their bin, a fraction.
        chance_error: what a perfectly calibrated model with these confidences would show
            on as many examples, on average; never zero.
        chance_error_high: what such a model stays below in 95 % of samples.
        brier_score: mean squared distance between probabilities and the one-hot label, from
            0 to 2.
        log_loss: mean negative logarithm of the probability of the true class, in nats.
        bins: the bins by rising confidence.
    """

    expected_error: float
    chance_error: float
    chance_error_high: float
    brier_score: float
    log_loss: float
    bins: tuple[CalibrationBin, ...]

    @property
    def excess_error(self) -> float:
        """What the error exceeds that of chance by; about zero for a calibrated model."""
        return self.expected_error - self.chance_error

    def to_dict(self) -> dict[str, Any]:
        """Returns the report as plain dictionaries and lists, ready for JSON."""
        return asdict(self) | {"bins": [asdict(part) for part in self.bins]}


def measure_calibration(
    probabilities: Any, y: Any, *, num_bins: int = 15, num_resamples: int = 200, seed: int = 0
) -> Calibration:
    r"""Measures calibration of the predicted class, and what chance alone would show.

    With bins :math:`B` of equal mass, the expected calibration error is
    :math:`\sum_B \frac{|B|}{n}\,|\mathrm{acc}(B) - \mathrm{conf}(B)|`. It is an average of
    absolute values, so noise adds to it: for a calibrated model it is above zero, and the
    more so the fewer examples a bin holds. `chance_error` is that floor, found by drawing
    outcomes that are right with exactly the stated probabilities.

    Args:
        probabilities: `(num_examples, num_classes)`.
        y: true class numbers, `(num_examples,)`.
        num_bins: bins between quantiles of the confidence; equal confidences share a bin,
            so that there may be fewer.
        num_resamples: samples of a calibrated model drawn for the floor.
        seed: seed of these draws.

    Returns:
        The report.

    Raises:
        InputError: if rows are no probabilities or labels do not fit them.

    Limits:
        Judges the predicted class only, and on examples like these only: a shift can undo
        it. Inside a bin, errors of opposite sign cancel, so few bins hide error and many
        add noise.

    Example:
        >>> sure = np.tile([0.9, 0.1], (10, 1))
        >>> report = measure_calibration(sure, [0] * 8 + [1] * 2)
        >>> round(report.expected_error, 6), round(report.brier_score, 6)
        (0.1, 0.34)

    References:
        Brier, Verification of Forecasts Expressed in Terms of Probability, Monthly Weather
        Review 78, 1950. Bröcker and Smith, Increasing the Reliability of Reliability
        Diagrams, Weather and Forecasting 22, 2007. Guo, Pleiss, Sun and Weinberger, On
        Calibration of Modern Neural Networks, ICML 2017.
    """
    table, labels = check_predictions(probabilities, y)
    check_integer("num_bins", num_bins, at_least=1)
    check_integer("num_resamples", num_resamples, at_least=1)
    confidence = table.max(axis=1)
    correct = table.argmax(axis=1) == labels
    edges = np.unique(np.quantile(confidence, np.arange(1, num_bins) / num_bins))
    places = np.searchsorted(edges, confidence, side="right")
    generator = np.random.default_rng(seed)
    by_chance = [
        _bin_error(confidence, generator.random(len(confidence)) < confidence, places)
        for _ in range(num_resamples)
    ]
    given_to_true = table[np.arange(len(labels)), labels]
    return Calibration(
        expected_error=_bin_error(confidence, correct, places),
        chance_error=float(np.mean(by_chance)),
        chance_error_high=float(np.quantile(by_chance, 0.95)),
        brier_score=float(((table**2).sum(axis=1) - 2 * given_to_true + 1).mean()),
        log_loss=float(-np.log(np.maximum(given_to_true, np.finfo(float).tiny)).mean()),
        bins=tuple(
            CalibrationBin(
                float(confidence[places == place].mean()),
                estimate_proportion_interval(
                    int(correct[places == place].sum()), int((places == place).sum())
                ),
                int((places == place).sum()),
            )
            for place in np.unique(places)
        ),
    )


def fit_temperature(logits: Any, y: Any) -> float:
    r"""Fits the temperature that makes probabilities match frequencies best.

    Minimizes the log loss of :math:`\operatorname{softmax}(z/T)`. In
    :math:`\beta = 1/T` it is convex, with slope
    :math:`\frac{1}{n}\sum_i \bigl(E_{p_i(\beta)}[z_i] - z_{i,y_i}\bigr)`, whose one zero
    is found by bisection.

    Args:
        logits: `(num_examples, num_classes)`. Logarithms of probabilities serve as well:
            they differ by a number per example, which softmax ignores.
        y: true class numbers, `(num_examples,)`. Validation examples, never those that
            report.

    Returns:
        The temperature: above 1 the model was too sure, below 1 not sure enough.

    Raises:
        InputError: if the best temperature is not between 1e-4 and 1e4, as where every
            prediction is right (the best is 0) or they are worse than guessing (infinite).

    Limits:
        One number for all classes and confidences. It changes no prediction, and holds for
        examples like those it was fitted on. With few errors among them it is uncertain.

    Example:
        >>> z = np.log([[0.9, 0.1]] * 4)
        >>> round(float(apply_temperature(z, fit_temperature(z, [0, 0, 0, 1]))[0, 0]), 6)
        0.75

    References:
        Guo, Pleiss, Sun and Weinberger, On Calibration of Modern Neural Networks, ICML 2017.
    """
    scores = check_array("logits", logits, shape=(None, None)).astype(np.float64)
    labels = check_labels("y", y, num_classes=scores.shape[1])
    check_same_length(logits=scores, y=labels)
    scores = scores - scores.max(axis=1, keepdims=True)
    reached = scores[np.arange(len(labels)), labels].mean()

    def slope(log_temperature: float) -> float:
        tempered = apply_temperature(scores, math.exp(log_temperature))
        return float((tempered * scores).sum(axis=1).mean() - reached)

    low, high = -_LOG_RANGE, _LOG_RANGE
    # The slope in 1 / T falls as T rises: positive where T is too low.
    if not slope(low) > 0 > slope(high):
        raise InputError(
            "y",
            "must hold a wrong prediction, and more right ones than guessing",
            f"{np.mean(scores[np.arange(len(labels)), labels] == 0):.1%} right",
            "pass more validation examples, or check that labels and columns agree",
        )
    while high - low > 1e-12:
        middle = (low + high) / 2
        low, high = (middle, high) if slope(middle) > 0 else (low, middle)
    return math.exp(low)


def apply_temperature(logits: Any, temperature: float) -> np.ndarray:
    """Softmax of logits divided by a temperature.

    Args:
        logits: `(num_examples, num_classes)`, or logarithms of probabilities.
        temperature: above 0; 1 leaves the probabilities as they are.

    Returns:
        Probabilities `(num_examples, num_classes)`, float64. The order of the classes, and
        so every prediction, is unchanged.

    Raises:
        InputError: if the temperature is not positive.

    Example:
        >>> apply_temperature(np.log([[0.8, 0.2]]), 2.0).round(3).tolist()
        [[0.667, 0.333]]
    """
    scores = check_array("logits", logits, shape=(None, None)).astype(np.float64)
    check_real("temperature", temperature, at_least=1e-6)
    scaled = (scores - scores.max(axis=1, keepdims=True)) / temperature
    powers = np.exp(scaled)
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


def _bin_error(confidence: np.ndarray, correct: np.ndarray, places: np.ndarray) -> float:
    gaps = np.bincount(places, weights=confidence - correct)
    return float(np.abs(gaps).sum() / len(confidence))
