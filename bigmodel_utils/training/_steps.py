"""Many optimizer steps in one call, over data that stay on the device.

A step of a small model costs less than starting it from Python. So the data stay where the
model is, a batch is a list of rows, and on TensorFlow the loop over steps is compiled too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .._checks import InputError
from ._settings import Examples

MAX_STEPS_PER_CALL = 100

StepRunner = Callable[[Sequence[np.ndarray]], np.ndarray]
"""Takes the rows of each batch, runs a step on each in order, and returns, for each, the mean
loss over the examples seen since the metrics were last reset, `(num_steps,)`."""


def make_step_runner(model: Any, data: Examples, *, compile_mode: str) -> StepRunner:
    """Makes a function that trains a built and compiled model on batches of `data`.

    Args:
        model: a `keras.Model` whose optimizer and metrics have their variables.
        data: inputs and targets; they are put on the device once.
        compile_mode: `"plain"` or `"xla"`.

    Returns:
        The function; all its batches but the last must be of one size.

    Raises:
        InputError: on a backend that has no compiled loop here.

    Limits:
        The data must fit in the device's memory.
    """
    import keras

    backend = keras.backend.backend()
    if backend == "tensorflow":
        run_batches = _compile_with_tensorflow(model, data, compile_mode)
    elif backend == "jax":
        run_batches = _compile_with_jax(model, data)
    else:
        raise InputError(
            "KERAS_BACKEND", "must be tensorflow or jax", repr(backend), "set it and start again"
        )

    def run(batches: Sequence[np.ndarray]) -> np.ndarray:
        # A tail of another size is another compiled function: shapes are static.
        size = len(batches[0])
        whole = [rows for rows in batches if len(rows) == size]
        losses = []
        for start in range(0, len(whole), MAX_STEPS_PER_CALL):
            losses.append(run_batches(np.stack(whole[start : start + MAX_STEPS_PER_CALL])))
        if len(whole) < len(batches):
            losses.append(run_batches(np.stack(batches[len(whole) :])))
        return np.concatenate(losses)

    return run


def _compile_with_tensorflow(
    model: Any, data: Examples, compile_mode: str
) -> Callable[[np.ndarray], np.ndarray]:
    import tensorflow as tf

    x, y = (tf.constant(part) for part in data)

    def step(rows: Any) -> Any:
        return model.train_step((tf.gather(x, rows), tf.gather(y, rows)))["loss"]

    compiled_step = tf.function(step, jit_compile=True) if compile_mode == "xla" else step

    @tf.function  # type: ignore[untyped-decorator]
    def run(batches: Any) -> Any:
        count = tf.shape(batches)[0]
        losses = tf.TensorArray(tf.float32, size=count)
        for index in tf.range(count):
            losses = losses.write(index, compiled_step(batches[index]))
        return losses.stack()

    def run_batches(batches: np.ndarray) -> np.ndarray:
        # XLA compiles for one size of batch; a plain graph serves the smaller tail as well.
        size = batches.shape[1] if compile_mode == "xla" else None
        signature = tf.TensorSpec([None, size], tf.int64)
        return run.get_concrete_function(signature)(tf.constant(batches)).numpy()  # type: ignore[no-any-return]

    return run_batches


def _compile_with_jax(model: Any, data: Examples) -> Callable[[np.ndarray], np.ndarray]:
    import jax
    from jax import numpy as jnp

    x, y = (jnp.asarray(part) for part in data)
    groups = (
        model.trainable_variables,
        model.non_trainable_variables,
        model.optimizer.variables,
        model.metrics_variables,
    )

    def step(state: Any, x: Any, y: Any, rows: Any) -> Any:
        logs, state = model.train_step(state, (x[rows], y[rows]))
        return tuple(map(list, state)), logs["loss"]

    # One step is compiled, not the loop: inside a loop XLA runs convolutions on one core of a
    # CPU, six times slower. Steps are dispatched ahead of the device, so little is lost.
    compiled = jax.jit(step, donate_argnums=0)

    def run_batches(batches: np.ndarray) -> np.ndarray:
        state = tuple([variable.value for variable in group] for group in groups)
        losses = []
        for rows in batches:
            state, loss = compiled(state, x, y, rows)
            losses.append(loss)
        for group, values in zip(groups, state, strict=True):
            for variable, value in zip(group, values, strict=True):
                variable.assign(value)
        return np.asarray(jax.device_get(losses), dtype=np.float32)

    return run_batches
