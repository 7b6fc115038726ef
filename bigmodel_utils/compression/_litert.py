"""Export to LiteRT, TensorFlow Lite by its newer name, for phones and small boards."""

from __future__ import annotations

import contextlib
import io
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from .._checks import InputError, import_extra
from ._export import ExportReport, check_export, compare_file, describe_export, open_export

LITERT_PRECISIONS = ("float32", "float16", "int8", "static_int8", "int4")


def export_litert(
    model: Any, path: str | Path, *, examples: Any, precision: str = "float32"
) -> ExportReport:
    """Writes a model as a LiteRT file, runs it, and compares its outputs with the model's.

    Args:
        model: a functional or sequential `keras.Model` of one input and one output.
        path: where the file goes; it ends in `.tflite`, and replaces one that is there.
        examples: inputs of shape `(num_examples, …)`; the first are compared, and for
            `"static_int8"` all of them set the ranges of the activations.
        precision: `"float32"`; `"float16"`, stored so and computed in float32; `"int8"` and
            `"int4"`, weights as integers and activations as integers whose range is found anew
            at each call; `"static_int8"`, ranges fixed by the examples.

    Returns:
        Size and agreement of the file.

    Raises:
        InputError: on another backend than TensorFlow, and for what cannot be exported or run,
            by name; nothing is left behind.
        MissingExtraError: if LiteRT or its quantizer is not installed.

    Limits:
        The batch is free, unless the model has inputs of free length: then the file takes one
        example at a time, of the examples' length. int4 is stored two to a byte, and computed
        in int8.

    Example:
        >>> export_litert(model, "model.tflite", examples=x)  # doctest: +SKIP

    References:
        LiteRT documentation, Post-training quantization (ai.google.dev, 2025).
    """
    inputs = check_export(model, examples, precision=precision, known=LITERT_PRECISIONS)
    import_extra("ai_edge_litert.interpreter", extra="edge")
    import keras

    if keras.backend.backend() != "tensorflow":
        raise InputError(
            "KERAS_BACKEND",
            "must be tensorflow for LiteRT's converter",
            repr(keras.backend.backend()),
            "load the model's file under TensorFlow and export it there",
        )
    with open_export(path, suffix=".tflite") as file:
        if precision == "int4":
            plain = file.with_name("float32.tflite")
            plain.write_bytes(_convert(model, inputs, "float32"))
            _quantize_to_int4(plain, file)
        else:
            file.write_bytes(_convert(model, inputs, precision))
        agreement = compare_file(model, file, examples=inputs)
        return describe_export(model, file, path=path, precision=precision, agreement=agreement)


def _convert(model: Any, inputs: np.ndarray, precision: str) -> bytes:
    import tensorflow as tf

    model(inputs[:1])
    # The converter announces what it saved on the way.
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        converter = _make_converter(model, inputs)
        if precision != "float32":
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
        if precision == "float16":
            converter.target_spec.supported_types = [tf.float16]
        if precision == "static_int8":
            converter.representative_dataset = lambda: (
                [inputs[row : row + 1]] for row in range(len(inputs))
            )
        try:
            return bytes(converter.convert())
        except Exception as error:  # the converter has errors of its own
            raise InputError(
                "model",
                "must be one that LiteRT can express",
                f"{type(error).__name__}: {str(error)[:200]}",
                "replace the operation it names",
            ) from error


def _make_converter(model: Any, inputs: np.ndarray) -> Any:
    import tensorflow as tf
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    if None not in model.inputs[0].shape[1:]:
        return tf.lite.TFLiteConverter.from_keras_model(model)
    # Free lengths make masks that LiteRT cannot express: the examples' length is fixed.
    spec = tf.TensorSpec((1, *inputs.shape[1:]), model.inputs[0].dtype)
    traced = tf.function(lambda x: model(x, training=False)).get_concrete_function(spec)
    frozen = convert_variables_to_constants_v2(traced)
    return tf.lite.TFLiteConverter.from_concrete_functions([frozen])


def _quantize_to_int4(plain: Path, file: Path) -> None:
    quantizer = import_extra("ai_edge_quantizer.quantizer", extra="edge")
    recipe = import_extra("ai_edge_quantizer.recipe", extra="edge")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made = quantizer.Quantizer(str(plain), recipe.dynamic_wi4_afp32())
        made.quantize(enable_progress_report=False).export_model(str(file), overwrite=True)
