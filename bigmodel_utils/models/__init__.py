"""Reference models: small, written against Keras 3, run on every backend.

An image classifier, the source article's; a recurrent classifier of texts; a decoder-only
transformer, its attention, its optimizer, and its form with a cache for generating.
"""

from ._attention import RotaryAttention, build_cached_model, make_empty_cache
from ._causality import measure_future_dependence
from ._image import (
    ATTENTION_REPAIRS,
    build_image_classifier,
    build_printed_classifier,
    build_small_image_classifier,
    measure_batch_dependence,
)
from ._loading import load_model_safely
from ._memory import ForgetBias
from ._receptive import ReceptiveField, count_receptive_field
from ._recurrent import build_lstm_classifier
from ._release import measure_release_difference
from ._transformer import (
    LanguageModelSettings,
    MatrixAdamW,
    approximate_gelu,
    build_language_model,
)

__all__ = [
    "ATTENTION_REPAIRS",
    "ForgetBias",
    "LanguageModelSettings",
    "MatrixAdamW",
    "ReceptiveField",
    "RotaryAttention",
    "approximate_gelu",
    "build_cached_model",
    "build_image_classifier",
    "build_language_model",
    "build_lstm_classifier",
    "build_printed_classifier",
    "build_small_image_classifier",
    "count_receptive_field",
    "load_model_safely",
    "make_empty_cache",
    "measure_batch_dependence",
    "measure_future_dependence",
    "measure_release_difference",
]
