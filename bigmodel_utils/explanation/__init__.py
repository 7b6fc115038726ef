"""Explanation of predictions: local surrogates, Shapley values, gradients, and their tests."""

from ._coalitions import solve_game
from ._cut import CutModel, build_cut_model
from ._deep import explain_with_deep_shap
from ._faithfulness import (
    Faithfulness,
    FaithfulnessRow,
    measure_faithfulness,
    measure_infidelity,
)
from ._gradients import explain_with_expected_gradients, explain_with_integrated_gradients
from ._kernel_shap import (
    GroupedBackground,
    SamplingBudget,
    explain_tokens_with_shapley,
    explain_with_kernel_shap,
)
from ._lime_image import ImageSegments, explain_with_lime_image, make_grid_segments
from ._lime_tabular import explain_with_lime_tabular
from ._lime_text import explain_with_lime_text, explain_with_lime_tokens
from ._plots import Markup, plot_beeswarm, plot_image, plot_waterfall, render_tokens
from ._predict import build_predict_fn
from ._result import Explanation
from ._shapley import explain_with_shapley
from ._similarity import (
    Similarity,
    compare_explanations,
    measure_stability,
    randomize_weights,
)
from ._verdict import ExplanationVerdict, Finding, check_explanation

__all__ = [
    "CutModel",
    "Explanation",
    "ExplanationVerdict",
    "Faithfulness",
    "FaithfulnessRow",
    "Finding",
    "GroupedBackground",
    "ImageSegments",
    "Markup",
    "SamplingBudget",
    "Similarity",
    "build_cut_model",
    "build_predict_fn",
    "check_explanation",
    "compare_explanations",
    "explain_tokens_with_shapley",
    "explain_with_deep_shap",
    "explain_with_expected_gradients",
    "explain_with_integrated_gradients",
    "explain_with_kernel_shap",
    "explain_with_lime_image",
    "explain_with_lime_tabular",
    "explain_with_lime_text",
    "explain_with_lime_tokens",
    "explain_with_shapley",
    "make_grid_segments",
    "measure_faithfulness",
    "measure_infidelity",
    "measure_stability",
    "plot_beeswarm",
    "plot_image",
    "plot_waterfall",
    "randomize_weights",
    "render_tokens",
    "solve_game",
]
