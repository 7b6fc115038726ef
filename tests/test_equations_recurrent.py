"""The recurrent equations as the page prints them, against Keras, on random shapes.

The functions are read from the page, so that what a reader sees is what is tested. The twins
corrupt the printed text and see the comparison fail.
"""

import functools

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bigmodel_utils import models
from tools import notebooks

PAGE = notebooks.ROOT / "chapters" / "03_algorithms" / "rnn.ipynb"
LIMIT = 1e-5
RANDOM_SHAPES = settings(max_examples=8, deadline=None)


@functools.cache
def load_page(find="", replace=""):
    """The definitions of the page, with one piece of its text replaced."""
    return notebooks.load_definitions(PAGE, find=find, replace=replace)


LAYERS = {
    "rnn": keras.layers.SimpleRNN,
    "lstm": keras.layers.LSTM,
    "gru": keras.layers.GRU,
    "gru_before": functools.partial(keras.layers.GRU, reset_after=False),
}


def compute_states(page, kind, weights, x):
    columns = page["as_columns"](*weights)
    return page["run"](page[f"step_{kind}"], columns, x.transpose(1, 2, 0))


def find_errors(kind, shape, seed, page=None):
    """Relative errors of output and gradient for examples, time, features and units."""
    import tensorflow as tf

    page = page or load_page()
    num_examples, time, features, units = shape
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(num_examples, time, features)).astype(np.float32)
    layer = LAYERS[kind](units)
    layer.build(x.shape)
    # Moderate weights: in float32, 1 - tanh² of a saturated state is rounding and little else.
    layer.set_weights([rng.normal(scale=0.3, size=weight.shape) for weight in layer.weights])
    outwards = rng.normal(size=(num_examples, units))
    inputs = tf.constant(x)
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        output = layer(inputs)
        loss = tf.reduce_sum(output * tf.constant(outwards, tf.float32))
    by_keras = tape.gradient(loss, [inputs, *layer.trainable_variables])

    def compute_loss(x, *weights):
        return (compute_states(page, kind, weights, x)[-1][:units].T * outwards).sum()

    arrays = [array.astype(float) for array in (x, *layer.get_weights())]
    ours = compute_states(page, kind, arrays[1:], arrays[0])[-1][:units].T
    gradients = page["differentiate"](compute_loss, arrays)
    # Over all arrays together: a single one may vanish, such as R's after one step.
    flat_ours, flat_keras = (
        np.concatenate([np.ravel(part) for part in parts]) for parts in (gradients, by_keras)
    )
    return page["find_error"](output.numpy(), ours), page["find_error"](flat_ours, flat_keras)


shapes = st.tuples(st.integers(1, 3), st.integers(1, 6), st.integers(1, 4), st.integers(1, 4))


@pytest.mark.parametrize("kind", LAYERS)
@RANDOM_SHAPES
@given(shape=shapes, seed=st.integers(0, 10**6))
def test_printed_equation_is_the_layer(kind, shape, seed):
    forward, backward = find_errors(kind, shape, seed)
    assert forward <= LIMIT
    assert backward <= LIMIT


@pytest.mark.parametrize(
    ("kind", "find", "replace"),
    [
        ("rnn", "np.tanh(kernel @ x + recurrent @ h", "np.tanh(kernel @ x + recurrent.T @ h"),
        ("lstm", "i, f, g, o = np.split", "i, g, f, o = np.split"),
        ("lstm", "sigmoid(f) * c +", "(1 - sigmoid(i)) * c +"),
        ("gru", "a_z, a_r, a_g = np.split(kernel @ x + bias, 3)\n    u_z",
         "a_r, a_z, a_g = np.split(kernel @ x + bias, 3)\n    u_z"),
        ("gru", "np.tanh(a_g + r * u_g)", "np.tanh(a_g + u_g)"),
        ("gru_before", "r_g @ (r * h)", "r * (r_g @ h)"),
    ],
)  # fmt: skip
def test_twin_a_corrupted_equation_is_not(kind, find, replace):
    forward, backward = find_errors(kind, (2, 4, 3, 4), 0, load_page(find, replace))
    assert forward > 1e-3
    assert backward > 1e-3


def test_twin_a_corrupted_gradient_is_found():
    page = load_page("function(*moved).imag / 1e-30", "function(*moved).imag / 1.01e-30")
    forward, backward = find_errors("lstm", (2, 3, 2, 3), 0, page)
    assert forward <= LIMIT
    assert backward > 1e-3


@RANDOM_SHAPES
@given(
    units=st.integers(1, 6),
    time=st.integers(2, 8),
    gain=st.floats(0.2, 3),
    seed=st.integers(0, 10**6),
)
def test_memory_equals_the_product_of_the_formula_and_keeps_its_bound(units, time, gain, seed):
    rng = np.random.default_rng(seed)
    matrix = gain * np.linalg.qr(rng.normal(size=(units, units)))[0]
    weights = [rng.normal(size=(units, 2)), matrix, rng.normal(size=(units, 1))]
    inputs = rng.normal(size=(time, 2, 1))
    page = load_page()
    norms = page["measure_memory"](page["step_rnn"], weights, inputs)
    product = np.eye(units)
    states = page["run"](page["step_rnn"], weights, inputs)
    for distance, h in enumerate(states[:0:-1], start=1):
        product = product @ np.diag(1 - h[:, 0] ** 2) @ matrix
        assert norms[distance] == pytest.approx(np.linalg.norm(product, 2), rel=1e-9, abs=1e-12)
    assert (norms <= gain ** np.arange(time) * (1 + 1e-9)).all()


def test_twin_memory_without_the_tangent_breaks_the_formula():
    page = load_page("inputs[:0:-1], states[-2::-1]", "inputs[:0:-1], states[:0:-1]")
    rng = np.random.default_rng(0)
    weights = [rng.normal(size=shape) for shape in ((3, 2), (3, 3), (3, 1))]
    inputs = rng.normal(size=(6, 2, 1))
    right, wrong = (
        loaded["measure_memory"](loaded["step_rnn"], weights, inputs)
        for loaded in (load_page(), page)
    )
    assert np.abs(right - wrong).max() > 1e-3


@RANDOM_SHAPES
@given(distance=st.integers(1, 2000), kept=st.floats(0.01, 0.99))
def test_forget_bias_keeps_what_was_asked(distance, kept):
    gate = 1 / (1 + np.exp(-models.ForgetBias(distance, kept=kept).bias))
    assert gate**distance == pytest.approx(kept, rel=1e-6)


def test_twin_the_bias_of_one_does_not():
    assert (1 / (1 + np.exp(-1))) ** 100 < 1e-10
