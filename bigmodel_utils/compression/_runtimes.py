"""Every way to run a model on this machine, timed side by side and compared with the model."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from .._checks import InputError, MissingExtraError, check_choice, check_integer
from ..benchmark import Latency, compare_latency, measure_latency
from ..hardware import list_cpu_features
from ._export import NUM_COMPARED, Runner, load_runner
from ._litert import LITERT_PRECISIONS, export_litert
from ._models import check_examples, predict
from ._onnx import ONNX_PRECISIONS, export_onnx
from ._result import compare_outputs
from ._runtime_table import RuntimeRow, RuntimeTable

PRECISIONS = tuple(dict.fromkeys(ONNX_PRECISIONS + LITERT_PRECISIONS))
MakeRunner = Callable[[Any], Runner]


def measure_runtimes(
    models: Any,
    examples: Any,
    *,
    precisions: tuple[str, ...] = ("float32", "int8", "static_int8"),
    batch_sizes: tuple[int, ...] = (1,),
    num_rounds: int = 50,
    calibration: Any | None = None,
) -> RuntimeTable:
    """Runs models in every runtime that is here, in turns, and names the fastest.

    Args:
        models: a Keras model, or names to models that do the same task; the first is what all
            are compared with.
        examples: inputs of shape `(num_examples, …)`: the first 64 are compared, and the first
            of them timed.
        precisions: which of `export_onnx`'s and `export_litert`'s to try, where each has them.
        batch_sizes: examples per call.
        num_rounds: calls of each variant that are timed, in turns.
        calibration: inputs that set static ranges; the examples if left out, which then are
            judged by a file that was fitted to them.

    Returns:
        One row for each model, runtime, precision and batch size. What is not installed, not
        exported or not run has a row that says why.

    Raises:
        InputError: if a precision is not known, a count not positive or an example not finite.

    Limits:
        One thread, which TensorFlow grants only if it has not computed yet: the table says
        how many it used. Each variant takes and returns arrays, so the smallest models pay for
        the passage. Times hold for this machine while as busy as it was.

    Example:
        >>> measure_runtimes(model, x, batch_sizes=(1, 32))  # doctest: +SKIP
    """
    for precision in precisions:
        check_choice("precisions", precision, PRECISIONS)
    for batch_size in batch_sizes:
        check_integer("batch_sizes", batch_size, at_least=1)
    inputs = check_examples(examples)
    ranges = inputs if calibration is None else check_examples(calibration)
    named = dict(models) if isinstance(models, Mapping) else {"model": models}
    if not named:
        raise InputError("models", "must name at least one model", "{}", "pass {name: model}")
    num_threads = _set_one_thread()
    rows: list[RuntimeRow] = []
    with tempfile.TemporaryDirectory() as folder:
        made = dict(_make_variants(named, ranges, precisions, Path(folder)))
        expected = predict(next(iter(named.values())), inputs[:NUM_COMPARED])
        for batch_size in batch_sizes:
            rows += _measure_batches(
                made, inputs, expected, batch_size=batch_size, num_rounds=num_rounds
            )
    return RuntimeTable(tuple(rows), list_cpu_features(), num_threads, num_rounds)


_Variant = tuple[str, str, str]
"""Model, runtime, precision."""


@dataclass(frozen=True)
class _Made:
    """A variant that can run, or why it cannot."""

    run: Runner | None = None
    file_bytes: int | None = None
    why_not: str | None = None


def _make_variants(
    named: Mapping[str, Any], inputs: np.ndarray, precisions: tuple[str, ...], folder: Path
) -> Iterator[tuple[_Variant, _Made]]:
    """Makes every model ready to run in every way that is here."""
    for index, (name, model) in enumerate(named.items()):
        saved = folder / f"{index}.keras"
        model.save(saved, include_optimizer=False)
        for runtime, make in _list_own_runtimes().items():
            yield (name, runtime, "as it is"), _Made(make(model), saved.stat().st_size)
        for runtime, (export, known, suffix) in _EXPORTS.items():
            for precision in precisions:
                if precision in known:
                    path = folder / f"{index}-{precision}{suffix}"
                    write = partial(export, model, path, examples=inputs, precision=precision)
                    yield (name, runtime, precision), _export(write, path)


_EXPORTS: dict[str, tuple[Callable[..., Any], tuple[str, ...], str]] = {
    "LiteRT": (export_litert, LITERT_PRECISIONS, ".tflite"),
    "ONNX Runtime": (export_onnx, ONNX_PRECISIONS, ".onnx"),
}


def _export(write: Callable[[], Any], path: Path) -> _Made:
    try:
        write()
        return _Made(load_runner(path), path.stat().st_size)
    except (InputError, MissingExtraError) as error:
        return _Made(why_not=str(error))


def _list_own_runtimes() -> dict[str, MakeRunner]:
    """How the backend itself runs a model; the first is the baseline."""
    import keras

    if keras.backend.backend() == "jax":
        return {"jax.jit": _compile_jax}
    if keras.backend.backend() == "tensorflow":
        return {
            "tf.function": lambda model: _compile_tensorflow(model, is_xla=False),
            "tf.function, XLA": lambda model: _compile_tensorflow(model, is_xla=True),
        }
    return {"predict": lambda model: lambda x: np.asarray(model.predict_on_batch(x))}


def _compile_tensorflow(model: Any, *, is_xla: bool) -> Runner:
    import tensorflow as tf

    dtype = model.inputs[0].dtype
    call = tf.function(lambda x: model(x, training=False), jit_compile=is_xla)
    traced: dict[tuple[int, ...], Any] = {}

    def run(x: np.ndarray) -> np.ndarray:
        if x.shape not in traced:
            traced[x.shape] = call.get_concrete_function(tf.TensorSpec(x.shape, dtype))
        return np.asarray(traced[x.shape](tf.constant(x, dtype)).numpy())

    return run


def _compile_jax(model: Any) -> Runner:
    import jax

    trainable = [variable.value for variable in model.trainable_variables]
    fixed = [variable.value for variable in model.non_trainable_variables]
    call = jax.jit(lambda x: model.stateless_call(trainable, fixed, x, training=False)[0])
    return lambda x: np.asarray(call(x.astype(model.inputs[0].dtype)))


def _measure_batches(
    made: Mapping[_Variant, _Made],
    inputs: np.ndarray,
    expected: np.ndarray,
    *,
    batch_size: int,
    num_rounds: int,
) -> list[RuntimeRow]:
    """Compares the outputs of every variant at one batch size, and times them in turns."""
    batch = np.resize(inputs, (batch_size, *inputs.shape[1:]))
    rows, runs = [], {}
    for variant, ready in made.items():
        row = RuntimeRow(*variant, batch_size, ready.file_bytes, why_not=ready.why_not)
        if ready.run is not None:
            row = _compare(row, ready.run, inputs[: len(expected)], expected)
        if ready.run is not None and row.agreement is not None:
            runs[str(row)] = partial(ready.run, batch)
        rows.append(row)
    latencies = measure_latency(runs, num_rounds=num_rounds)
    baseline = latencies[str(rows[0])]
    return [
        _add_times(row, latencies[str(row)], baseline) if str(row) in latencies else row
        for row in rows
    ]


def _compare(row: RuntimeRow, run: Runner, inputs: np.ndarray, expected: np.ndarray) -> RuntimeRow:
    try:
        received = _run_in_batches(run, inputs, row.batch_size)
    except Exception as error:  # each runtime has errors of its own
        return replace(row, why_not=f"{type(error).__name__}: {str(error)[:200]}")
    return replace(row, agreement=compare_outputs(expected, received.astype(np.float64)))


def _add_times(row: RuntimeRow, latency: Latency, baseline: Latency) -> RuntimeRow:
    speedups = np.asarray(baseline.seconds) / np.asarray(latency.seconds)
    return replace(
        row,
        p50_seconds=latency.median,
        p99_seconds=latency.percentile(99),
        speedup=compare_latency(baseline, latency),
        speedup_lower_quartile=float(np.percentile(speedups, 25)),
    )


def _run_in_batches(run: Runner, inputs: np.ndarray, batch_size: int) -> np.ndarray:
    """Runs whole batches; the last is filled up and cut, so that no runtime plans anew."""
    outputs = []
    for start in range(0, len(inputs), batch_size):
        batch = inputs[start : start + batch_size]
        filled = np.resize(batch, (batch_size, *inputs.shape[1:]))
        outputs.append(run(filled)[: len(batch)])
    return np.concatenate(outputs)


def _set_one_thread() -> int | None:
    """Asks TensorFlow for one thread, and returns how many it uses; 0 is as many as it likes."""
    import keras

    if keras.backend.backend() != "tensorflow":
        return None
    import tensorflow as tf

    try:
        tf.config.threading.set_intra_op_parallelism_threads(1)
        tf.config.threading.set_inter_op_parallelism_threads(1)
    except RuntimeError:  # it has begun to compute
        pass
    return int(tf.config.threading.get_intra_op_parallelism_threads())
