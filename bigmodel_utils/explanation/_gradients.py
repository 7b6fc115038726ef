"""Gradients along the way from a baseline to the input: integrated and expected gradients."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .._checks import InputError, check_array, check_integer
from ._compiled import compile_once
from ._cut import CutModel
from ._predict import build_predict_fn, call_with_weights, read_weights
from ._result import Explanation, choose_targets

MAX_TARGETS = 128  # each is a backward pass, written out in the compiled program
BATCH_SIZE = 256

Accumulate = Callable[..., tuple[Any, Any]]
"""Takes a row, baselines, places on the way and weights; returns mean and centered squares."""


def explain_with_integrated_gradients(
    model: Any,
    inputs: np.ndarray,
    *,
    baseline: np.ndarray | None = None,
    num_steps: int = 64,
    targets: int | Sequence[int] | None = None,
) -> Explanation:
    r"""Integrates the gradient along the straight line from one baseline to the input.

    .. math:: \varphi_i = (x_i - b_i) \int_0^1 \partial_i f(b + \alpha (x - b))\, d\alpha

    by Gauss and Legendre's rule, exact for polynomials in :math:`\alpha` up to degree
    `2 num_steps - 1`.

    Args:
        model: a Keras model, a `CutModel` for tokens, or a differentiable function of the
            backend's tensors `(num_examples, *feature_shape)`.
        inputs: rows to explain, `(num_rows, *feature_shape)`; ids for a `CutModel`.
        baseline: what stands for an absent input, `feature_shape`; zeros by default, and for a
            `CutModel` vectors of zeros.
        num_steps: points on the line.
        targets: outputs to explain; all by default, if they are at most 128.

    Returns:
        `values` of shape `(num_rows, *feature_shape, num_targets)`, a token's being the sum
        over its vector. In `diagnostics`: `completeness_error`, by how much they miss the
        output less `base_values`, the output at the baseline.

    Raises:
        InputError: if an argument cannot be used, or the function has no gradient.

    Limits:
        Kinks, as those of ReLU, make the sum converge slowly: look at the completeness error.
        The baseline is a choice that changes the answer. Numbers have the model's precision.
        Runs on TensorFlow and on JAX.

    Example:
        >>> found = explain_with_integrated_gradients(
        ...     lambda x: x[:, :1] * x[:, 1:2], np.array([[2.0, 3.0]]), num_steps=2)
        >>> found.values[0, :, 0].round(4).tolist()
        [3.0, 3.0]

    References:
        M. Sundararajan, A. Taly, Q. Yan, Axiomatic Attribution for Deep Networks, ICML, 2017.
    """
    steps = check_integer("num_steps", num_steps, at_least=1)
    rows = _check_rows(inputs)
    known = None
    if baseline is not None:
        known = check_array("baseline", baseline, shape=rows.shape[1:])[None]
    elif not isinstance(model, CutModel):
        known = np.zeros((1, *rows.shape[1:]))
    prepared = _prepare(model, rows, known, targets=targets)
    places, weights = np.polynomial.legendre.leggauss(steps)
    path = _Path(np.zeros(steps, dtype=int), (places + 1) / 2, weights / 2)
    values, _ = _follow(prepared, path)
    return _make_explanation(
        f"integrated gradients in {steps:,} steps", prepared, inputs=rows, values=values
    )


def explain_with_expected_gradients(
    model: Any,
    inputs: np.ndarray,
    *,
    background: np.ndarray,
    num_samples: int = 200,
    targets: int | Sequence[int] | None = None,
    seed: int = 0,
) -> Explanation:
    r"""Averages integrated gradients over baselines drawn from a background.

    Each sample is one point, uniformly drawn, on the line from a drawn background row to the
    input. All rows and outputs share the draws; one forward pass serves all outputs.

    Args:
        model: as for `explain_with_integrated_gradients`.
        inputs: rows to explain, `(num_rows, *feature_shape)`; ids for a `CutModel`.
        background: rows to draw from, `(num_background, *feature_shape)`; ids for a `CutModel`.
        num_samples: points for each row.
        targets: outputs to explain; all by default, if they are at most 128.
        seed: of the draws. The process's own random state is not touched.

    Returns:
        `values` of shape `(num_rows, *feature_shape, num_targets)`, and `standard_errors`. In
        `diagnostics`: `completeness_error`, by how much the values miss the output less
        `base_values`, the mean output over the whole background.

    Raises:
        InputError: if an argument cannot be used, or the function has no gradient.

    Limits:
        No estimate of Shapley values: with any number of samples the two differ where features
        act together in ways beyond products of two, as in their maximum. Runs on TensorFlow
        and on JAX.

    Example:
        >>> rows = np.random.default_rng(0).normal(size=(50, 2))
        >>> found = explain_with_expected_gradients(
        ...     lambda x: 3 * x[:, :1], rows[:1], background=rows, num_samples=1000)
        >>> exact = 3 * (rows[0, 0] - rows[:, 0].mean())
        >>> bool(abs(found.values[0, 0, 0] - exact) < 4 * found.standard_errors[0, 0, 0])
        True

    References:
        G. Erion, J. D. Janizek, P. Sturmfels, S. M. Lundberg, S.-I. Lee, Improving Performance
        of Deep Learning Models with Axiomatic Attribution Priors and Expected Gradients, Nature
        Machine Intelligence 3, 2021.
    """
    count = check_integer("num_samples", num_samples, at_least=2)
    rows = _check_rows(inputs)
    known = check_array("background", background, shape=(None, *rows.shape[1:]))
    prepared = _prepare(model, rows, known, targets=targets)
    numbers = np.random.default_rng(seed)
    path = _Path(
        numbers.integers(len(known), size=count), numbers.random(count), np.full(count, 1 / count)
    )
    values, variances = _follow(prepared, path)
    return _make_explanation(
        f"expected gradients on {count:,} samples",
        prepared,
        inputs=rows,
        values=values,
        standard_errors=np.sqrt(variances / (count - 1)),
    )


@dataclass(frozen=True)
class _Prepared:
    """What is needed at each point: vectors, the compiled gradient, and the model's outputs."""

    accumulate: Accumulate
    rows: np.ndarray
    known: np.ndarray
    outputs: np.ndarray
    base: np.ndarray
    targets: tuple[int, ...]


