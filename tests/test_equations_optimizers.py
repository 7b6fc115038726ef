"""The equations of the page on training, as they stand there, against Keras for any shape."""

from functools import partial

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from tools import notebooks

PAGE = notebooks.ROOT / "chapters" / "03_algorithms" / "training_and_validation.ipynb"
TOLERANCE = 1e-5

few_examples = settings(max_examples=8, deadline=None)
seeds = st.integers(0, 2**32 - 1)
shapes = st.lists(st.integers(1, 4), min_size=1, max_size=2).map(tuple)
shares = st.floats(0.1, 0.95)
rates = st.floats(0.05, 0.5)


EQUATIONS = notebooks.load_definitions(PAGE, np=np, tf=tf, keras=keras)
adapt, clip, decode, descend, follow, gather_speed, look_ahead, rescale = (
    EQUATIONS[name]
    for name in (
        *("adapt", "clip", "decode", "descend", "follow", "gather_speed"),
        *("look_ahead", "rescale"),
    )
)
clip_keras, follow_keras, join, measure_error, shrink_and_adapt = (
    EQUATIONS[name]
    for name in ("clip_keras", "follow_keras", "join", "measure_error", "shrink_and_adapt")
)
SGD, Adam, AdamW = (getattr(keras.optimizers, name) for name in ("SGD", "Adam", "AdamW"))


def draw_way(seed, shape, num_steps=12):
    """Small weights, and gradients none of which is near nought."""
    generator = np.random.default_rng(seed)
    gradients = generator.uniform(0.5, 2, (num_steps, *shape))
    gradients *= generator.choice([-1, 1], gradients.shape)
    return 0.1 * generator.normal(size=shape), gradients


def check_rule(rule, optimizer, seed, shape):
    start, gradients = draw_way(seed, shape)
    found, expected = follow_keras(optimizer, start, gradients), follow(rule, start, gradients)
    assert measure_error(found, expected) <= TOLERANCE


@few_examples
@given(seeds, shapes, rates, shares)
def test_descent_and_momentum(seed, shape, rate, mu):
    check_rule(partial(descend, rate=rate), SGD(rate), seed, shape)
    for rule, is_nesterov in ((gather_speed, False), (look_ahead, True)):
        optimizer = SGD(rate, momentum=mu, nesterov=is_nesterov)
        check_rule(partial(rule, rate=rate, mu=mu), optimizer, seed, shape)


@few_examples
@given(seeds, shapes, rates, st.tuples(shares, st.floats(0.5, 0.99)), st.floats(1e-8, 1e-2))
def test_adam_and_adamw(seed, shape, rate, betas, epsilon):
    options = {"beta_1": betas[0], "beta_2": betas[1], "epsilon": epsilon}
    rule = partial(adapt, rate=rate, betas=betas, epsilon=epsilon)
    check_rule(rule, Adam(rate, **options), seed, shape)
    rule = partial(shrink_and_adapt, rate=rate, decay=0.3, betas=betas, epsilon=epsilon)
    check_rule(rule, AdamW(rate, weight_decay=0.3, **options), seed, shape)


def adapt_late_epsilon(w, g, state, rate):
    """Epsilon added after the correction, as the paper prints it."""
    moved = adapt(w, g, state, rate, epsilon=0.0)
    corrected = np.sqrt(state["v"] / (1 - 0.999 ** state["t"]))
    return w + (moved - w) * corrected / (corrected + 0.01)


def shrink_by_decay_alone(w, g, state, rate, decay):
    return adapt(w - decay * w, g, state, rate)


def penalize(w, g, state, rate, decay):
    return adapt(w, g + decay * w, state, rate)


@pytest.mark.parametrize(
    ("rule", "optimizer"),
    [
        (partial(descend, rate=0.11), partial(SGD, 0.1)),
        (partial(gather_speed, rate=0.1), partial(SGD, 0.1, momentum=0.9, nesterov=True)),
        (partial(look_ahead, rate=0.1), partial(SGD, 0.1, momentum=0.9)),
        (partial(adapt_late_epsilon, rate=0.1), partial(Adam, 0.1, epsilon=0.01)),
        (partial(shrink_by_decay_alone, rate=0.1, decay=0.1), partial(AdamW, 0.1, 0.1)),
        (partial(penalize, rate=0.1, decay=0.1), partial(Adam, 0.1, weight_decay=0.1)),
    ],
)
def test_a_broken_rule_does_not_agree(rule, optimizer):
    with pytest.raises(AssertionError):
        check_rule(rule, optimizer(), 0, (4, 3))


