"""What finds failures that raise no error: each on sound programs and on broken ones."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from keras.distillation import LogitsDistillation

from bigmodel_utils import models, training
from bigmodel_utils._checks import InputError
from tools import notebooks

PAGE = notebooks.ROOT / "chapters" / "01_background" / "why_standards.ipynb"
TOLERANCE = 1e-5

some_examples = settings(max_examples=20, deadline=None)
seeds = st.integers(0, 2**32 - 1)
temperatures = st.sampled_from([1.0, 2.0, 3.0, 8.0])


EQUATIONS = notebooks.load_definitions(PAGE)
diverge, diverge_clipped, measure_error, run_keras, softmax = (
    EQUATIONS[name]
    for name in ("diverge", "diverge_clipped", "measure_error", "run_keras", "softmax")
)


# The two losses of the page, against Keras for any shape and temperature.


def weigh_divergence(target, given_scores, temperature):
    """Size of the terms that the divergence adds up: at a high temperature they cancel."""
    p, q = softmax(target / temperature), softmax(given_scores / temperature)
    return temperature**2 * (p * np.abs(np.log(p / q))).sum(axis=-1).mean()


def weigh_clipped(target, given_scores, temperature):
    """Size of the terms that the clipped formula adds up."""
    a, b = (np.clip(scores / temperature, 1e-7, 1) for scores in (target, given_scores))
    return (a * np.abs(np.log(a / b))).sum(axis=-1).mean()


def check_agreement(strategy, equation, weigh, seed, shape):
    # Moderate scores: Keras clips probabilities, and the equations do not.
    target, given_scores = np.random.default_rng(seed).normal(size=(2, *shape))
    found_loss, found_slope = run_keras(strategy, target, given_scores)
    loss, slope = equation(target, given_scores, strategy.temperature)
    # Rounding is relative to what is added up, of which the sum may be a small rest.
    size = weigh(target, given_scores, strategy.temperature)
    assert abs(found_loss - loss) <= TOLERANCE * size
    assert measure_error(found_slope, slope) <= TOLERANCE


shapes = st.tuples(st.integers(2, 6), st.integers(3, 12))


@some_examples
@given(seeds, shapes, temperatures)
def test_the_divergence_is_what_keras_computes(seed, shape, temperature):
    strategy = LogitsDistillation(temperature, loss=keras.losses.KLDivergence())
    check_agreement(strategy, diverge, weigh_divergence, seed, shape)


@some_examples
@given(seeds, shapes, temperatures)
def test_the_default_is_the_clipped_formula(seed, shape, temperature):
    strategy = LogitsDistillation(temperature)
    check_agreement(strategy, diverge_clipped, weigh_clipped, seed, shape)


def forget_temperature(t, s, T):
    loss, slope = diverge(t, s, T)
    return loss / T**2, slope


def turn_around(t, s, T):
    loss, slope = diverge(t, s, T)
    return loss, -slope


@pytest.mark.parametrize("corrupted", [forget_temperature, turn_around, diverge_clipped])
def test_divergence_twin(corrupted):
    strategy = LogitsDistillation(3.0, loss=keras.losses.KLDivergence())

    @settings(derandomize=True, max_examples=5, deadline=None)
    @given(seeds, shapes)
    def check(seed, shape):
        check_agreement(strategy, corrupted, weigh_divergence, seed, shape)

    with pytest.raises(AssertionError):
        check()


def test_default_twin():
    """Were the default repaired, the page would have to be rewritten: this would fail."""

    @settings(derandomize=True, max_examples=5, deadline=None)
    @given(seeds, shapes)
    def check(seed, shape):
        check_agreement(LogitsDistillation(3.0), diverge, weigh_divergence, seed, shape)

    with pytest.raises(AssertionError):
        check()


# Losses: sound ones never fall, a corrupted one does.


def softmax_loss(target, given_scores):
    p, q = (tf.nn.log_softmax(scores) for scores in (target, given_scores))
    return tf.reduce_mean(tf.reduce_sum(tf.exp(p) * (p - q), axis=-1))


def squared_loss(target, given_scores):
    return np.mean((np.asarray(target) - np.asarray(given_scores)) ** 2)


def loss_never_falls(loss, seed, shape):
    scores = 3 * np.random.default_rng(seed).normal(size=shape)
    assert training.measure_loss_fall(loss, scores, num_draws=2) <= 1e-5


@pytest.mark.parametrize("loss", [softmax_loss, squared_loss])
@some_examples
@given(seeds, shapes)
def test_sound_losses_do_not_fall(loss, seed, shape):
    loss_never_falls(loss, seed, shape)


def softmax_twice(target, given_scores):
    return keras.losses.CategoricalCrossentropy(from_logits=True)(
        tf.nn.softmax(target), 1.0 * tf.nn.softmax(given_scores)
    )


@pytest.mark.parametrize(
    "loss", [LogitsDistillation().compute_loss, softmax_twice, lambda t, s: np.mean(s - t)]
)
def test_broken_losses_fall(loss):
    scores = 3 * np.random.default_rng(0).normal(size=(20, 10))
    assert training.measure_loss_fall(loss, scores) > 0.05


def test_loss_twin():
    @settings(derandomize=True, max_examples=20, deadline=None)
    @given(seeds, shapes)
    def check(seed, shape):
        loss_never_falls(softmax_twice, seed, shape)

    with pytest.raises(AssertionError):
        check()


def test_fall_of_a_signed_error_is_its_largest_shift():
    fall = training.measure_loss_fall(
        lambda target, scores: (scores - target).mean(), np.zeros((1, 3)), num_draws=1, seed=0
    )
    noise = np.random.default_rng(0).normal(size=(3, 1, 3))
    by_noise = [-size * part.mean() for size, part in zip((0.1, 1, 10), noise, strict=True)]
    expected = max(10, *by_noise)
    assert fall == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((squared_loss, [1.0, 2.0]), "`scores` must have shape"),
        ((squared_loss, [[np.nan]]), "`scores` must be finite"),
        ((lambda target, scores: np.nan, [[1.0]]), r"`loss\(scores, given\)` must be a finite"),
    ],
)
def test_loss_fall_refuses(arguments, message):
    with pytest.raises(InputError, match=message):
        training.measure_loss_fall(*arguments)
    with pytest.raises(InputError, match="`num_draws` must be an integer of at least 1"):
        training.measure_loss_fall(squared_loss, [[1.0]], num_draws=0)


# The future: models of NumPy whose window is known.


class Window:
    """At each place the mean of the tokens from `-back` to `+ahead` places away."""

    def __init__(self, back, ahead):
        self.back, self.ahead = back, ahead

    def predict_on_batch(self, tokens):
        length = tokens.shape[1]
        return np.stack(
            [
                tokens[:, max(0, t - self.back) : min(length, t + self.ahead + 1)].mean(axis=1)
                for t in range(length)
            ],
            axis=1,
        )[..., None]


def draw_texts(seed, num_texts, length):
    texts = np.random.default_rng(seed).integers(0, 1000, (num_texts, length))
    texts[0, 0] = texts[1, 0] + 1  # they differ, whatever was drawn
    return texts


def past_alone_counts(model, seed, num_texts, length):
    texts = draw_texts(seed, num_texts, length)
    assert models.measure_future_dependence(model, texts) == 0


@given(seeds, st.integers(2, 5), st.integers(2, 12), st.integers(0, 12))
def test_no_causal_window_depends_on_the_future(seed, num_texts, length, back):
    past_alone_counts(Window(back, 0), seed, num_texts, length)


def test_future_twin():
    @settings(derandomize=True)
    @given(seeds, st.integers(2, 5), st.integers(2, 12))
    def check(seed, num_texts, length):
        past_alone_counts(Window(1, 1), seed, num_texts, length)

    with pytest.raises(AssertionError):
        check()


def test_future_dependence_is_the_largest_change():
    texts = np.array([[0, 0, 0], [6, 6, 6]])
    # The last place seen before a cut is half the token there and half the next.
    assert models.measure_future_dependence(Window(0, 1), texts) == 3


def test_a_leak_at_one_place_is_found_if_all_are_tried():
    class Leaky:
        def predict_on_batch(self, tokens):
            outputs = np.zeros(tokens.shape)
            outputs[:, 5] = tokens[:, 6]
            return outputs

    texts = draw_texts(0, 2, 12)
    assert models.measure_future_dependence(Leaky(), texts, num_places=11) > 0


@pytest.mark.parametrize("padding", ["causal", "same"])
def test_convolutions_of_keras(padding):
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((9,), dtype="int32"),
            keras.layers.Embedding(7, 4),
            keras.layers.Conv1D(5, 3, padding=padding),
        ]
    )
    texts = np.random.default_rng(0).integers(0, 7, (3, 9))
    dependence = models.measure_future_dependence(model, texts)
    assert (dependence < 1e-5) == (padding == "causal")


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        ([1, 2, 3], "`tokens` must have shape"),
        ([[1.5, 2.0], [1.0, 2.0]], "`tokens` must hold integers"),
        ([[1, 2, 3]], "`tokens` must hold two texts that differ"),
        ([[1], [2]], "`tokens` must hold two texts that differ"),
        ([[1, 2], [1, 2]], "`tokens` must hold two texts that differ"),
    ],
)
def test_future_dependence_refuses_texts(tokens, message):
    with pytest.raises(InputError, match=message):
        models.measure_future_dependence(Window(1, 0), tokens)


def test_future_dependence_refuses_a_model_without_places():
    class Whole:
        def predict_on_batch(self, tokens):
            return tokens.sum(axis=1)

    with pytest.raises(InputError, match=r"`model` must give an output of shape \(2, 2\)"):
        models.measure_future_dependence(Whole(), [[1, 2], [3, 4]])


# The released file.


@keras.saving.register_keras_serializable("test_silent_failures")
class Scale(keras.layers.Layer):
    def __init__(self, factor=1.0, **options):
        super().__init__(**options)
        self.factor = factor

    def call(self, x):
        return x * self.factor


def build_scaled(factor=1.0):
    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [
            keras.Input((3,)),
            Scale(factor),
            keras.layers.Dropout(0.5),
            keras.layers.Dense(2, activation="softmax"),
        ]
    )


@pytest.fixture
def released(tmp_path):
    model = build_scaled(5.0)
    model.save(tmp_path / "model.keras")
    return model, tmp_path / "model.keras"


X = np.random.default_rng(0).normal(size=(8, 3)).astype("float32")


def test_a_sound_file_predicts_what_was_reported(released):
    model, path = released
    assert models.measure_release_difference(path, X, predictions=model(X)) == 0
    assert models.measure_release_difference(str(path), X, predictions=model(X)) == 0


def test_the_difference_is_the_largest_one(released):
    model, path = released
    stated = np.array(model(X), dtype=np.float64)
    stated[2, 1] -= 0.25
    difference = models.measure_release_difference(path, X, predictions=stated)
    assert difference == pytest.approx(0.25)


def test_dropout_left_on_shows(released):
    model, path = released
    sampled = model(X, training=True)
    assert models.measure_release_difference(path, X, predictions=sampled) > 1e-2


def test_a_state_that_is_not_saved_shows(tmp_path):
    model = build_scaled()
    model.layers[0].factor = 5.0
    model.save(tmp_path / "model.keras")
    path = tmp_path / "model.keras"
    assert models.measure_release_difference(path, X, predictions=model(X)) > 1e-2


def test_inputs_prepared_in_another_way_show(released):
    model, path = released
    assert models.measure_release_difference(path, X, predictions=model(X / 255)) > 1e-2


def test_release_difference_refuses(released):
    model, path = released
    with pytest.raises(InputError, match=r"`predictions` must have shape \(8, 2\)"):
        models.measure_release_difference(path, X, predictions=np.argmax(model(X), axis=1))
    with pytest.raises(InputError, match="`x` must not be empty"):
        models.measure_release_difference(path, X[:0], predictions=model(X))
