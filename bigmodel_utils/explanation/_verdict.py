"""One verdict on an explainer, with its reasons: what an auditor asks for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from .._checks import check_choice
from .._report import render_html, render_text
from ._faithfulness import measure_faithfulness
from ._similarity import (
    Explain,
    compare_explanations,
    measure_stability,
    randomize_weights,
    run_explain,
)

BOUNDS = {"stability": 0.8, "faithfulness": 0.0, "randomization": 0.5, "additivity": 0.01}


@dataclass(frozen=True)
class Finding:
    """One question to an explainer, and its answer.

    Attributes:
        name: what was asked.
        value: what was measured.
        bound: what it was held against.
        passed: whether it held.
        meaning: what a failure would say.
    """

    name: str
    value: float
    bound: str
    passed: bool
    meaning: str


@dataclass(frozen=True)
class ExplanationVerdict:
    """Whether an explainer may be trusted on a model, and why.

    Attributes:
        findings: each question with its answer.
    """

    findings: tuple[Finding, ...]

    @property
    def passed(self) -> bool:
        """Whether all findings passed."""
        return all(finding.passed for finding in self.findings)

    @property
    def reasons(self) -> tuple[str, ...]:
        """What failed, and what it means; empty if nothing did."""
        return tuple(f"{f.name}: {f.meaning}" for f in self.findings if not f.passed)

    def to_dict(self) -> dict[str, Any]:
        """Returns the verdict as plain data, ready for JSON."""
        return {
            "passed": self.passed,
            "findings": [dict(vars(finding)) for finding in self.findings],
        }

    def _make_table(self) -> tuple[list[str], list[list[str]]]:
        return ["question", "measured", "bound", "verdict"], [
            [f.name, f"{f.value:.3g}", f.bound, "passed" if f.passed else f"failed: {f.meaning}"]
            for f in self.findings
        ]

    def __str__(self) -> str:
        return render_text(*self._make_table())

    def _repr_html_(self) -> str:
        return render_html(*self._make_table())


def check_explanation(
    model: Any,
    inputs: Any,
    *,
    explain: Explain,
    baselines: Mapping[str, Any],
    features: Any = None,
    bounds: Mapping[str, float] | None = None,
) -> ExplanationVerdict:
    """Asks four questions of an explainer, each of which some popular one fails.

    Does another seed give the same values? Do the features it names matter more than those of
    a control that does not ask the model, whatever stands for an absent feature? Do the values
    change when the model's weights are shuffled? Do they add up to what they explain, where the
    method promises it?

    Args:
        model: a Keras model that can be cloned.
        inputs: `(num_rows, …)`, eight rows or more for intervals that mean something.
        explain: called as `explain(model, inputs, seed=…)`, or without the seed if it takes none;
            with values of the inputs' shape.
        baselines: by name, what stands for an absent feature; name several.
        features: mask of the features in which shuffled weights are compared, of the shape of
            one row or of all; those that differ from the first baseline by default, since
            a background of zeros looks alike for every model.
        bounds: by finding, another bound than the default: `"stability"` (0.8, least rank
            correlation between seeds), `"faithfulness"` (0, least lower end of a lead over a
            control), `"randomization"` (0.5, largest rank correlation with shuffled weights),
            `"additivity"` (0.01, largest error relative to the spread of the outputs).

    Returns:
        The findings. The verdict names the metric: signed values of the first target.

    Raises:
        InputError: as its parts do.

    Limits:
        Passing is necessary, not sufficient: no test here knows the true explanation.

    References:
        Adebayo and others, Sanity Checks for Saliency Maps, 2018, NeurIPS.
    """
    limits = BOUNDS | {
        check_choice("bounds", name, tuple(BOUNDS)): value for name, value in (bounds or {}).items()
    }
    x = np.asarray(inputs)
    explanation = run_explain(explain, model, inputs=x, seed=0)
    stability = float(measure_stability(model, x, explain=explain).correlations.mean())
    lead = measure_faithfulness(model, explanation, baselines=baselines).least_lead
    if features is None:
        features = x != np.broadcast_to(next(iter(baselines.values())), x.shape)
    shuffled = run_explain(explain, randomize_weights(model), inputs=x, seed=0)
    likeness = float(
        compare_explanations(explanation, shuffled, features=features).correlations.mean()
    )
    spread = np.ptp(explanation.outputs) + np.abs(explanation.outputs).max()
    error = float(explanation.additivity_errors.max() / spread)
    return ExplanationVerdict(
        (
            Finding(
                "the same with another seed",
                stability,
                f"at least {limits['stability']:g}",
                stability >= limits["stability"],
                "its order of features is partly that of its draws; draw more",
            ),
            Finding(
                "better than controls for each baseline",
                lead,
                f"above {limits['faithfulness']:g}",
                lead > limits["faithfulness"],
                "an order that never asks the model does as well for some baseline",
            ),
            Finding(
                "another with shuffled weights",
                likeness,
                f"at most {limits['randomization']:g}",
                likeness <= limits["randomization"],
                "it explains the input, not the model",
            ),
            Finding(
                "adds up to the output",
                error,
                f"at most {limits['additivity']:g}",
                error <= limits["additivity"],
                "its values are no shares of the output; do not read them as such",
            ),
        )
    )