@pytest.mark.parametrize("kind", [Adam, keras.optimizers.RMSprop])
def test_repeated_rows_are_squared_before_they_are_summed(kind):
    """The fault that the page shows. When this fails, Keras is mended: let the page say so."""
    generator = np.random.default_rng(0)
    rows = tf.IndexedSlices(
        generator.normal(size=(5, 2)).astype("float32"), [0, 1, 1, 2, 2], (3, 2)
    )
    steps = []
    for gradient in (rows, tf.convert_to_tensor(rows)):
        table = keras.Variable(np.zeros((3, 2)))
        kind(0.1).apply([gradient], [table])
        steps.append(np.asarray(table))
    np.testing.assert_allclose(steps[0][0], steps[1][0], rtol=1e-5)
    assert measure_error(steps[0][1:], steps[1][1:]) > 0.05


def check_schedule(rule, peak, num_warmup, num_decay):
    schedule = keras.optimizers.schedules.CosineDecay(
        0.0, num_decay, warmup_target=peak, warmup_steps=num_warmup
    )
    steps = range(num_warmup + num_decay + 3)
    found = [float(schedule(t)) for t in steps]
    assert measure_error(found, [rule(t, peak, num_warmup, num_decay) for t in steps]) <= TOLERANCE


@few_examples
@given(st.floats(1e-4, 10), st.integers(1, 20), st.integers(1, 40))
def test_schedule(peak, num_warmup, num_decay):
    check_schedule(EQUATIONS["warm_up_and_fall"], peak, num_warmup, num_decay)


def test_a_schedule_that_begins_one_step_late_does_not_agree():
    with pytest.raises(AssertionError):
        check_schedule(lambda t, *rest: EQUATIONS["warm_up_and_fall"](t - 1, *rest), 1.0, 5, 20)


def check_clipping(rule, seed, shape, most):
    generator = np.random.default_rng(seed)
    gradients = [generator.normal(size=shape), 10 * generator.normal(size=(3,))]
    found = clip_keras(gradients, global_clipnorm=most)
    assert measure_error(join(found), join(rule(gradients, most))) <= TOLERANCE


@few_examples
@given(seeds, shapes, st.floats(0.01, 100))
def test_clipping(seed, shape, most):
    check_clipping(clip, seed, shape, most)


def test_clipping_array_by_array_does_not_agree():
    with pytest.raises(AssertionError):
        check_clipping(
            lambda gradients, most: [clip([g], most)[0] for g in gradients], 0, (4, 3), 0.5
        )


def check_softmax_gradient(rule, seed, num_examples, width, num_classes):
    generator = np.random.default_rng(seed)
    x = generator.normal(size=(num_examples, width))
    y = np.eye(num_classes)[generator.integers(0, num_classes, num_examples)]
    kernel = tf.Variable(generator.normal(size=(width, num_classes)), dtype=tf.float32)
    with tf.GradientTape() as tape:
        scores = tf.constant(x, tf.float32) @ kernel
        loss = keras.losses.CategoricalCrossentropy(from_logits=True)(y, scores)
    expected = rule(np.asarray(kernel, np.float64), x, y)
    assert measure_error(tape.gradient(loss, kernel), expected) <= TOLERANCE


@few_examples
@given(seeds, st.integers(1, 8), st.integers(1, 5), st.integers(2, 5))
def test_softmax_gradient(seed, num_examples, width, num_classes):
    check_softmax_gradient(EQUATIONS["softmax_gradient"], seed, num_examples, width, num_classes)


def test_a_summed_gradient_does_not_agree_with_the_mean():
    with pytest.raises(AssertionError):
        check_softmax_gradient(
            lambda w, x, y: len(x) * EQUATIONS["softmax_gradient"](w, x, y), 0, 4, 3, 3
        )


