"""Rounding that knows the inputs: every rounding tried, the procedure step by step, its bound."""

import itertools

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bigmodel_utils._checks import InputError
from bigmodel_utils.compression import quantize_to_nearest, quantize_with_gptq
from bigmodel_utils.compression._gptq import factor_inverse

SEEDS = st.integers(0, 10_000)


def draw(seed, num_inputs=4, num_outputs=3, num_examples=12):
    rng = np.random.default_rng(seed)
    mixed = rng.normal(size=(num_inputs, num_inputs)) + 1
    inputs = rng.normal(size=(num_examples, num_inputs)) @ mixed
    return rng.normal(size=(num_inputs, num_outputs)).astype("float32"), inputs


def measure_loss(kernel, inputs, rounded, damping=0.01):
    """Squared change of the outputs of each column, with the damping that GPTQ adds."""
    difference = rounded - kernel
    ridge = damping * np.trace(inputs.T @ inputs) / len(kernel)
    return ((inputs @ difference) ** 2).sum(axis=0) + ridge * (difference**2).sum(axis=0)


def find_best_rounding(kernel, inputs, grid, num_bits):
    """Least loss of a column over all integers, by trying them all."""
    half = 2 ** (num_bits - 1)
    choices = np.array(list(itertools.product(range(-half, half), repeat=len(kernel))))
    steps, zeros = grid.steps[0], grid.zeros[0].astype(int)
    return np.array(
        [
            min(
                measure_loss(
                    kernel[:, [column]], inputs, ((q - zeros[column]) * steps[column])[:, None]
                )[0]
                for q in choices
            )
            for column in range(kernel.shape[1])
        ]
    )


def round_step_by_step(kernel, inputs, grid, num_bits, damping=0.01):
    """Optimal brain quantization in the order of GPTQ: a new inverse for every weight."""
    half = 2 ** (num_bits - 1)
    steps, zeros = grid._spread()
    hessian = inputs.T @ inputs
    hessian = hessian + damping * np.trace(hessian) / len(hessian) * np.eye(len(hessian))
    order = list(np.argsort(-np.diag(inputs.T @ inputs), kind="stable"))
    rest, integers = kernel.astype(float), np.zeros(kernel.shape, int)
    while order:
        inverse = np.linalg.inv(hessian[np.ix_(order, order)])
        row = order[0]
        integers[row] = np.clip(np.rint(rest[row] / steps[row] + zeros[row]), -half, half - 1)
        error = rest[row] - (integers[row] - zeros[row]) * steps[row]
        rest[order] -= np.outer(inverse[:, 0] / inverse[0, 0], error)
        order = order[1:]
    return integers


@given(SEEDS, st.sampled_from([None, 2, 3]), st.integers(2, 5))
@settings(max_examples=40)
def test_it_is_the_procedure_step_by_step(seed, block_size, num_bits):
    kernel, inputs = draw(seed, num_inputs=7)
    result = quantize_with_gptq(kernel, inputs, num_bits=num_bits, block_size=block_size)
    grid = quantize_to_nearest(kernel, num_bits=num_bits, block_size=block_size)
    assert np.array_equal(result.integers, round_step_by_step(kernel, inputs, grid, num_bits))
    assert np.array_equal(result.steps, grid.steps)
    assert np.array_equal(result.zeros, grid.zeros)


def test_that_another_order_would_be_seen():
    kernel, inputs = draw(0, num_inputs=7)
    grid = quantize_to_nearest(kernel, num_bits=3, block_size=None)
    turned = round_step_by_step(kernel, inputs[:, ::-1].copy(), grid, 3)
    result = quantize_with_gptq(kernel, inputs, num_bits=3, block_size=None)
    assert not np.array_equal(result.integers, turned)


def test_it_lies_between_the_best_and_the_nearest():
    losses = []
    for seed in range(8):
        kernel, inputs = draw(seed, num_outputs=2)
        nearest = quantize_to_nearest(kernel, num_bits=2, block_size=None)
        gptq = quantize_with_gptq(kernel, inputs, num_bits=2, block_size=None)
        best = find_best_rounding(kernel, inputs, nearest, 2)
        found = measure_loss(kernel, inputs, gptq.decode())
        assert (found >= best - 1e-9).all()
        losses.append(
            (best.sum(), found.sum(), measure_loss(kernel, inputs, nearest.decode()).sum())
        )
    best, found, nearest = np.sum(losses, axis=0)
    assert best <= found < 0.7 * nearest


