"""The convolution as the page prints it, against Keras, on random shapes.

The functions are read from the page, so that what a reader sees is what is tested. The twins
corrupt the printed text and see the comparison fail.
"""

import functools

import keras
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tools import notebooks

PAGE = notebooks.ROOT / "chapters" / "03_algorithms" / "cnn.ipynb"
LIMIT = 1e-5
RANDOM_SHAPES = settings(max_examples=12, deadline=None)


@functools.cache
def load_page(find="", replace=""):
    """The definitions of the page, with one piece of its text replaced."""
    return notebooks.load_definitions(PAGE, find=find, replace=replace)


def compare(*sizes, **options):
    """The page's comparison, but for layers whose rectifier lets nothing pass."""
    try:
        return load_page()["compare"](*sizes, **options)
    except RuntimeWarning as warning:  # nought over nought
        assume("scalar divide" not in str(warning))
        raise


shapes = st.tuples(st.integers(4, 9), st.integers(4, 9))


@RANDOM_SHAPES
@given(
    shape=shapes,
    channels=st.integers(1, 3),
    filters=st.integers(1, 4),
    size=st.integers(1, 4),
    stride=st.integers(1, 3),
    seed=st.integers(0, 10**6),
)
def test_printed_convolution_is_the_layer(shape, channels, filters, size, stride, seed):
    forward, backward = compare(shape, channels, filters, size, stride=stride, seed=seed)
    assert forward <= LIMIT
    assert backward <= LIMIT


@RANDOM_SHAPES
@given(
    shape=shapes,
    channels=st.integers(1, 3),
    filters=st.integers(1, 4),
    half=st.integers(1, 2),
    seed=st.integers(0, 10**6),
)
def test_printed_padding_is_the_layer_s(shape, channels, filters, half, seed):
    forward, backward = compare(shape, channels, filters, 2 * half + 1, pad=half, seed=seed)
    assert forward <= LIMIT
    assert backward <= LIMIT


@pytest.mark.parametrize(
    ("find", "replace"),
    [
        ("= kernel[q].T", "= kernel[q[::-1]].T"),  # offsets change places
        ("starts[i][p[i]] + q[i]", "starts[i][p[i]] - q[i] + size - 1"),  # a true convolution
        ("n + pad - size + 1, stride)", "n + pad - size + 1, 1)"),  # the step is forgotten
    ],
)
def test_twin_a_corrupted_matrix_is_not(find, replace):
    compare = load_page(find, replace)["compare"]
    try:
        forward, _ = compare((7, 6), 2, 3, 3, stride=2)
    except ValueError:
        return  # another number of outputs
    assert forward > 1e-2


@pytest.mark.parametrize(
    ("find", "replace"),
    [
        ("upstream.ravel() * slope", "upstream.ravel()"),  # the rectifier passes everything
        ("by_weight = np.bincount(which.ravel(), by_entry.ravel(), kernel.size + 1)[1:]",
         "by_weight = by_entry.ravel()[np.unique(which, return_index=True)[1]][1:]"),
    ],
)  # fmt: skip
def test_twin_a_corrupted_gradient_is_not(find, replace):
    forward, backward = load_page(find, replace)["compare"]((7, 6), 2, 3, 3)
    assert forward <= LIMIT
    assert backward > 1e-2


def find_pooling_errors(page, shape, channels, size, seed):
    import tensorflow as tf

    rng = np.random.default_rng(seed)
    x = rng.normal(size=(*shape, channels))
    inputs = tf.constant(x[None], tf.float32)
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        pooled = keras.layers.MaxPooling2D(size)(inputs)
        upstream = rng.normal(size=pooled.shape)
        loss = tf.reduce_sum(pooled * tf.constant(upstream, tf.float32))
    largest, gradient = page["pool_max"](x, size, upstream)
    find_error = page["find_error"]
    return (
        find_error([largest], [pooled]),
        find_error([gradient], [tape.gradient(loss, inputs)]),
        find_error([page["pool_mean"](x, size)], [keras.layers.AveragePooling2D(size)(inputs)]),
    )


@RANDOM_SHAPES
@given(shape=shapes, channels=st.integers(1, 3), size=st.integers(1, 4), seed=st.integers(0, 10**6))
def test_printed_pooling_is_the_layer(shape, channels, size, seed):
    assert max(find_pooling_errors(load_page(), shape, channels, size, seed)) <= LIMIT


@pytest.mark.parametrize(
    ("find", "replace", "which"),
    [
        ("windows.max(axis=(1, 3)", "windows.mean(axis=(1, 3)", 0),
        ("(windows == largest) * upstream", "np.ones(windows.shape) * upstream", 1),
        ("/ size**2", "/ size", 2),
    ],
)
def test_twin_a_corrupted_pooling_is_not(find, replace, which):
    assert find_pooling_errors(load_page(find, replace), (6, 6), 2, 2, 0)[which] > 1e-2


@RANDOM_SHAPES
@given(
    size=st.integers(1, 3),
    stride=st.integers(1, 3),
    side=st.integers(5, 9),
    steps=st.integers(0, 2),
    seed=st.integers(0, 10**6),
)
def test_the_matrix_commutes_with_shifts_of_whole_steps(size, stride, side, steps, seed):
    """Inside: what the window sees at position p + n is what it saw at p before the shift."""
    assume(side - size - stride * steps >= 0)
    rng = np.random.default_rng(seed)
    kernel = rng.normal(size=(size, size, 1, 1))
    unroll = load_page()["unroll"]
    matrix = unroll(kernel, (side, side), stride)
    across = (side - size) // stride + 1
    x = rng.normal(size=(side, side))
    moved = np.roll(x, stride * steps, axis=1)
    before, after = ((matrix @ z.ravel()).reshape(across, across) for z in (x, moved))
    np.testing.assert_allclose(after[:, steps:], before[:, : across - steps], atol=1e-12)


def test_twin_half_a_step_has_no_counterpart():
    matrix = load_page()["unroll"](np.ones((2, 2, 1, 1)), (8, 8), 2)
    x = np.random.default_rng(0).normal(size=(8, 8))
    before, after = ((matrix @ z.ravel()).reshape(4, 4) for z in (x, np.roll(x, 1, axis=1)))
    assert all(np.abs(after[:, n:] - before[:, : 4 - n]).max() > 1e-2 for n in (0, 1))