@dataclass(frozen=True)
class _Path:
    """Points on lines: which baseline, how far along, and with what weight."""

    baselines: np.ndarray
    places: np.ndarray
    weights: np.ndarray


def _check_rows(inputs: np.ndarray) -> np.ndarray:
    rows = check_array("inputs", inputs)
    if rows.ndim < 2:
        raise InputError(
            "inputs", "must be a batch of rows", f"shape {rows.shape}", "pass `x[None]`"
        )
    return rows


def _prepare(
    model: Any,
    rows: np.ndarray,
    known: np.ndarray | None,
    *,
    targets: int | Sequence[int] | None,
) -> _Prepared:
    import keras

    embed, head = _split(model)
    vectors = embed(rows)
    vectors_known = np.zeros_like(vectors[:1]) if known is None else embed(known)

    def run(x: np.ndarray) -> np.ndarray:
        return np.asarray(keras.ops.convert_to_numpy(head(keras.ops.convert_to_tensor(x))))

    predict = build_predict_fn(model if _is_model(model) else run)
    outputs, base = predict(vectors), predict(vectors_known).mean(axis=0)
    chosen = choose_targets(targets, num_outputs=outputs.shape[1])
    if len(chosen) > MAX_TARGETS:
        raise InputError(
            "targets", f"must be at most {MAX_TARGETS} outputs", len(chosen), "name those you mean"
        )
    places = list(chosen)
    accumulate = _compile(model, head, targets=chosen)
    return _Prepared(accumulate, vectors, vectors_known, outputs[:, places], base[places], chosen)


def _is_model(model: Any) -> bool:
    import keras

    return isinstance(model, keras.Model)


def _split(model: Any) -> tuple[Callable[[np.ndarray], np.ndarray], Callable[[Any], Any]]:
    """The step from arrays to numbers that have gradients, and from there to outputs."""
    import keras

    if isinstance(model, CutModel):

        def embed(ids: np.ndarray) -> np.ndarray:
            if ids.dtype.kind not in "iu":
                raise InputError("inputs", "must be ids", f"dtype {ids.dtype}", "pass integers")
            vectors = model.embed(keras.ops.convert_to_tensor(ids.astype("int32")))
            return np.asarray(keras.ops.convert_to_numpy(vectors), dtype=np.float32)

        return embed, model.head
    if not callable(model):
        raise InputError(
            "model",
            "must be a Keras model, a `CutModel`, or a function",
            type(model).__name__,
            "pass a function of a batch of the backend's tensors",
        )
    head = (lambda x: model(x, training=False)) if _is_model(model) else model
    return lambda x: np.asarray(x, dtype=np.float32), head


def _compile(model: Any, head: Callable[[Any], Any], *, targets: tuple[int, ...]) -> Accumulate:
    import keras

    backend = keras.backend.backend()
    if backend not in ("tensorflow", "jax"):
        raise InputError("model", "must run on TensorFlow or JAX", backend, "set `KERAS_BACKEND`")
    build = _compile_tensorflow if backend == "tensorflow" else _compile_jax
    if not _is_model(model):
        # What a function closes over may be other numbers next time: it is compiled anew. A
        # token has one value: what its vector's numbers have to do with the output together.
        return build(head, targets, sums_vector=isinstance(model, CutModel))
    if backend == "tensorflow":
        found: Accumulate = compile_once(
            model,
            ("gradients", targets),
            build=lambda find_model: build(lambda x: find_model()(x, training=False), targets),
        )
        return found

    def build_stateless(find_model: Callable[[], Any]) -> Accumulate:
        return build(
            lambda x, *weights: call_with_weights(find_model(), x, weights=weights), targets
        )

    call = compile_once(model, ("gradients", targets), build=build_stateless)
    return lambda *step: call(*step, *read_weights(model))


