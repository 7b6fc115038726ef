"""Keras models with integer weights, and which of their weights became integers."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from .._checks import InputError, check_choice, check_integer
from .._report import Report, format_count
from ._gptq import quantize_with_gptq
from ._models import (
    Filters,
    check_examples,
    check_model,
    compile_alike,
    copy_model,
    to_numpy,
)
from ._result import Compressed, make_report

MODES = ("int8", "int4")
METHODS = ("nearest", "gptq")


@dataclass(frozen=True)
class Coverage(Report):
    """Which weights of a model are integers.

    Attributes:
        num_parameters: numbers in all weights, scales and zero points not counted.
        num_integers: how many of them are integers.
        modes: `"int8"` or `"int4"` by the name of each layer that has integers.
        left_float: layers with a matrix or a larger array of floats, by name, and why. Layers
            of vectors alone, such as normalizations, are in the counts only.
    """

    num_parameters: int
    num_integers: int
    modes: Mapping[str, str]
    left_float: Mapping[str, str]

    @property
    def share(self) -> float:
        """Share of the parameters that are integers."""
        return self.num_integers / self.num_parameters

    def _list_rows(self) -> list[tuple[str, str]]:
        return [
            ("parameters", format_count(self.num_parameters)),
            ("integers", f"{self.share:.1%}"),
            *((f"float: {name}", why) for name, why in self.left_float.items()),
        ]


def count_coverage(model: Any) -> Coverage:
    """Counts which weights of a Keras model are integers.

    Args:
        model: a built `keras.Model`, quantized or not.

    Returns:
        Counts, and the layers by name.

    Limits:
        Whether the layer also multiplies integers is another question: at 8 bits Keras
        quantizes the inputs as they come, at 4 bits it turns the weights back to floats.

    Example:
        >>> import keras
        >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4, use_bias=False)])
        >>> count_coverage(model).share
        0.0
    """
    modes, left, counts = {}, {}, {True: 0, False: 0}
    for layer in _list_layers(model):
        mode = _get_mode(layer)
        sizes = _count_weights(layer)
        for size, is_integer, is_matrix in sizes:
            counts[is_integer] += size
            if is_matrix and not is_integer:
                left[layer.name] = _explain(layer)
        if mode is not None:
            modes[layer.name] = mode
    return Coverage(counts[True] + counts[False], counts[True], modes, left)


def quantize_weights(
    model: Any,
    examples: Any,
    *,
    mode: str = "int8",
    method: str = "nearest",
    filters: Filters = None,
    block_size: int | None = 128,
) -> Compressed:
    """Makes a model with integer weights, in the layers and the format of Keras.

    Args:
        model: a functional or sequential `keras.Model`, not quantized.
        examples: inputs of shape `(num_examples, …)`: GPTQ rounds for them, and the two models
            are compared on them.
        mode: `"int8"` or `"int4"`.
        method: `"nearest"` rounds each weight to the nearest integer; `"gptq"`, for `"int4"`,
            makes up for the error of each by those that follow, in each `Dense` layer, which
            is given what the already rounded layers before it put out.
        filters: which layers are quantized: regular expressions of names, or a function of the
            layer; all that can be, if left out.
        block_size: inputs that share a step and a zero point; used by `"int4"` alone. `None`
            is one step for each output.

    Returns:
        The new model, compiled as the first, and its report. `report.left_out` names the layers
        with matrices of floats.

    Raises:
        InputError: if the model is unfit, `"gptq"` is asked for with `"int8"`, or no layer
            became integers.

    Limits:
        Keras has integers for `Dense`, `EinsumDense`, `Embedding` and `ReversibleEmbedding`
        alone, and not for classes made from them: convolutions stay as they are. GPTQ rounds
        `Dense` layers; the others are rounded to the nearest. It holds the inputs of a layer on
        all examples in memory. Integers are not trained: what is left to train are biases and
        normalizations.

    Example:
        >>> import keras
        >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4)])
        >>> quantized = quantize_weights(model, np.eye(8), mode="int4", block_size=None)
        >>> quantized.report.before.weight_bytes, quantized.report.after.weight_bytes
        (144, 48)

    References:
        Frantar et al., GPTQ: Accurate Post-Training Quantization for Generative Pre-trained
        Transformers (2023).
    """
    inputs = _check_request(model, examples, mode=mode, method=method, block_size=block_size)
    changed = copy_model(model, is_compiled=False)
    with warnings.catch_warnings():
        # Keras warns of each layer that stays as it is; the report names them.
        warnings.simplefilter("ignore", UserWarning)
        changed.quantize(config=make_config(mode, block_size), filters=filters)
    coverage = count_coverage(changed)
    if not coverage.modes:
        raise InputError(
            "model and filters",
            "must leave a layer that Keras can quantize",
            "none",
            "look at `count_coverage(model)`; export the model to quantize convolutions",
        )
    if method == "gptq":
        _round_again(model, changed, inputs, block_size)
    # Not before: an optimizer keeps moments of what it was built for, kernels of floats too.
    compile_alike(changed, model)
    report = make_report(
        model,
        changed,
        method=_describe(mode, method, block_size),
        examples=inputs,
        left_out=coverage.left_float,
    )
    return Compressed(changed, report)


def make_config(mode: str, block_size: int | None) -> Any:
    """The configuration of Keras that quantizes weights as `quantize_weights` says."""
    from keras.quantizers import Int4QuantizationConfig, Int8QuantizationConfig

    if mode == "int8":
        return Int8QuantizationConfig()
    return Int4QuantizationConfig(block_size=block_size)


def _check_request(
    model: Any, examples: Any, *, mode: str, method: str, block_size: int | None
) -> np.ndarray:
    check_model(model)
    check_choice("mode", mode, MODES)
    check_choice("method", method, METHODS)
    if method == "gptq" and mode != "int4":
        raise InputError(
            "method",
            'must be "nearest" for mode="int8"',
            method,
            "pass mode='int4': at 8 bits the nearest integers are as good",
        )
    if block_size is not None:
        check_integer("block_size", block_size, at_least=1)
    return check_examples(examples)


def _describe(mode: str, method: str, block_size: int | None) -> str:
    blocks = f", blocks of {block_size}" if mode == "int4" and block_size else ""
    return f"{mode} weights{blocks}, rounded {'by GPTQ' if method == 'gptq' else 'to nearest'}"


def _round_again(model: Any, changed: Any, inputs: np.ndarray, block_size: int | None) -> None:
    """Replaces the integers of each `Dense` layer while one forward pass goes through them."""
    pairs = zip(_list_layers(model), _list_layers(changed), strict=True)
    kernels = {
        id(new): np.asarray(to_numpy(old.kernel), np.float32)
        for old, new in pairs
        if type(new).__name__ == "Dense" and _get_mode(new) == "int4"
    }
    dense = [layer for layer in _list_layers(changed) if id(layer) in kernels]

    def round_layer(layer: Any, tensor: Any) -> None:
        kernel = kernels.pop(id(layer), None)
        if kernel is None:  # A layer that is used twice is rounded for its first inputs.
            return
        seen = to_numpy(tensor).reshape(-1, len(kernel))
        result = quantize_with_gptq(kernel, seen, num_bits=4, block_size=block_size)
        _assign(layer, result.integers)

    with _watch(dense, round_layer):
        changed(inputs, training=False)


def _assign(layer: Any, integers: np.ndarray) -> None:
    from keras.quantizers import pack_int4

    packed, _, _ = pack_int4(integers, axis=-1)
    layer._kernel.assign(packed)


@contextmanager
def _watch(layers: Sequence[Any], look: Callable[[Any, Any], None]) -> Iterator[None]:
    """Calls `look(layer, inputs)` each time that one of the layers is about to be called."""

    def make(layer: Any, call: Callable[..., Any]) -> Callable[..., Any]:
        def quantized_call(inputs: Any, *arguments: Any, **options: Any) -> Any:
            look(layer, inputs)
            return call(inputs, *arguments, **options)

        return quantized_call

    for layer in layers:
        object.__setattr__(layer, "quantized_call", make(layer, layer.quantized_call))
    try:
        yield
    finally:
        for layer in layers:
            object.__delattr__(layer, "quantized_call")


def _list_layers(model: Any) -> list[Any]:
    """All layers that hold weights of their own, nested ones too, in a fixed order."""
    return [
        layer
        for layer in model._flatten_layers(include_self=False)
        if layer._trainable_variables or layer._non_trainable_variables
    ]


def _get_mode(layer: Any) -> str | None:
    mode = getattr(layer, "quantization_mode", None)
    return mode if getattr(layer, "_is_quantized", False) else None


def _count_weights(layer: Any) -> Iterator[tuple[int, bool, bool]]:
    """Size of each weight, whether it is of integers, and whether it has two axes or more."""
    helpers = {
        id(getattr(layer, name))
        for name in dir(layer)
        if name == "g_idx" or name.endswith(("_scale", "_zero"))
    }
    for variable in [*layer._trainable_variables, *layer._non_trainable_variables]:
        if id(variable) in helpers and _get_mode(layer):
            continue
        is_integer = _get_mode(layer) is not None and str(variable.dtype) == "int8"
        size = int(np.prod(variable.shape))
        if is_integer and _get_mode(layer) == "int4":
            size = _count_packed(layer, variable)
        yield size, is_integer, len(variable.shape) > 1


def _count_packed(layer: Any, variable: Any) -> int:
    """Numbers in an array that holds two of them in a byte."""
    for name in ("kernel", "embeddings"):
        if variable is getattr(layer, f"_{name}", None):
            return int(np.prod(getattr(layer, name).shape))
    return 2 * int(np.prod(variable.shape))


def _explain(layer: Any) -> str:
    from keras import layers

    covered = (layers.Dense, layers.EinsumDense, layers.Embedding, layers.ReversibleEmbedding)
    if type(layer) in covered:
        return "left out by `filters`, or the model is not quantized"
    return f"Keras has no integers for {type(layer).__name__}"
