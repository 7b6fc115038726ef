"""Explanation of predictions: local surrogates, Shapley values, gradients, and their tests."""

from ._faithfulness import (
    Faithfulness,
    FaithfulnessRow,
    measure_faithfulness,
    measure_infidelity,
)
from ._lime_image import ImageSegments, explain_with_lime_image, make_grid_segments
from ._lime_tabular import explain_with_lime_tabular
from ._lime_text import explain_with_lime_text, explain_with_lime_tokens
from ._plots import Markup, plot_beeswarm, plot_image, plot_waterfall, render_tokens
from ._predict import build_predict_fn
from ._result import Explanation
from ._similarity import (
    Similarity,
    compare_explanations,
    measure_stability,
    randomize_weights,
)
from ._verdict import ExplanationVerdict, Finding, check_explanation

__all__ = [
    "Explanation",
    "ExplanationVerdict",
    "Faithfulness",
    "FaithfulnessRow",
    "Finding",
    "ImageSegments",
    "Markup",
    "Similarity",
    "build_predict_fn",
    "check_explanation",
    "compare_explanations",
    "explain_with_lime_image",
    "explain_with_lime_tabular",
    "explain_with_lime_text",
    "explain_with_lime_tokens",
    "make_grid_segments",
    "measure_faithfulness",
    "measure_infidelity",
    "measure_stability",
    "plot_beeswarm",
    "plot_image",
    "plot_waterfall",
    "randomize_weights",
    "render_tokens",
]