@given(SEEDS)
@settings(max_examples=20)
def test_inputs_that_do_not_go_together_leave_the_nearest(seed):
    rng = np.random.default_rng(seed)
    kernel, _ = draw(seed)
    inputs = np.diag(rng.uniform(0.5, 2, 4))
    nearest = quantize_to_nearest(kernel, num_bits=2, block_size=None)
    gptq = quantize_with_gptq(kernel, inputs, num_bits=2, block_size=None)
    assert np.array_equal(gptq.integers, nearest.integers)
    best = find_best_rounding(kernel, inputs, nearest, 2)
    assert measure_loss(kernel, inputs, gptq.decode()) == pytest.approx(best, rel=1e-4)


def check_bound(kernel, inputs, result):
    """Where nothing is clipped, an error is at most half a step divided by `U_ii`."""
    order, factor = factor_inverse(inputs, damping=0.01)
    steps, _ = result._spread()
    bound = ((steps[order] / 2 / np.diag(factor)[:, None]) ** 2).sum(axis=0)
    assert (measure_loss(kernel, inputs, result.decode()) <= bound * (1 + 1e-6)).all()


@given(SEEDS)
@settings(max_examples=40)
def test_the_loss_is_within_its_bound(seed):
    # A first row of large weights that no input reaches fixes the steps: nothing is clipped.
    kernel, inputs = draw(seed, num_inputs=6)
    kernel[0], inputs[:, 0] = 100, 1e-6
    check_bound(kernel, inputs, quantize_with_gptq(kernel, inputs, num_bits=8, block_size=None))


def test_that_the_nearest_integers_would_break_the_bound():
    def check_all():
        for seed in range(20):
            kernel, inputs = draw(seed, num_inputs=6)
            kernel[0], inputs[:, 0] = 100, 1e-6
            check_bound(kernel, inputs, quantize_to_nearest(kernel, num_bits=8, block_size=None))

    with pytest.raises(AssertionError):
        check_all()


@given(SEEDS, st.integers(1, 40), st.sampled_from([None, 1, 8, 128]))
@settings(max_examples=25, deadline=None)
def test_the_nearest_integers_are_those_of_keras(seed, num_inputs, block_size):
    kernel = np.random.default_rng(seed).normal(size=(num_inputs, 5)).astype("float32")
    if block_size is None:
        integers, scales = keras.quantizers.abs_max_quantize(
            kernel, axis=0, value_range=(-8, 7), to_numpy=True
        )
        expected = keras.ops.convert_to_numpy(integers) / keras.ops.convert_to_numpy(scales)
    else:
        integers, steps, zeros = keras.quantizers.abs_max_quantize_grouped_with_zero_point(
            kernel, block_size=block_size, to_numpy=True
        )
        rows = np.arange(num_inputs) // block_size
        steps, zeros = (keras.ops.convert_to_numpy(array)[rows] for array in (steps, zeros))
        expected = (keras.ops.convert_to_numpy(integers).astype(int) - zeros) * steps
    result = quantize_to_nearest(kernel, block_size=block_size)
    assert np.array_equal(result.integers, keras.ops.convert_to_numpy(integers))
    assert result.decode() == pytest.approx(expected, rel=1e-5, abs=1e-6)


@pytest.mark.parametrize(
    ("kernel", "inputs", "options", "name"),
    [
        ([1.0, 2.0], [[1.0]], {}, "kernel"),
        ([[1.0]], [[1.0, 2.0]], {}, "inputs"),
        ([[1.0]], [[0.0]], {}, "inputs"),
        ([[np.inf]], [[1.0]], {}, "kernel"),
        ([[1.0]], [[1.0]], {"num_bits": 9}, "num_bits"),
        ([[1.0]], [[1.0]], {"block_size": 0}, "block_size"),
        ([[1.0]], [[1.0]], {"damping": 0.0}, "damping"),
    ],
)
def test_bad_input_is_refused_by_name(kernel, inputs, options, name):
    with pytest.raises(InputError, match=name):
        quantize_with_gptq(kernel, inputs, **options)
