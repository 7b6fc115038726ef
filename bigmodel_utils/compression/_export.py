"""Files that run without Keras: written, executed, compared, and only then given their name."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .._checks import InputError, check_choice, check_integer, import_extra
from .._report import Report, format_bytes
from ._files import write_beside
from ._models import check_examples, check_model, predict
from ._result import Agreement, compare_outputs

Runner = Callable[[np.ndarray], np.ndarray]
"""Takes inputs `(batch, …)` and returns outputs `(batch, …)`."""

SUFFIXES = {".onnx": "ONNX Runtime", ".tflite": "LiteRT"}
NUM_COMPARED = 64  # examples on which a file is compared with the model it comes from


@dataclass(frozen=True)
class ExportReport(Report):
    """A file that was written, executed and compared.

    Attributes:
        path: where it is.
        runtime: what runs it.
        precision: what its weights and, where it says static, its activations are.
        file_bytes: size on disk.
        weight_bytes: the model's weights in float32.
        agreement: its outputs against the model's, on the examples.
    """

    path: str
    runtime: str
    precision: str
    file_bytes: int
    weight_bytes: int
    agreement: Agreement

    def to_dict(self) -> dict[str, Any]:
        """Returns the fields as plain data, ready for JSON."""
        return asdict(self)

    def _list_rows(self) -> list[tuple[str, str]]:
        ratio = self.weight_bytes / self.file_bytes
        return [
            ("file", Path(self.path).name),
            ("runtime", self.runtime),
            ("precision", self.precision),
            ("size", f"{format_bytes(self.file_bytes)}, {ratio:.1f} times below float32"),
            *self.agreement._list_rows(),
        ]


def load_runner(path: str | Path, *, num_threads: int = 1) -> Runner:
    """Loads an exported file and returns the function that runs it.

    Args:
        path: a file of `export_onnx` or `export_litert`, known by its suffix.
        num_threads: threads that one call may use.

    Returns:
        A function from inputs of shape `(batch, …)` to outputs.

    Raises:
        InputError: if there is no such file, or its suffix is another.
        MissingExtraError: if the runtime is not installed.

    Limits:
        One input and one output. For an ONNX model with attention, numbers too small for a
        normal float32 are taken as zero: a masked softmax is full of them, and x86 computes
        with them many times slower. It runs in a thread of its own. LiteRT plans its memory
        anew when the shape of the input changes.

    Example:
        >>> load_runner("model.onnx")  # doctest: +SKIP
    """
    file = Path(path)
    check_integer("num_threads", num_threads, at_least=1)
    if not file.is_file() or file.suffix not in SUFFIXES:
        raise InputError(
            "path",
            f"must be a file that ends in {' or '.join(SUFFIXES)}",
            f"{file.name}{'' if file.is_file() else ', which is not there'}",
            "export the model first",
        )
    return (_load_onnx if file.suffix == ".onnx" else _load_litert)(file, num_threads)


def _load_onnx(file: Path, num_threads: int) -> Runner:
    onnx = import_extra("onnx", extra="edge")
    onnxruntime = import_extra("onnxruntime", extra="edge")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = num_threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3

    def open_session() -> Any:
        return onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])

    submit: Callable[..., Any] = lambda function, *given: function(*given)  # noqa: E731
    if any(node.op_type == "Attention" for node in onnx.load(file).graph.node):
        options.add_session_config_entry("session.set_denormal_as_zero", "1")
        # The runtime sets this for the thread that calls it, and for good: one of its own.
        worker = ThreadPoolExecutor(max_workers=1)
        submit = lambda function, *given: worker.submit(function, *given).result()  # noqa: E731
    session = submit(open_session)
    (source,) = session.get_inputs()
    kind = np.int32 if "int" in source.type else np.float32
    return lambda x: np.asarray(
        submit(session.run, None, {source.name: np.asarray(x, dtype=kind)})[0]
    )


def _load_litert(file: Path, num_threads: int) -> Runner:
    litert = import_extra("ai_edge_litert.interpreter", extra="edge")
    interpreter = litert.Interpreter(str(file), num_threads=num_threads)
    interpreter.allocate_tensors()
    (source,), (target,) = interpreter.get_input_details(), interpreter.get_output_details()
    shape = tuple(source["shape"])

    def run(x: np.ndarray) -> np.ndarray:
        nonlocal shape
        inputs = np.asarray(x, dtype=source["dtype"])
        if inputs.shape != shape:
            interpreter.resize_tensor_input(source["index"], inputs.shape)
            interpreter.allocate_tensors()
            shape = inputs.shape
        interpreter.set_tensor(source["index"], inputs)
        interpreter.invoke()
        return np.asarray(interpreter.get_tensor(target["index"]))

    return run


def check_export(model: Any, examples: Any, *, precision: str, known: tuple[str, ...]) -> Any:
    """Returns the examples if the model can be exported with them.

    Raises:
        InputError: for an unknown precision, a model that is quantized, adapted, not built or
            has several inputs or outputs, or examples that do not fit.
    """
    check_choice("precision", precision, known)
    check_model(model)
    if len(model.inputs) != 1 or len(model.outputs) != 1:
        raise InputError(
            "model",
            "must have one input and one output",
            f"{len(model.inputs)} and {len(model.outputs)}",
            "export a part of it",
        )
    array = check_examples(examples)
    expected = model.inputs[0].shape
    fits = len(expected) == array.ndim and all(
        length in (None, size) for length, size in zip(expected[1:], array.shape[1:], strict=True)
    )
    if not fits:
        raise InputError(
            "examples", f"must have the shape {expected}", array.shape, "pass inputs of the model"
        )
    return array.astype(model.inputs[0].dtype)


@contextmanager
def open_export(path: str | Path, *, suffix: str) -> Iterator[Path]:
    """`write_beside` for a file of a runtime, known by its suffix; its folder is made.

    Raises:
        InputError: if the suffix is another or the folder takes no file.
    """
    target = Path(path)
    if target.suffix != suffix:
        raise InputError("path", f"must end in {suffix}", target.name, "rename it")
    # Where the folder cannot be made, writing beside says so.
    with suppress(OSError):
        target.parent.mkdir(parents=True, exist_ok=True)
    with write_beside(target) as beside:
        yield beside


def compare_file(model: Any, file: Path, *, examples: np.ndarray) -> Agreement:
    """Runs an exported file and compares its outputs with the model's.

    Raises:
        InputError: if the runtime refuses the file.
    """
    some = examples[:NUM_COMPARED]
    expected = predict(model, some)
    try:
        run = load_runner(file)
        # One at a time: so it will be used, and no runtime has to be of another mind.
        received = np.concatenate([run(some[row : row + 1]) for row in range(len(some))])
    except Exception as error:  # each runtime has errors of its own
        raise InputError(
            "model",
            f"must be one that {SUFFIXES[file.suffix]} can run",
            f"{type(error).__name__}: {str(error)[:200]}",
            "replace the operation it names, such as an exact GELU by its tanh form",
        ) from error
    return compare_outputs(expected, received.astype(np.float64))


def describe_export(
    model: Any, file: Path, *, path: str | Path, precision: str, agreement: Agreement
) -> ExportReport:
    """Makes the report of a file that is still beside its place."""
    return ExportReport(
        str(path),
        SUFFIXES[file.suffix],
        precision,
        file.stat().st_size,
        4 * model.count_params(),
        agreement,
    )
