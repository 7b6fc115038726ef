"""What every transformation of a model shares: copies, sizes, agreement, refusals."""

import keras
import numpy as np
import pytest
from keras import layers

from bigmodel_utils._checks import InputError
from bigmodel_utils.compression import measure_agreement, measure_size
from bigmodel_utils.compression._models import check_examples, check_model, copy_model
from bigmodel_utils.compression._result import compare_outputs, make_report
from bigmodel_utils.models import LanguageModelSettings, build_language_model

EXAMPLES = np.random.default_rng(0).normal(size=(8, 6)).astype("float32")


def build(width=5):
    model = keras.Sequential(
        [keras.Input((6,)), layers.Dense(width, activation="relu"), layers.Dense(3)]
    )
    model.compile("adam", keras.losses.MeanSquaredError())
    return model


def build_tiny_language_model():
    settings = LanguageModelSettings(
        vocabulary_size=32,
        num_layers=1,
        width=8,
        num_heads=2,
        feedforward_width=12,
        context_length=10,
    )
    return build_language_model(settings)


def test_a_copy_is_equal_and_shares_nothing():
    model = build()
    copy = copy_model(model)
    before = model.get_weights()
    assert measure_agreement(model, copy, examples=EXAMPLES).largest_difference == 0
    copy.fit(EXAMPLES, np.ones((8, 3)), verbose=0)
    assert all(np.array_equal(*pair) for pair in zip(before, model.get_weights(), strict=True))
    assert measure_agreement(model, copy, examples=EXAMPLES).largest_difference > 0


def test_a_copy_of_the_language_model_trains_like_it():
    model = build_tiny_language_model()
    copy = copy_model(model)
    assert type(copy.optimizer) is type(model.optimizer)
    assert copy.optimizer is not model.optimizer
    tokens = np.arange(20, dtype="int32").reshape(2, 10)
    losses = [each.train_on_batch(tokens, tokens) for each in (model, copy)]
    assert np.isclose(*losses, rtol=1e-6)


def test_size_in_closed_form():
    size = measure_size(build())
    assert size.num_parameters == 6 * 5 + 5 + 5 * 3 + 3
    assert size.weight_bytes == 4 * size.num_parameters
    assert size.num_flops == 2 * (6 * 5 + 5 * 3)
    assert size.num_nonzero == 6 * 5 + 5 * 3  # biases begin at nought


@pytest.mark.parametrize(("mode", "bytes_per_weight"), [("int8", 1), ("int4", 0.5)])
def test_size_of_a_quantized_model(mode, bytes_per_weight):
    model = keras.Sequential([keras.Input((6,)), layers.Dense(4, use_bias=False)])
    model.quantize(mode, filters="dense")
    size = measure_size(model)
    scales = [w for w in model.weights if "scale" in w.path]
    rest = sum(np.asarray(keras.ops.convert_to_numpy(w)).nbytes for w in model.weights)
    rest -= int(24 * bytes_per_weight)
    assert size.weight_bytes == 24 * bytes_per_weight + rest
    assert size.num_parameters >= 24 + sum(int(np.prod(w.shape)) for w in scales)
    assert size.num_flops is None


def test_agreement_by_hand_and_what_corrupts_it():
    expected = np.array([[0.0, 1.0], [1.0, 0.0]])
    received = np.array([[0.0, 0.5], [0.25, 0.5]])
    agreement = compare_outputs(expected, received)
    assert agreement.largest_difference == 0.75
    assert agreement.mean_difference == pytest.approx((0.5 + 0.75 + 0.5) / 4)
    assert agreement.same_choice == 0.5
    assert compare_outputs(expected, expected[::-1]).same_choice == 0


def test_a_report_holds_both_sides_and_renders():
    model, other = build(), build(4)
    report = make_report(
        model, other, method="another", examples=EXAMPLES, left_out={"dense": "why"}
    )
    assert report.before.num_parameters > report.after.num_parameters
    assert report.to_dict()["left_out"] == {"dense": "why"}
    for text in (str(report), report._repr_html_()):
        assert "another" in text
        assert "left out: dense" in text


def test_operations_of_a_model_of_free_length_are_those_of_the_examples():
    model = build_tiny_language_model()
    tokens = np.zeros((2, 10), "int32")
    report = make_report(model, model, method="nothing", examples=tokens)
    assert report.before.num_flops == measure_size(model, length=10).num_flops > 0
    assert measure_size(model).num_flops is None


def quantized():
    model = build()
    model.quantize("int8", filters="dense")
    return model


def adapted():
    model = build()
    model.layers[0].enable_lora(2)
    return model


class Subclassed(keras.Model):
    def call(self, x):
        return x


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (quantized, "quantized to int8"),
        (adapted, "with LoRA"),
        (Subclassed, "functional or sequential"),
        (lambda: keras.Sequential([layers.Dense(2)]), "not built"),
        (lambda: "model", "str"),
    ],
)
def test_models_that_cannot_be_changed_are_refused(make, words):
    with pytest.raises(InputError, match=words):
        check_model(make())


def error_of_my_own(y, z):
    return keras.ops.mean(keras.ops.square(y - z))


@pytest.mark.parametrize("loss", [error_of_my_own, lambda y, z: error_of_my_own(z, y)])
def test_a_model_compiled_with_what_cannot_be_made_again_is_refused(loss):
    model = build()
    model.compile("adam", loss)
    with pytest.raises(InputError, match="compiled with"):
        copy_model(model)
    assert copy_model(model, is_compiled=False).compiled is False


@pytest.mark.parametrize("examples", [np.empty((0, 3)), np.ones(3), np.array([[np.nan]])])
def test_examples_that_say_nothing_are_refused(examples):
    with pytest.raises(InputError, match="examples"):
        check_examples(examples)


def test_outputs_of_another_shape_are_refused():
    with pytest.raises(InputError, match="outputs of shape"):
        compare_outputs(np.ones((2, 3)), np.ones((2, 2)))