def check_parts(bounds, seed):
    """The mean of the gradients of parts against that of the whole."""
    generator = np.random.default_rng(seed)
    x, w = generator.normal(size=(bounds[-1], 4)), generator.normal(size=(4, 3))
    y = np.eye(3)[generator.integers(0, 3, len(x))]
    gradient = partial(EQUATIONS["softmax_gradient"], w)
    parts = zip(np.split(x, bounds[:-1]), np.split(y, bounds[:-1]), strict=True)
    mean = np.mean([gradient(*part) for part in parts], axis=0)
    np.testing.assert_allclose(mean, gradient(x, y), atol=1e-12)
    size = bounds[0]
    if bounds == list(range(size, len(x) + 1, size)):
        by_page = EQUATIONS["accumulate"](gradient, x, y, len(bounds))
        np.testing.assert_allclose(by_page, mean, atol=1e-12)


@settings(deadline=None)
@given(seeds, st.integers(1, 5), st.integers(1, 5))
def test_equal_parts_make_up_the_whole(seed, size, num_parts):
    check_parts([size * (n + 1) for n in range(num_parts)], seed)


def test_unequal_parts_do_not():
    with pytest.raises(AssertionError):
        check_parts([8, 10], 0)


def check_patterns(rule, seed):
    patterns = np.random.default_rng(seed).integers(0, 2**32, 200)
    with np.errstate(invalid="ignore"):  # some patterns are undefined numbers
        stored = patterns.astype(np.uint32).view(np.float32).astype(np.float64)
    np.testing.assert_array_equal(rule(patterns, 8, 23), stored)


@settings(deadline=None)
@given(seeds)
def test_bit_patterns_of_float32(seed):
    check_patterns(decode, seed)


def test_another_bias_does_not_agree():
    with pytest.raises(AssertionError):
        check_patterns(lambda patterns, *bits: 2 * decode(patterns, *bits), 0)


def check_scale(rule, steps, patience):
    optimizer = keras.optimizers.LossScaleOptimizer(
        SGD(1.0), initial_scale=64.0, dynamic_growth_steps=patience
    )
    weight, scale, num_finite = keras.Variable([0.0]), 64.0, 0
    for is_finite in steps:
        gradient = tf.constant([1.0 if is_finite else np.inf])
        optimizer.apply([gradient], [weight])
        scale, num_finite = rule(scale, num_finite, is_finite, patience)
        assert float(optimizer.dynamic_scale) == scale


@few_examples
@given(st.lists(st.booleans(), max_size=12), st.integers(1, 4))
def test_loss_scale(steps, patience):
    check_scale(rescale, steps, patience)


def test_a_scale_that_forgets_to_start_over_does_not_agree():
    def forgetful(scale, num_finite, is_finite, patience):
        changed, count = rescale(scale, num_finite, is_finite, patience)
        return changed, count if is_finite else num_finite

    with pytest.raises(AssertionError):
        check_scale(forgetful, [True, False, True, True], 3)


def check_left_out(rule, seed, num_examples, width, alpha):
    generator = np.random.default_rng(seed)
    x, y = generator.normal(size=(num_examples, width)), generator.normal(size=num_examples)
    slow = []
    for i in range(num_examples):
        a, b = np.delete(x, i, axis=0), np.delete(y, i)
        slow.append(y[i] - x[i] @ np.linalg.solve(a.T @ a + alpha * np.eye(width), a.T @ b))
    np.testing.assert_allclose(rule(x, y, alpha), slow, rtol=1e-6, atol=1e-9)


@settings(deadline=None)
@given(seeds, st.integers(2, 9), st.integers(1, 4), st.floats(0.01, 10))
def test_left_out_residuals(seed, num_examples, width, alpha):
    check_left_out(EQUATIONS["find_left_out_residuals"], seed, num_examples, width, alpha)


def test_residuals_of_examples_that_were_seen_do_not_agree():
    def seen(x, y, alpha):
        return y - x @ np.linalg.solve(x.T @ x + alpha * np.eye(x.shape[1]), x.T @ y)

    with pytest.raises(AssertionError):
        check_left_out(seen, 0, 8, 3, 1.0)
