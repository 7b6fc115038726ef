"""The equations of the data page, as they stand there, against Keras for any shape."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from tools import notebooks

PAGE = notebooks.ROOT / "chapters" / "02_core_concepts" / "data_reliability_and_complexity.ipynb"
TOLERANCE = 1e-5

few_examples = settings(max_examples=10, deadline=None)
seeds = st.integers(0, 2**32 - 1)
classes = st.integers(2, 8)
sizes = st.integers(1, 9)


def load_equations():
    """Runs the cells of the page that define the losses and the networks."""
    names = {"np": np}
    for cell in notebooks.code_cells(notebooks.load_notebook(PAGE)):
        if cell.id in ("smoothing-defined", "networks-defined"):
            exec(cell.source, names)
    return names


EQUATIONS = load_equations()
compute_gradients, compute_smoothed_loss, forward, measure_error, smooth, softmax = (
    EQUATIONS[name]
    for name in (
        *("compute_gradients", "compute_smoothed_loss", "forward"),
        *("measure_error", "smooth", "softmax"),
    )
)


def check_smoothing(equation, seed, num_examples, num_classes, eta):
    generator = np.random.default_rng(seed)
    scores = generator.normal(size=(num_examples, num_classes))
    labels = generator.integers(num_classes, size=num_examples)
    loss = keras.losses.CategoricalCrossentropy(
        from_logits=True, label_smoothing=eta * num_classes / (num_classes - 1), reduction=None
    )
    given_scores = tf.Variable(scores, dtype="float32")
    with tf.GradientTape() as tape:
        by_keras = loss(np.eye(num_classes, dtype="float32")[labels], given_scores)
    slope_by_keras = tape.gradient(by_keras, given_scores).numpy()
    expected, slope = equation(scores, labels, eta)
    assert measure_error(by_keras.numpy(), expected) <= TOLERANCE
    # Near nought a gradient is the difference of probabilities, each rounded to float32.
    assert np.abs(slope_by_keras - slope).max() <= TOLERANCE * max(1, np.linalg.norm(slope))


@few_examples
@given(seeds, sizes, classes, st.floats(0.01, 0.4))
def test_noise_is_label_smoothing(seed, num_examples, num_classes, eta):
    check_smoothing(compute_smoothed_loss, seed, num_examples, num_classes, eta)


def smooth_over_all(z, labels, eta):
    """Spreads the noise over all classes, the true one among them."""
    k = z.shape[-1]
    q = (1 - eta) * np.eye(k)[labels] + eta / k
    return -(q * np.log(softmax(z))).sum(axis=-1), softmax(z) - q


def forget_noise(z, labels, eta):
    loss, _ = compute_smoothed_loss(z, labels, eta)
    return loss, softmax(z) - np.eye(z.shape[-1])[labels]


@pytest.mark.parametrize("broken", [smooth_over_all, forget_noise])
def test_twin_another_smoothing_does_not_agree(broken):
    with pytest.raises(AssertionError):
        check_smoothing(broken, 0, 6, 5, 0.2)


@given(seeds, classes, st.floats(0, 1))
def test_noise_keeps_the_true_class_ahead_up_to_its_bound(seed, num_classes, eta):
    bound = (num_classes - 1) / num_classes
    label = np.random.default_rng(seed).integers(num_classes, size=1)
    (q,) = smooth(label, eta, num_classes)
    assert q.sum() == pytest.approx(1)
    if abs(eta - bound) > 1e-9:
        assert (q[label[0]] == q.max() and np.sum(q == q.max()) == 1) == (eta < bound)


def draw_network(seed, *stack, num_inputs, width, num_classes):
    normal = np.random.default_rng(seed).normal
    return [
        normal(size=(*stack, num_inputs, width)),
        normal(size=(*stack, 1, width)),
        normal(size=(*stack, width, num_classes)),
        normal(size=(*stack, 1, num_classes)),
    ]


def draw_examples(seed, num_examples, num_inputs, num_classes):
    generator = np.random.default_rng(seed)
    x = generator.normal(size=(num_examples, num_inputs))
    return x, np.eye(num_classes)[generator.integers(num_classes, size=num_examples)]


def check_network(gradients, seed, num_examples, num_inputs, width, num_classes):
    weights = draw_network(seed, num_inputs=num_inputs, width=width, num_classes=num_classes)
    x, targets = draw_examples(seed + 1, num_examples, num_inputs, num_classes)
    model = keras.Sequential(
        [
            keras.Input((num_inputs,)),
            keras.layers.Dense(width, activation="relu"),
            keras.layers.Dense(num_classes),
        ]
    )
    kernel, bias, top_kernel, top_bias = weights
    model.set_weights([kernel, bias[0], top_kernel, top_bias[0]])
    with tf.GradientTape() as tape:
        output = model(x.astype("float32"))
        loss = keras.losses.CategoricalCrossentropy(from_logits=True)(
            targets.astype("float32"), output
        )
    slopes = tape.gradient(loss, model.trainable_variables)
    assert measure_error(output.numpy(), forward(weights, x)[1]) <= TOLERANCE
    for theirs, ours in zip(slopes, gradients(weights, x, targets), strict=True):
        difference = np.linalg.norm(theirs.numpy().ravel() - ours.ravel())
        assert difference <= TOLERANCE * max(1, np.linalg.norm(ours))


@few_examples
@given(seeds, sizes, sizes, sizes, classes)
def test_the_network_is_that_of_keras(seed, num_examples, num_inputs, width, num_classes):
    check_network(compute_gradients, seed, num_examples, num_inputs, width, num_classes)


def forget_the_kink(weights, x, targets):
    """Passes gradients through units that are off."""
    _, z = forward(weights, x)
    error = (softmax(z) - targets) / len(x)
    first = x.T @ (error @ weights[2].T)
    return [first, *compute_gradients(weights, x, targets)[1:]]


def forget_the_mean(weights, x, targets):
    return [len(x) * slope for slope in compute_gradients(weights, x, targets)]


@pytest.mark.parametrize("broken", [forget_the_kink, forget_the_mean])
def test_twin_a_broken_gradient_does_not_agree(broken):
    with pytest.raises(AssertionError):
        check_network(broken, 0, 7, 5, 6, 4)


@given(seeds, st.integers(1, 3), st.integers(1, 3))
def test_networks_side_by_side_do_not_touch(seed, num_levels, num_runs):
    stack = num_levels, num_runs
    weights = draw_network(seed, *stack, num_inputs=4, width=3, num_classes=5)
    pairs = [draw_examples(seed + place, 6, 4, 5) for place in range(num_levels * num_runs)]
    x = np.reshape([pair[0] for pair in pairs], (*stack, 6, 4))
    targets = np.reshape([pair[1] for pair in pairs], (*stack, 6, 5))
    together = compute_gradients(weights, x, targets)
    for place in np.ndindex(stack):
        alone = compute_gradients([w[place] for w in weights], x[place], targets[place])
        for one, of_many in zip(alone, together, strict=True):
            np.testing.assert_allclose(of_many[place], one, atol=1e-12)


@given(seeds, st.integers(1, 5))
def test_a_row_of_noughts_leaves_an_example_out(seed, num_dropped):
    weights = draw_network(seed, num_inputs=4, width=3, num_classes=5)
    x, targets = draw_examples(seed, 6, 4, 5)
    targets[:num_dropped] = 0
    without = compute_gradients(weights, x[num_dropped:], targets[num_dropped:])
    for found, expected in zip(compute_gradients(weights, x, targets), without, strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-12)


def test_twin_a_row_of_noughts_is_no_label():
    weights = draw_network(0, num_inputs=4, width=3, num_classes=5)
    x, targets = draw_examples(0, 6, 4, 5)
    kept = compute_gradients(weights, x, targets)[0]
    targets[0] = 0
    assert np.abs(compute_gradients(weights, x, targets)[0] - kept).max() > 1e-3
