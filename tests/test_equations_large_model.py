"""The equations of the page on large models, as they stand there, against Keras for any shape."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from bigmodel_utils import costs, models
from tools import notebooks

PAGE = notebooks.ROOT / "chapters" / "01_background" / "what_is_a_large_model.ipynb"
TOLERANCE = 1e-5

few_examples = settings(max_examples=8, deadline=None)
seeds = st.integers(0, 2**32 - 1)


EQUATIONS = notebooks.load_definitions(PAGE, keras=keras, models=models, np=np, tf=tf)
dense, dense_backwards, run_keras, measure_error, count_products = (
    EQUATIONS[name]
    for name in ("dense", "dense_backwards", "run_keras", "measure_error", "count_products")
)
count_by_hand, count_operations_by_hand, count_cache_by_hand, draw_settings = (
    EQUATIONS[name]
    for name in (
        *("count_by_hand", "count_operations_by_hand"),
        *("count_cache_by_hand", "draw_settings"),
    )
)


def draw_layer(seed, num_inputs, num_outputs):
    generator = np.random.default_rng(seed)
    weights = generator.normal(size=(num_outputs, num_inputs)) / np.sqrt(num_inputs)
    x, b, upstream = (generator.normal(size=n) for n in (num_inputs, num_outputs, num_outputs))
    return x, weights, b, upstream


def check_dense(equation, backwards, layer):
    x, weights, b, upstream = layer
    y, gradients = run_keras(x, weights, b, upstream)
    assert measure_error([y], [equation(x, weights, b)]) <= TOLERANCE
    assert measure_error(gradients, backwards(x, weights, b, upstream)) <= TOLERANCE


@few_examples
@given(seeds, st.integers(1, 40), st.integers(1, 40))
def test_dense_layer(seed, num_inputs, num_outputs):
    check_dense(dense, dense_backwards, draw_layer(seed, num_inputs, num_outputs))


def forget_slope(x, weights, b, upstream):
    return weights.T @ upstream, np.outer(upstream, x), upstream


def turn_around(x, weights, b, upstream):
    by_x, by_weights, by_b = dense_backwards(x, weights, b, upstream)
    return by_x, by_weights.T.reshape(by_weights.shape), by_b


@pytest.mark.parametrize("broken", [forget_slope, turn_around])
def test_twin_a_broken_gradient_does_not_agree(broken):
    with pytest.raises(AssertionError):
        check_dense(dense, broken, draw_layer(0, 5, 3))


def test_twin_a_layer_without_bias_does_not_agree():
    with pytest.raises(AssertionError):
        check_dense(lambda x, w, b: np.tanh(w @ x), dense_backwards, draw_layer(0, 5, 3))


@given(seeds, st.integers(1, 9), st.integers(1, 9))
@settings(deadline=None)
def test_gradient_by_complex_step(seed, num_inputs, num_outputs):
    x, weights, b, upstream = draw_layer(seed, num_inputs, num_outputs)
    by_x, _, _ = dense_backwards(x, weights, b, upstream)
    steps = 1e-30j * np.eye(num_inputs)
    slopes = [(dense(x + step, weights, b) @ upstream).imag / 1e-30 for step in steps]
    assert measure_error([by_x], [slopes]) <= 1e-12


@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 9))
@settings(deadline=None)
def test_products_are_counted(rows, inner, columns):
    counted = count_products(np.ones((rows, inner)), np.ones((inner, columns)))
    assert counted == rows * inner * columns
    backward = count_products(np.ones((rows, columns)), np.ones((columns, inner)))
    backward += count_products(np.ones((inner, rows)), np.ones((rows, columns)))
    assert backward == 2 * counted


@few_examples
@given(seeds)
def test_transformer(seed):
    """Parameters, operations and cache, by formula, by Keras and by the library."""
    drawn = draw_settings(np.random.default_rng(seed))
    shape, model = costs.Architecture.from_settings(drawn), models.build_language_model(drawn)
    assert count_by_hand(drawn) == model.count_params() == costs.count_parameters(shape).total
    length = 1 + seed % 32
    walked = costs.estimate_flops(model, length=length).total
    assert count_operations_by_hand(drawn, length) == walked
    cache = models.make_empty_cache(models.build_cached_model(model))
    num_bytes = sum(np.asarray(array).nbytes for array in cache)
    assert count_cache_by_hand(drawn, drawn.context_length, 4) == num_bytes


def test_twin_formulas_that_forget_a_part_are_wrong():
    drawn = models.LanguageModelSettings(
        vocabulary_size=50,
        num_layers=2,
        width=24,
        num_heads=6,
        num_key_value_heads=2,
        feedforward_width=40,
        context_length=8,
    )
    model = models.build_language_model(drawn)
    unshared = models.LanguageModelSettings(
        **drawn.to_dict() | {"num_key_value_heads": drawn.num_heads}
    )
    assert count_by_hand(unshared) != model.count_params()
    assert count_by_hand(drawn) - drawn.width != model.count_params()  # the last norm
    walked = costs.estimate_flops(model, length=8).total
    assert count_operations_by_hand(drawn, 8) != count_operations_by_hand(drawn, 7) + walked // 8
    cache = models.make_empty_cache(models.build_cached_model(model))
    num_bytes = sum(np.asarray(array).nbytes for array in cache)
    assert count_cache_by_hand(unshared, 8, 4) == 3 * num_bytes
