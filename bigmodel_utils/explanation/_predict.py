"""Predictions at the speed of the forward pass: what every explainer spends its time on."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .._checks import InputError, check_integer
from ._compiled import compile_once

PredictFn = Callable[[np.ndarray], np.ndarray]
"""Takes inputs `(num_examples, …)` and returns outputs `(num_examples, num_outputs)`."""


def build_predict_fn(model: Any, *, batch_size: int = 256) -> PredictFn:
    """Compiles a model's forward pass once, for inputs in any number.

    An explainer asks for thousands of predictions in many small calls. `Model.predict` builds a
    data pipeline on each of them; this does not. What is compiled lives as long as the model and
    follows its weights: a second function for the same model costs nothing.

    Args:
        model: a built Keras model with one input and one output of shape
            `(batch, num_outputs)`. A function that is no Keras model is wrapped in the checks
            alone, so that an explainer may take either.
        batch_size: most examples in one forward pass.

    Returns:
        A function of an array `(num_examples, …)` that returns float64 outputs of shape
        `(num_examples, num_outputs)`, in inference mode. It raises `InputError` for inputs
        that are not finite, and for outputs that are not finite, not of that shape, or of
        another width than before.

    Raises:
        InputError: if the model is not built, has several inputs or outputs, or its output has
            another rank.

    Limits:
        Under JAX each call is padded to whole batches, since a compiled program there knows one
        shape only.

    Example:
        >>> import keras
        >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(3)])
        >>> build_predict_fn(model)(np.ones((5, 2))).shape
        (5, 3)
    """
    size = check_integer("batch_size", batch_size, at_least=1)
    if _is_keras_model(model):
        _check_model(model)
        return _guard(_make_batches(_compile(model, size), size))
    if not callable(model):
        raise InputError(
            "model",
            "must be a Keras model or a function of a batch of inputs",
            type(model).__name__,
            "pass `lambda x: …` that returns an array (num_examples, num_outputs)",
        )
    return _guard(_make_batches(model, size))


def _is_keras_model(model: Any) -> bool:
    import keras

    return isinstance(model, keras.Model)


def _check_model(model: Any) -> None:
    if not model.built:
        raise InputError("model", "must be built", "a model never called", "call it on a batch")
    inputs, outputs = getattr(model, "inputs", None), getattr(model, "outputs", None)
    if inputs is None or outputs is None:
        return  # A subclassed model: its first prediction is checked instead.
    if len(inputs) != 1 or len(outputs) != 1:
        raise InputError(
            "model",
            "must have one input and one output",
            f"{len(inputs)} and {len(outputs)}",
            "pass a function of one array",
        )
    if len(outputs[0].shape) != 2:
        raise InputError(
            "model",
            "must return one row of outputs for each example",
            f"outputs of shape {outputs[0].shape}",
            "pass a function that selects a position: `lambda x: model(x)[:, -1]`",
        )


def _compile(model: Any, batch_size: int) -> PredictFn:
    import keras

    if keras.backend.backend() == "jax":
        return _compile_jax(model, batch_size)
    if keras.backend.backend() == "tensorflow":
        return _compile_tensorflow(model)
    return lambda x: np.asarray(keras.ops.convert_to_numpy(model(x, training=False)))


def _compile_tensorflow(model: Any) -> PredictFn:
    import tensorflow as tf

    def build(find_model: Callable[[], Any]) -> Any:
        return tf.function(lambda x: find_model()(x, training=False), reduce_retracing=True)

    call = compile_once(model, "predict", build=build)
    return lambda x: np.asarray(call(tf.convert_to_tensor(_cast(x, model))))


def _compile_jax(model: Any, batch_size: int) -> PredictFn:
    import jax

    def build(find_model: Callable[[], Any]) -> Any:
        return jax.jit(lambda x, weights: call_with_weights(find_model(), x, weights=weights))

    call = compile_once(model, "predict", build=build)

    def run(x: np.ndarray) -> np.ndarray:
        count = len(x)
        # Powers of two: at most a few programs, and a single row is not padded to a batch.
        size = min(batch_size, 1 << (count - 1).bit_length())
        padded = np.concatenate([x, np.repeat(x[-1:], size - count, axis=0)])
        return np.asarray(call(_cast(padded, model), read_weights(model)))[:count]

    return run


def read_weights(model: Any) -> list[Any]:
    """Values of all variables, as `call_with_weights` takes them."""
    return [variable.value for variable in _list_variables(model)]


def call_with_weights(model: Any, x: Any, *, weights: Sequence[Any]) -> Any:
    """Outputs in inference mode with the weights as arguments, so that no program holds them.

    `Model.stateless_call` leaves it to the model whether it is trained.
    """
    import keras

    mapping = list(zip(_list_variables(model), weights, strict=True))
    with keras.StatelessScope(state_mapping=mapping):
        return model(x, training=False)


def _list_variables(model: Any) -> list[Any]:
    return [*model.trainable_variables, *model.non_trainable_variables]


def _cast(x: np.ndarray, model: Any) -> np.ndarray:
    # A subclassed model does not say what it takes: integers stay integers there.
    if getattr(model, "inputs", None):
        return np.asarray(x, dtype=model.inputs[0].dtype)
    return np.asarray(x, dtype="float32" if x.dtype.kind == "f" else "int32")


def _make_batches(run: Callable[[Any], Any], batch_size: int) -> Callable[[np.ndarray], Any]:
    def predict(x: np.ndarray) -> Any:
        if len(x) <= batch_size:
            return run(x)
        parts = np.array_split(np.arange(len(x)), math.ceil(len(x) / batch_size))
        return np.concatenate([np.asarray(run(x[part])) for part in parts])

    return predict


def _guard(predict: Callable[[np.ndarray], Any]) -> PredictFn:
    """Checks what goes in and what comes out; remembers the width of the first outputs."""
    width = 0

    def run(inputs: np.ndarray) -> np.ndarray:
        nonlocal width
        x = np.asarray(inputs)
        _check_inputs(x)
        outputs = np.asarray(predict(x), dtype=np.float64)
        if outputs.ndim != 2 or len(outputs) != len(x):
            raise InputError(
                "model",
                f"must return outputs of shape ({len(x)}, num_outputs) for {len(x)} inputs",
                f"shape {outputs.shape}",
                "for one output per example, return a column: `y[:, None]`",
            )
        if width and outputs.shape[1] != width:
            raise InputError(
                "model",
                "must return as many outputs as before",
                f"{outputs.shape[1]} after {width}",
                "pass a function whose outputs mean the same each time",
            )
        if not np.isfinite(outputs).all():
            row = int(np.flatnonzero(~np.isfinite(outputs).all(axis=1))[0])
            raise InputError(
                "model", "must return finite outputs", outputs[row], "look at its input"
            )
        width = outputs.shape[1]
        return outputs

    return run


def _check_inputs(x: np.ndarray) -> None:
    if x.ndim == 0 or len(x) == 0:
        raise InputError("inputs", "must be a batch", f"shape {x.shape}", "pass `x[None]`")
    if x.dtype.kind == "f" and not np.isfinite(x).all():
        raise InputError(
            "inputs", "must be finite", "NaN or infinity", "drop or impute these examples"
        )
