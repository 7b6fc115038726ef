"""shap's DeepExplainer behind a guard: what it can do, a check of its sum, no after-effects."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from .._checks import InputError, check_array, import_extra
from ._kernel_shap import check_background
from ._predict import build_predict_fn
from ._result import Explanation, choose_targets
from ._shap import import_shap

# Measured one by one; for others shap raises errors that do not name the layer, or is wrong.
LAYERS = frozenset(
    {
        *("InputLayer", "Dense", "Conv1D", "Conv2D", "BatchNormalization", "RMSNormalization"),
        *("MaxPooling1D", "MaxPooling2D", "GlobalAveragePooling1D", "GlobalAveragePooling2D"),
        *("Add", "Multiply", "Concatenate", "UpSampling1D", "UpSampling2D", "Flatten", "Reshape"),
        *("Activation", "Dropout", "SpatialDropout1D", "SpatialDropout2D"),
    }
)
ACTIVATIONS = frozenset(
    {
        *("linear", "relu", "sigmoid", "tanh", "elu", "selu", "softplus", "mish", "softmax"),
        "exponential",
    }
)
TOLERANCE = 1e-4  # of the largest output; float32 leaves about 1e-6


def explain_with_deep_shap(
    model: Any,
    inputs: np.ndarray,
    *,
    background: np.ndarray,
    targets: int | Sequence[int] | None = None,
) -> Explanation:
    """DeepSHAP by `shap`, refused where it would be wrong, and without its after-effects.

    The rule passes differences from each background row back through the layers. A failed run
    of `shap` leaves TensorFlow unable to train; here it is put right in any case.

    Args:
        model: a built functional or sequential Keras model in float32, of the layers below.
        inputs: rows to explain, `(num_rows, *feature_shape)`.
        background: `(num_background, *feature_shape)`.
        targets: outputs to explain; all by default.

    Returns:
        `values` of shape `(num_rows, *feature_shape, num_targets)`. In `diagnostics`:
        `completeness_error`, by how much they miss the output less `base_values`, the mean
        output over the background.

    Raises:
        InputError: if a layer or activation is not one of those measured to be right, the sum
            is off by more than a ten-thousandth of the largest output, or Keras does not run on
            TensorFlow.
        MissingExtraError: if shap is not installed.

    Limits:
        Right are dense, convolution (not depthwise, not transposed), batch and root-mean-square
        normalization, maximum and global average pooling, sums, products, and the activations
        linear, relu, sigmoid, tanh, elu, selu, softplus, mish, softmax and exponential. The
        values are Shapley's only for models that are close to linear in each step; adding up
        does not make them so.

    Example:
        >>> import keras
        >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
        >>> model.set_weights([np.array([[2.0], [5.0]]), np.zeros(1)])
        >>> found = explain_with_deep_shap(model, np.ones((1, 2)), background=np.zeros((1, 2)))
        >>> found.values[0, :, 0].tolist()
        [2.0, 5.0]

    References:
        S. Lundberg, S.-I. Lee, A Unified Approach to Interpreting Model Predictions, NeurIPS,
        2017. A. Shrikumar, P. Greenside, A. Kundaje, Learning Important Features Through
        Propagating Activation Differences, ICML, 2017.
    """
    _check_model(model)
    rows = check_array("inputs", inputs).astype(np.float32)
    known = check_background(background, rows)[0].astype(np.float32)
    predict = build_predict_fn(model)
    outputs, base = predict(rows), predict(known).mean(axis=0)
    places = list(choose_targets(targets, num_outputs=outputs.shape[1]))
    shap = import_shap()
    with keep_gradients(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of versions long past
        found = shap.DeepExplainer(model, known).shap_values(rows, check_additivity=False)
    values = np.asarray(found, dtype=np.float64).reshape(*rows.shape, -1)[..., places]
    sums = values.reshape(len(rows), -1, len(places)).sum(axis=1)
    errors = np.abs(base[places] + sums - outputs[:, places])
    _check_sums(errors, scale=float(np.abs(outputs).max()))
    return Explanation(
        f"DeepSHAP (shap {shap.__version__})",
        values,
        np.tile(base[places], (len(rows), 1)),
        outputs[:, places],
        rows,
        tuple(places),
        diagnostics={"completeness_error": errors},
    )


@contextmanager
def keep_gradients() -> Iterator[None]:
    """Puts back what shap replaces in TensorFlow and, when it fails, leaves replaced."""
    execute: Any = import_extra("tensorflow.python.eager.execute", extra="tensorflow")
    record = execute.record_gradient
    try:
        yield
    finally:
        execute.record_gradient = record


def _check_model(model: Any) -> None:
    import keras

    if keras.backend.backend() != "tensorflow":
        raise InputError(
            "model",
            "must run on TensorFlow",
            f"the backend {keras.backend.backend()}",
            "use `explain_with_expected_gradients` or `explain_with_kernel_shap`",
        )
    if not isinstance(model, keras.Model) or not getattr(model, "inputs", None):
        raise InputError(
            "model",
            "must be a functional or sequential Keras model",
            type(model).__name__,
            "use `explain_with_kernel_shap`",
        )
    faults = [fault for layer in _list_layers(model) for fault in _find_faults(layer)]
    if faults:
        raise InputError(
            "model",
            "must have layers that DeepSHAP explains rightly",
            "; ".join(faults[:3]),
            "use `explain_with_expected_gradients` or `explain_with_kernel_shap`",
        )


def _list_layers(model: Any) -> Iterator[Any]:
    for layer in model.layers:
        if hasattr(layer, "layers"):
            yield from _list_layers(layer)
        else:
            yield layer


def _find_faults(layer: Any) -> Iterator[str]:
    kind = type(layer).__name__
    if kind not in LAYERS or not type(layer).__module__.startswith("keras."):
        yield f"`{layer.name}` is a {kind}"
    activation = getattr(layer, "activation", None)
    name = getattr(activation, "__name__", type(activation).__name__)
    if activation is not None and name not in ACTIVATIONS:
        yield f"`{layer.name}` has the activation {name}"
    if layer.compute_dtype != "float32" and kind != "InputLayer":
        yield f"`{layer.name}` computes in {layer.compute_dtype}"


def _check_sums(errors: np.ndarray, *, scale: float) -> None:
    worst = float(errors.max())
    if worst > TOLERANCE * max(scale, 1e-12):
        raise InputError(
            "model",
            f"must be explained to {TOLERANCE:g} of its largest output",
            f"values that miss it by {worst:.2g}, where outputs reach {scale:.2g}",
            "use `explain_with_expected_gradients` or `explain_with_kernel_shap`",
        )
