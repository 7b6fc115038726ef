"""Export to ONNX, in float32 or with integers, for ONNX Runtime."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from .._checks import InputError, check_choice, import_extra
from ._calibration import find_clipping_range
from ._export import ExportReport, check_export, compare_file, describe_export, open_export
from ._onnx_layers import build_onnx_graph, can_write_layers

ONNX_PRECISIONS = ("float32", "int8", "static_int8")
CALIBRATIONS = ("minmax", "percentile", "mse")
SHARE_INSIDE = 0.999  # of the numbers, for "percentile"
NUM_SAMPLED = 20_000  # numbers of a tensor from which its range is found


def export_onnx(
    model: Any,
    path: str | Path,
    *,
    examples: Any,
    precision: str = "float32",
    calibration: str = "minmax",
) -> ExportReport:
    """Writes a model as an ONNX file, runs it, and compares its outputs with the model's.

    A language model is written layer by layer, rotary attention as one operator; any other
    model by its traced graph.

    Args:
        model: a functional or sequential `keras.Model` of one input and one output.
        path: where the file goes; it ends in `.onnx`, and replaces one that is there.
        examples: inputs of shape `(num_examples, …)`; the first are compared, and for
            `"static_int8"` all of them set the ranges of the activations.
        precision: `"float32"`; `"int8"`, weights as integers and activations as integers whose
            range is found anew at each call; `"static_int8"`, ranges fixed by the examples.
        calibration: how they are fixed, see `find_clipping_range`: `"minmax"` spans all values
            seen, `"percentile"` all but one in a thousand, `"mse"` makes the mean squared
            error of rounding least.

    Returns:
        Size and agreement of the file.

    Raises:
        InputError: for what cannot be exported or run, by name; nothing is left behind.
        MissingExtraError: if onnx, onnxruntime or tf2onnx is not installed.

    Limits:
        A traced graph needs the TensorFlow backend. `"int8"` leaves convolutions in float32,
        `"static_int8"` is for them. Integers are faster where the CPU multiplies them fast: see
        `hardware.list_cpu_features`.

    Example:
        >>> export_onnx(model, "model.onnx", examples=x)  # doctest: +SKIP

    References:
        ONNX Runtime documentation, Quantize ONNX Models (onnxruntime.ai, 2025).
    """
    check_choice("calibration", calibration, CALIBRATIONS)
    inputs = check_export(model, examples, precision=precision, known=ONNX_PRECISIONS)
    import_extra("onnxruntime", extra="edge")
    onnx = import_extra("onnx", extra="edge")
    with open_export(path, suffix=".onnx") as file:
        plain = file.with_name("float32.onnx")
        if can_write_layers(model):
            onnx.save(build_onnx_graph(model), plain)
        else:
            _trace(model, plain, inputs)
        if precision == "float32":
            plain.replace(file)
        elif precision == "int8":
            _quantize_dynamic(plain, file)
        else:
            _quantize_static(plain, file, inputs, calibration)
        agreement = compare_file(model, file, examples=inputs)
        return describe_export(model, file, path=path, precision=precision, agreement=agreement)


def _trace(model: Any, file: Path, inputs: np.ndarray) -> None:
    import keras

    import_extra("tf2onnx", extra="edge")
    if keras.backend.backend() != "tensorflow":
        raise InputError(
            "KERAS_BACKEND",
            "must be tensorflow for a model that is not written layer by layer",
            repr(keras.backend.backend()),
            "load the model's file under TensorFlow and export it there",
        )
    model(inputs[:1])  # Keras refuses to export a model that was never called
    shape = (None, *model.inputs[0].shape[1:])
    spec = keras.InputSpec(shape=shape, dtype=model.inputs[0].dtype, name="inputs")
    with _quiet():
        model.export(str(file), format="onnx", input_signature=[spec], verbose=False)


def _quantize_dynamic(plain: Path, file: Path) -> None:
    from onnx import TensorProto
    from onnxruntime.quantization import QuantType, quantize_dynamic

    with _quiet():
        quantize_dynamic(
            plain,
            file,
            op_types_to_quantize=["MatMul", "Gather"],
            per_channel=True,
            weight_type=QuantType.QInt8,
            extra_options={"DefaultTensorType": TensorProto.FLOAT},
        )


def _quantize_static(plain: Path, file: Path, inputs: np.ndarray, calibration: str) -> None:
    import onnxruntime
    from onnxruntime import quantization
    from onnxruntime.quantization.shape_inference import quant_pre_process

    prepared = plain.with_name("prepared.onnx")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    name = onnxruntime.InferenceSession(str(plain), options).get_inputs()[0].name

    class Reader(quantization.CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.rows = iter(range(len(inputs)))

        def get_next(self) -> dict[str, np.ndarray] | None:
            row = next(self.rows, None)
            return None if row is None else {name: inputs[row : row + 1]}

    with _quiet():
        quant_pre_process(plain, prepared, skip_symbolic_shape=True)
        # Spanning all values is what the quantizer does by itself.
        is_own = calibration != "minmax"
        overrides = _find_ranges(prepared, inputs, calibration) if is_own else {}
        quantization.quantize_static(
            prepared,
            file,
            Reader(),
            per_channel=True,
            weight_type=quantization.QuantType.QInt8,
            activation_type=quantization.QuantType.QUInt8,
            extra_options={"TensorQuantOverrides": overrides},
        )


def _find_ranges(
    prepared: Path, inputs: np.ndarray, calibration: str
) -> dict[str, list[dict[str, np.ndarray]]]:
    """Ranges of all activations by their names, as ONNX Runtime takes them."""
    import onnx
    import onnxruntime

    model = onnx.load(prepared)
    known = {output.name for output in model.graph.output}
    names = [name for node in model.graph.node for name in node.output if name not in known]
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), options)
    (source,) = session.get_inputs()
    found = [output.name for output in session.get_outputs()]
    seen = session.run(found, {source.name: inputs})
    arrays = {source.name: inputs, **dict(zip(found, seen, strict=True))}
    generator = np.random.default_rng(0)
    overrides = {}
    for name, array in arrays.items():
        if array.dtype == np.float32 and array.any():
            some = generator.choice(array.ravel(), min(array.size, NUM_SAMPLED), replace=False)
            if some.any():
                low, high = find_clipping_range(some, method=calibration, share=SHARE_INSIDE)
                ends = {"rmin": np.float32(low), "rmax": np.float32(high)}
                overrides[name] = [{key: np.asarray(end) for key, end in ends.items()}]
    return overrides


@contextmanager
def _quiet() -> Iterator[None]:
    """Silences what exporter and quantizer advise at each call."""
    import logging
    import warnings

    logger = logging.getLogger()
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
