"""What every transformation asks of a model, and how it makes the copy that it changes."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from .._checks import InputError, check_array

Filters = str | Iterable[str] | Callable[[Any], bool] | None
"""As in `Model.quantize`: patterns of layers' names, or a function of a layer; `None` is all."""


def check_model(model: Any) -> Any:
    """Returns a model whose graph can be read and whose weights are plain numbers.

    Args:
        model: a functional or sequential `keras.Model`.

    Returns:
        The model.

    Raises:
        InputError: if it is no such model, was never built, or is quantized or adapted
            already.
    """
    import keras

    graph = getattr(model, "_functional", model)
    if not isinstance(model, keras.Model) or not hasattr(graph, "operations"):
        raise InputError(
            "model",
            "must be a functional or sequential keras.Model that was built",
            f"{type(model).__name__}{'' if getattr(model, 'built', True) else ', not built'}",
            "begin it with `keras.Input`, or call it once on examples",
        )
    for layer in model._flatten_layers(include_self=False):
        if getattr(layer, "quantization_mode", None) is not None:
            raise InputError(
                "model",
                "must have the weights it was trained with",
                f"layer {layer.name!r}, quantized to {layer.quantization_mode}",
                "pass the model as it was before `quantize`",
            )
        if getattr(layer, "lora_enabled", False):
            raise InputError(
                "model",
                "must have no adapters",
                f"layer {layer.name!r} with LoRA",
                "merge the adapters first",
            )
    return model


def copy_model(model: Any, *, is_compiled: bool = True) -> Any:
    """Makes an equal model that shares no variable with the first.

    Args:
        model: a functional or sequential model; see `check_model`.
        is_compiled: compile the copy as the model is compiled, with a new optimizer.

    Returns:
        A `keras.Model` with the same layers' names and the same weights.

    Raises:
        InputError: if a layer, or what the model is compiled with, cannot be made again from
            its configuration.

    Limits:
        The optimizer's state is not copied: the copy trains from its first step.

    Example:
        >>> import keras
        >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
        >>> copy = copy_model(model)
        >>> copy.layers[0] is model.layers[0], copy.layers[0].name == model.layers[0].name
        (False, True)
    """
    import keras

    check_model(model)
    is_model_compiled = model.compiled
    try:
        # Keras would compile the copy at once, and blame a layer for a loss it cannot make.
        model.compiled = False
        copy = keras.models.clone_model(model)
    except (TypeError, ValueError) as error:
        raise InputError(
            "model", "must be made of layers with `get_config`", str(error), "add it to the layer"
        ) from error
    finally:
        model.compiled = is_model_compiled
    copy.set_weights(model.get_weights())
    if is_compiled:
        compile_alike(copy, model)
    return copy


def compile_alike(copy: Any, model: Any) -> None:
    """Compiles `copy` with what `model` is compiled with; does nothing if it is not.

    Raises:
        InputError: if the loss, a metric or the optimizer cannot be made again.
    """
    if not model.compiled:
        return
    try:
        with warnings.catch_warnings():
            # Keras warns of a function without a name, then refuses to make it again.
            warnings.simplefilter("ignore", UserWarning)
            copy.compile_from_config(model.get_compile_config())
    except (TypeError, ValueError) as error:
        raise _make_compile_error(str(error)) from error
    if not copy.compiled:
        raise _make_compile_error("a loss or metric without a configuration")


def matches_filters(layer: Any, filters: Filters) -> bool:
    """Whether a layer is one that the filters mean."""
    if filters is None:
        return True
    if callable(filters):
        return bool(filters(layer))
    patterns = [filters] if isinstance(filters, str) else filters
    return any(re.search(pattern, layer.name) for pattern in patterns)


def choose_layers(
    layers: Iterable[Any], filters: Filters, *, explain: Callable[[Any], str | None], wanted: str
) -> tuple[list[Any], dict[str, str]]:
    """Splits layers into those to change and those that stay.

    Args:
        layers: in the order of the model.
        filters: those of the caller, named in the error.
        explain: says why a layer stays as it is, or `None`.
        wanted: what a layer must be, for the error: "that can be split".

    Returns:
        The layers to change, and the reasons of the others by name.

    Raises:
        InputError: if none is left to change.
    """
    chosen, left_out = [], {}
    for layer in layers:
        reason = explain(layer)
        if reason is None:
            chosen.append(layer)
        else:
            left_out[layer.name] = reason
    if not chosen:
        raise InputError(
            "model" if filters is None else "filters",
            f"must leave a layer {wanted}",
            "; ".join(f"{name}: {reason}" for name, reason in left_out.items()) or "none",
            "name other layers; `left_out` of a report says why one stays",
        )
    return chosen, left_out


def has_matrix(weights: Iterable[Any]) -> bool:
    """Whether a weight has two axes or more: scales and shifts have one."""
    return any(len(weight.shape) > 1 for weight in weights)


def to_numpy(tensor: Any) -> np.ndarray:
    """A variable or tensor of any backend as an array."""
    import keras

    return np.asarray(keras.ops.convert_to_numpy(tensor))


def check_examples(examples: Any) -> np.ndarray:
    """Returns inputs of a model as a finite array of shape `(num_examples, …)`.

    Raises:
        InputError: if there are none or a number is not finite.
    """
    array = check_array("examples", examples)
    if array.ndim < 2:
        raise InputError(
            "examples",
            "must be a batch of inputs",
            f"shape {array.shape}",
            "pass an array of shape (num_examples, …)",
        )
    return array


def predict(model: Any, examples: np.ndarray, *, batch_size: int = 64) -> np.ndarray:
    """Outputs of a model in inference mode, as float64."""
    outputs = model.predict(examples, batch_size=batch_size, verbose=0)
    return np.asarray(outputs, dtype=np.float64)


def _make_compile_error(received: str) -> InputError:
    return InputError(
        "model",
        "must be compiled with what Keras can make again, or not at all",
        received,
        "register the object with `keras.saving.register_keras_serializable`",
    )
