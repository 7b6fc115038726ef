"""The classifiers: the article's shapes, padding that is not seen, batch dependence measured."""

import keras
import numpy as np
import pytest

from bigmodel_utils import models
from bigmodel_utils._checks import InputError

IMAGES = np.random.default_rng(0).random((6, 28, 28, 1), "float32")


def test_the_printed_network_raises_what_the_page_prints():
    with pytest.raises(ValueError, match=r"list of inputs, namely \[query, value\]"):
        models.build_printed_classifier()


@pytest.mark.parametrize("attention", models.ATTENTION_REPAIRS)
def test_repairs_have_the_article_s_parameters_and_give_probabilities(attention):
    model = models.build_image_classifier(attention)
    assert model.count_params() == 320 + 18_496 + 204_928 + 1_290
    probabilities = np.asarray(model.predict_on_batch(IMAGES))
    assert probabilities.shape == (6, 10)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-5)


def test_attention_repairs_compute_different_functions():
    outputs = []
    weights = models.build_image_classifier("none").get_weights()
    for attention in models.ATTENTION_REPAIRS:
        model = models.build_image_classifier(attention)
        model.set_weights(weights)
        outputs.append(np.asarray(model.predict_on_batch(IMAGES)))
    assert np.abs(outputs[0] - outputs[1]).max() > 1e-3
    assert np.abs(outputs[0] - outputs[2]).max() > 1e-3
    assert np.abs(outputs[1] - outputs[2]).max() > 1e-3


@pytest.mark.parametrize("attention", models.ATTENTION_REPAIRS)
def test_classifier_survives_saving(attention, tmp_path):
    model = models.build_image_classifier(attention)
    model.save(tmp_path / "model.keras")
    # Untrained: the optimizer has no state yet, of which Keras would warn.
    again = keras.models.load_model(tmp_path / "model.keras", compile=False)
    np.testing.assert_array_equal(model.predict_on_batch(IMAGES), again.predict_on_batch(IMAGES))


def test_number_of_classes_is_honoured():
    assert models.build_image_classifier("none", num_classes=3).output_shape == (None, 3)


# The mixing model attends over the batch, on JAX seen to be one example when it stands alone.
@pytest.mark.filterwarnings("ignore:.*You are using a softmax over axis:UserWarning")
def test_batch_dependence_tells_a_sound_model_from_a_mixing_one():
    sound = models.build_image_classifier("none")
    hidden = sound.get_layer("hidden").output
    mixing = keras.Model(
        sound.input, sound.layers[-1](keras.layers.Attention()([hidden * 10, hidden * 10]))
    )
    assert models.measure_batch_dependence(sound, IMAGES) < 1e-5
    assert models.measure_batch_dependence(mixing, IMAGES) > 1e-3


def check_padding_is_unseen(model):
    text = np.array([[5, 3, 8, 2]], np.int32)
    padded = [[5, 3, 8, 2, 0, 0, 0], [0, 0, 0, 5, 3, 8, 2], [5, 0, 3, 0, 0, 8, 2]]
    alone = np.asarray(model(text))
    together = np.asarray(model(np.array(padded, np.int32)))
    np.testing.assert_allclose(together, np.repeat(alone, 3, axis=0), atol=1e-6)


def build_sharp_lstm():
    """Weights large enough for one more token to move the prediction."""
    model = models.build_lstm_classifier(10, num_classes=3, width=8, embedding_width=4)
    generator = np.random.default_rng(0)
    model.set_weights([generator.normal(size=weight.shape) for weight in model.get_weights()])
    return model


def test_padding_does_not_change_a_prediction():
    check_padding_is_unseen(build_sharp_lstm())


def test_padding_changes_it_where_the_mask_is_left_out():
    model = build_sharp_lstm()
    embedding = keras.layers.Embedding(10, 4)
    blind = keras.Sequential([embedding, model.get_layer("lstm"), model.get_layer("probabilities")])
    embedding.build()
    embedding.set_weights(model.get_layer("embedding").get_weights())
    with pytest.raises(AssertionError):
        check_padding_is_unseen(blind)


def test_lstm_classifier_computes_the_equations():
    """Gates in Keras' order: input, forget, candidate, output."""
    model = build_sharp_lstm()
    embeddings, kernel, recurrent, bias, dense, dense_bias = model.get_weights()
    state, cell = np.zeros(8), np.zeros(8)
    for token in [5, 3, 8, 2]:
        parts = np.split(embeddings[token] @ kernel + state @ recurrent + bias, 4)
        enter, forget, _, leave = (1 / (1 + np.exp(-part)) for part in parts)
        cell = forget * cell + enter * np.tanh(parts[2])
        state = leave * np.tanh(cell)
    weights = np.exp(state @ dense + dense_bias)
    found = np.asarray(model(np.array([[5, 3, 8, 2]], np.int32)))[0]
    np.testing.assert_allclose(found, weights / weights.sum(), atol=1e-6)


def test_lstm_classifier_survives_saving(tmp_path):
    model, tokens = build_sharp_lstm(), np.array([[5, 3, 8, 2, 0]], np.int32)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras", compile=False)
    np.testing.assert_array_equal(np.asarray(model(tokens)), np.asarray(again(tokens)))


@pytest.mark.slow
def test_lstm_classifier_learns_what_stands_first():
    model = build_sharp_lstm()
    tokens = np.random.default_rng(0).integers(0, 10, (16, 6)).astype(np.int32)
    tokens[:, 0] = np.arange(16) % 3 + 1
    first = model.evaluate(tokens, tokens[:, 0] - 1, verbose=0)[0]
    model.optimizer.learning_rate = 0.03
    for _ in range(20):
        model.train_on_batch(tokens, tokens[:, 0] - 1)
    assert model.evaluate(tokens, tokens[:, 0] - 1, verbose=0)[0] < first / 2


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda: models.build_image_classifier("sideways"), "attention"),
        (lambda: models.build_image_classifier(num_classes=1), "num_classes"),
        (lambda: models.build_lstm_classifier(1, num_classes=2), "vocabulary_size"),
        (lambda: models.build_lstm_classifier(9, num_classes=1), "num_classes"),
        (lambda: models.build_lstm_classifier(9, num_classes=2, width=0), "width"),
        (
            lambda: models.build_lstm_classifier(9, num_classes=2, embedding_width=0),
            "embedding_width",
        ),
        (
            lambda: models.measure_batch_dependence(
                models.build_image_classifier("none"), IMAGES[:1]
            ),
            "x",
        ),
    ],
)
def test_bad_input_gets_one_clear_error(call, name):
    with pytest.raises(InputError, match=rf"`{name}` .* Received: .* Fix: "):
        call()
