"""Whether an explanation names what the model uses: take features away and ask the model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from .._checks import InputError, check_array, check_integer
from .._report import Report, render_html, render_text
from ..benchmark import Interval, bootstrap_interval
from ._predict import PredictFn, build_predict_fn
from ._result import Explanation

ORDERS = ("explanation", "input alone", "random")


@dataclass(frozen=True)
class FaithfulnessRow:
    """What taking features away in one order did, for one baseline.

    Attributes:
        baseline: name of what was put in their place.
        order: `"explanation"`, or a control: `"input alone"` ranks features by their distance
            from the baseline without asking the model, `"random"` by a coin.
        deletion: mean output while features go, the first in the order first; low is good.
        insertion: mean output while they come back in the same order; high is good.
        lead: by how much insertion less deletion of the explanation exceeds that of this order,
            paired over rows; zero for the explanation itself.
    """

    baseline: str
    order: str
    deletion: float
    insertion: float
    lead: Interval


@dataclass(frozen=True)
class Faithfulness(Report):
    """Deletion and insertion for several baselines, beside orders that use no model.

    Attributes:
        rows: one for each baseline and order.
        num_examples: number of inputs.
    """

    rows: tuple[FaithfulnessRow, ...]
    num_examples: int

    @property
    def least_lead(self) -> float:
        """The smallest lower end of a lead over a control: above zero, it wins everywhere."""
        return min(row.lead.low for row in self.rows if row.order != ORDERS[0])

    def find_row(self, baseline: str, order: str = ORDERS[0]) -> FaithfulnessRow:
        """Returns the row of one baseline and order.

        Raises:
            InputError: if there is none.
        """
        for row in self.rows:
            if (row.baseline, row.order) == (baseline, order):
                return row
        known = sorted({(row.baseline, row.order) for row in self.rows})
        raise InputError("baseline", f"must be one of {known}", (baseline, order), "choose one")

    def _make_table(self) -> tuple[list[str], list[list[str]]]:
        return ["baseline", "order", "deletion", "insertion", "explanation leads by"], [
            [
                row.baseline,
                row.order,
                f"{row.deletion:.3f}",
                f"{row.insertion:.3f}",
                "" if row.order == ORDERS[0] else f"{row.lead:+.3f}",
            ]
            for row in self.rows
        ]

    def __str__(self) -> str:
        return render_text(*self._make_table())

    def _repr_html_(self) -> str:
        return render_html(*self._make_table())


def measure_faithfulness(
    model: Any,
    explanation: Explanation,
    *,
    baselines: Mapping[str, Any],
    num_steps: int = 16,
    num_random: int = 3,
    seed: int = 0,
) -> Faithfulness:
    """Takes features away in the order of an explanation, and puts them back.

    Args:
        model: the model that was explained, or a function.
        explanation: with values of the shape of its inputs; its first target is judged.
        baselines: by name, what stands for an absent feature: a number, a mean input, the
            identifier of a mask token. Name several: the order of methods depends on it.
        num_steps: parts in which the features go.
        num_random: random orders whose mean is the control.
        seed: of these.

    Returns:
        One row for each baseline and order, with the explanation's lead over each control.

    Raises:
        InputError: if the values do not fit the inputs, there are fewer than two rows, or a
            baseline does not fit.

    Limits:
        An input with features taken away is none that the model was trained on, so a fall of
        the output may be surprise rather than evidence. No baseline is neutral.

    Example:
        >>> weights = np.array([[3.0], [-2], [1], [0]])
        >>> x = np.random.default_rng(0).normal(size=(50, 4))
        >>> known = Explanation(
        ...     "known", (x * weights.T)[..., None], np.zeros((50, 1)), x @ weights, x, (0,))
        >>> found = measure_faithfulness(lambda x: x @ weights, known, baselines={"zero": 0.0})
        >>> found.least_lead > 0
        True

    References:
        Petsiuk, Das and Saenko, RISE: Randomized Input Sampling for Explanation of Black-box
        Models, 2018, BMVC, section 4.2 (deletion and insertion).
    """
    check_integer("num_steps", num_steps, at_least=1)
    check_integer("num_random", num_random, at_least=1)
    if not baselines:
        raise InputError("baselines", "must name one or more", "none", "pass {'zero': 0.0}")
    values, inputs = _check_values(explanation)
    predict, target = build_predict_fn(model), explanation.targets[0]
    draws = np.random.default_rng(seed)
    rows = []
    for name, baseline in baselines.items():
        absent = _spread_baseline(name, baseline, inputs)
        orders = {
            ORDERS[0]: [_rank(values)],
            ORDERS[1]: [_rank(np.abs(inputs.astype(np.float64) - absent).reshape(len(inputs), -1))],
            ORDERS[2]: [draws.permuted(_rank(values), axis=1) for _ in range(num_random)],
        }
        curves = {
            order: np.mean(
                [
                    _measure_areas(predict, inputs, absent, each, num_steps, target)
                    for each in ranks
                ],
                axis=0,
            )
            for order, ranks in orders.items()
        }
        best = curves[ORDERS[0]]
        for order, (deletion, insertion) in curves.items():
            lead = (best[1] - best[0]) - (insertion - deletion)
            rows.append(
                FaithfulnessRow(
                    name,
                    order,
                    float(deletion.mean()),
                    float(insertion.mean()),
                    bootstrap_interval(lead),
                )
            )
    return Faithfulness(tuple(rows), len(inputs))


def measure_infidelity(
    model: Any,
    explanation: Explanation,
    *,
    baseline: Any = 0.0,
    num_samples: int = 200,
    seed: int = 0,
) -> np.ndarray:
    """Mean squared error of the values as a forecast of what taking features away does.

    Random subsets of features are set to the baseline; the sum of their values foretells by how
    much the output falls. The error is divided by that of forecasting the mean fall always, so
    that one is no better than that.

    Args:
        model: the model that was explained, or a function.
        explanation: with values of the shape of its inputs; its first target is judged.
        baseline: what stands for an absent feature.
        num_samples: subsets for each row.
        seed: of the draws.

    Returns:
        One ratio for each row, shape `(num_rows,)`. The values are scaled by the one factor
        that serves them best, so a method in other units is not punished for them.

    Raises:
        InputError: if the values do not fit the inputs, or a row's output never changes.

    Limits:
        Each feature is taken away with probability one half. Small perturbations would judge
        gradients better.

    References:
        Yeh, Hsieh, Suggala, Inouye and Ravikumar, On the (In)fidelity and Sensitivity of
        Explanations, 2019, NeurIPS, definition 2.1 and the scaling of section 5.
    """
    check_integer("num_samples", num_samples, at_least=10)
    values, inputs = _check_values(explanation)
    predict, target = build_predict_fn(model), explanation.targets[0]
    absent = _spread_baseline("baseline", baseline, inputs)
    draws = np.random.default_rng(seed)
    found = []
    for x, at_rest, row in zip(inputs, absent, values, strict=True):
        gone = draws.random((num_samples, row.size)) < 0.5
        masked = np.where(gone.reshape(num_samples, *x.shape), at_rest, x)
        falls = predict(x[None])[0, target] - predict(masked)[:, target]
        forecasts = gone @ row
        spread = falls - falls.mean()
        if not np.any(np.abs(spread) > 1e-12):
            raise InputError(
                "model",
                "must change its output where features are taken away",
                "the same output for every subset",
                "pass another baseline or another row",
            )
        scale = forecasts @ falls / max(forecasts @ forecasts, 1e-300)
        found.append(np.mean((falls - scale * forecasts) ** 2) / np.mean(spread**2))
    return np.array(found)


def _check_values(explanation: Explanation) -> tuple[np.ndarray, np.ndarray]:
    """Returns the values of the first target as `(num_rows, num_features)`, and the inputs."""
    values, inputs = explanation.values[..., 0], np.asarray(explanation.inputs)
    if values.shape != inputs.shape:
        raise InputError(
            "explanation",
            "must have one value for each entry of its inputs",
            f"values {values.shape} for inputs {inputs.shape}",
            "paint the values of segments or groups onto the inputs first",
        )
    if len(inputs) < 2:
        raise InputError("explanation", "must hold two rows or more", len(inputs), "explain more")
    return values.reshape(len(values), -1), inputs


def _spread_baseline(name: str, baseline: Any, inputs: np.ndarray) -> np.ndarray:
    array = check_array("baselines", baseline)
    try:
        return np.broadcast_to(array.astype(inputs.dtype), inputs.shape)
    except ValueError:
        raise InputError(
            "baselines",
            f"must fit inputs of shape {inputs.shape}",
            f"{name} of shape {array.shape}",
            "pass a number, one input, or one for each row",
        ) from None


def _rank(scores: np.ndarray) -> np.ndarray:
    """Place of each feature when the largest score comes first, `(num_rows, num_features)`."""
    return np.argsort(np.argsort(-scores, axis=1, kind="stable"), axis=1)


def _measure_areas(
    predict: PredictFn,
    inputs: np.ndarray,
    absent: np.ndarray,
    ranks: np.ndarray,
    num_steps: int,
    target: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Mean output of each row under deletion and under insertion."""
    counts = np.unique(np.linspace(0, ranks.shape[1], num_steps + 1).astype(int))
    first = ranks[:, None] < counts[:, None]  # (rows, steps, features)
    first = first.reshape(len(inputs), len(counts), *inputs.shape[1:])
    areas = []
    for gone in (first, ~first):
        masked = np.where(gone, absent[:, None], inputs[:, None])
        outputs = predict(masked.reshape(-1, *inputs.shape[1:]))[:, target]
        areas.append(_integrate(outputs.reshape(len(inputs), -1), counts / ranks.shape[1]))
    return areas[0], areas[1]


def _integrate(outputs: np.ndarray, shares: np.ndarray) -> np.ndarray:
    return np.asarray(np.trapezoid(outputs, shares, axis=1))