def _compile_tensorflow(
    head: Callable[..., Any], targets: tuple[int, ...], *, sums_vector: bool = False
) -> Accumulate:
    import tensorflow as tf

    def accumulate(row: Any, known: Any, places: Any, weights: Any) -> tuple[Any, Any]:
        # One forward pass; the tape is kept for a backward pass from each output.
        with tf.GradientTape(persistent=True, watch_accessed_variables=False) as tape:
            points = known + places * (row - known)
            tape.watch(points)
            outputs = head(points)
            columns = [outputs[:, target] for target in targets]
        gradients = [tape.gradient(column, points) for column in columns]
        if any(gradient is None for gradient in gradients):
            raise _make_gradient_error()
        parts = tf.stack([gradient * (row - known) for gradient in gradients])
        if sums_vector:
            parts, weights = tf.reduce_sum(parts, axis=-1), weights[..., 0]
        mean = tf.reduce_sum(weights * parts, axis=1)
        return mean, tf.reduce_sum(weights * (parts - mean[:, None]) ** 2, axis=1)

    compiled: Accumulate = tf.function(accumulate, reduce_retracing=True, autograph=False)
    return compiled


def _compile_jax(
    head: Callable[..., Any], targets: tuple[int, ...], *, sums_vector: bool = False
) -> Accumulate:
    import jax

    def accumulate(
        row: Any, known: Any, places: Any, weights: Any, *model_weights: Any
    ) -> tuple[Any, Any]:
        points = known + places * (row - known)
        outputs, pull = jax.vjp(lambda x: head(x, *model_weights), points)
        seeds = jax.numpy.zeros((len(targets), *outputs.shape), dtype=outputs.dtype)
        for place, target in enumerate(targets):
            seeds = seeds.at[place, :, target].set(1)
        parts = jax.vmap(lambda seed: pull(seed)[0])(seeds) * (row - known)
        if sums_vector:
            parts, weights = parts.sum(axis=-1), weights[..., 0]
        mean = (weights * parts).sum(axis=1)
        return mean, (weights * (parts - mean[:, None]) ** 2).sum(axis=1)

    compiled: Accumulate = jax.jit(accumulate)
    return compiled


def _make_gradient_error() -> InputError:
    return InputError(
        "model",
        "must have a gradient with respect to its input",
        "none",
        "pass a function of the backend's tensors; for ids, a `CutModel`",
    )


def _follow(prepared: _Prepared, path: _Path) -> tuple[np.ndarray, np.ndarray]:
    """Weighted means and variances over the path, `(num_rows, *feature_shape, num_targets)`."""
    count = len(path.places)
    parts = np.array_split(np.arange(count), math.ceil(count / BATCH_SIZE))
    lift = (-1, *[1] * (prepared.rows.ndim - 1))
    shares = np.array([path.weights[part].sum() for part in parts])
    steps = []
    for part, share in zip(parts, shares, strict=True):
        places, weights = (
            each[part].astype(np.float32).reshape(lift) for each in (path.places, path.weights)
        )
        steps.append((prepared.known[path.baselines[part]], places, weights / np.float32(share)))
    values, variances = [], []
    for row in prepared.rows:
        found = [prepared.accumulate(row[None], *step) for step in steps]
        means = np.stack([np.asarray(mean, dtype=np.float64) for mean, _ in found])
        squares = np.stack([np.asarray(square, dtype=np.float64) for _, square in found])
        whole = np.tensordot(shares, means, axes=1)
        values.append(np.moveaxis(whole, 0, -1))
        spread = np.tensordot(shares, squares + (means - whole) ** 2, axes=1)
        variances.append(np.moveaxis(spread, 0, -1))
    return np.stack(values), np.stack(variances)


def _make_explanation(
    method: str,
    prepared: _Prepared,
    *,
    inputs: np.ndarray,
    values: np.ndarray,
    standard_errors: np.ndarray | None = None,
) -> Explanation:
    sums = values.reshape(len(values), -1, values.shape[-1]).sum(axis=1)
    base = np.tile(prepared.base, (len(values), 1))
    return Explanation(
        method,
        values,
        base,
        prepared.outputs,
        inputs,
        prepared.targets,
        standard_errors=standard_errors,
        diagnostics={"completeness_error": np.abs(base + sums - prepared.outputs)},
    )
