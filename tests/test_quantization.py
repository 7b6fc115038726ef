"""Integer weights in Keras: what is covered, what is not, what comes back from a file."""

import keras
import numpy as np
import pytest
from keras import layers

from bigmodel_utils._checks import InputError
from bigmodel_utils.compression import (
    _quantized_files,
    count_coverage,
    load_quantized,
    quantize_weights,
    quantize_with_gptq,
    write_quantized,
)
from bigmodel_utils.models import LanguageModelSettings, build_language_model

RNG = np.random.default_rng(0)
EXAMPLES = (RNG.normal(size=(40, 12)) @ RNG.normal(size=(12, 12))).astype("float32")
IMAGES = RNG.random((6, 8, 8, 1)).astype("float32")
TOKENS = RNG.integers(0, 32, (6, 10)).astype("int32")
SETTINGS = LanguageModelSettings(
    vocabulary_size=32,
    num_layers=2,
    width=16,
    num_heads=2,
    feedforward_width=12,
    context_length=10,
)
KINDS = [
    {"mode": "int8"},
    {"mode": "int4"},
    {"mode": "int4", "block_size": None},
    {"mode": "int4", "block_size": 5, "method": "gptq"},
    {"mode": "int4", "block_size": None, "method": "gptq"},
]


@keras.saving.register_keras_serializable("test_quantization")
class Block(layers.Layer):
    """Two layers inside another, which writes nothing of them."""

    def build(self, shape):
        self.first = layers.Dense(9, activation="relu", name="first")
        self.second = layers.Dense(shape[-1], name="second")
        self.first.build(shape)
        self.second.build((*shape[:-1], 9))

    def call(self, inputs):
        return inputs + self.second(self.first(inputs))


def build_dense():
    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [
            keras.Input((12,)),
            layers.Dense(11, activation="relu", name="first"),
            layers.BatchNormalization(name="norm"),
            layers.Dense(7, activation="relu", name="middle"),
            layers.Dense(3, name="last"),
        ]
    )


def build_nested():
    keras.utils.set_random_seed(0)
    return keras.Sequential([keras.Input((12,)), Block(name="block"), layers.Dense(3, name="last")])


def build_convolutional():
    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [keras.Input((8, 8, 1)), layers.Conv2D(4, 3), layers.Flatten(), layers.Dense(3, name="fc")]
    )


def build_transformer():
    keras.utils.set_random_seed(0)
    return build_language_model(SETTINGS)


MODELS = {
    "nested": (build_nested, EXAMPLES),
    "convolutional": (build_convolutional, IMAGES),
    "transformer": (build_transformer, TOKENS),
}


@pytest.mark.parametrize(
    ("name", "kind"),
    [("nested", kind) for kind in KINDS]
    + [(name, KINDS[place]) for name in ("convolutional", "transformer") for place in (0, 3)],
)
def test_it_comes_back_from_a_file(name, kind, tmp_path):
    build, examples = MODELS[name]
    quantized = quantize_weights(build(), examples, **kind).model
    loaded = load_quantized(write_quantized(quantized, tmp_path / "model", examples=examples))
    expected, received = (model.predict(examples, verbose=0) for model in (quantized, loaded))
    assert np.array_equal(expected, received)
    assert count_coverage(loaded) == count_coverage(quantized)
    assert [file.name for file in tmp_path.iterdir()] == ["model"]


@pytest.mark.parametrize("kind", [KINDS[0], KINDS[3]], ids=str)
@pytest.mark.parametrize("name", ["transformer"])
def test_without_nested_layers_keras_can_do_that_too(name, kind, tmp_path):
    build, examples = MODELS[name]
    quantized = quantize_weights(build(), examples, **kind).model
    quantized.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    expected, received = (model.predict(examples, verbose=0) for model in (quantized, loaded))
    assert np.array_equal(expected, received)


def test_with_nested_layers_keras_cannot(tmp_path):
    quantized = quantize_weights(build_nested(), EXAMPLES).model
    quantized.save(tmp_path / "model.keras")
    with pytest.raises(ValueError, match="could not be loaded"):
        keras.models.load_model(tmp_path / "model.keras")


@pytest.mark.parametrize("kind", [KINDS[0], KINDS[3]], ids=str)
def test_the_model_passed_in_is_as_it_was(kind):
    model = build_dense()
    model.compile("adam", "mse")
    model.get_layer("last").trainable = False
    before = [array.copy() for array in model.get_weights()]
    quantized = quantize_weights(model, EXAMPLES, **kind)
    assert all(np.array_equal(*pair) for pair in zip(before, model.get_weights(), strict=True))
    assert [layer.trainable for layer in model.layers] == [True, True, True, False]
    assert model.compiled
    assert count_coverage(model).num_integers == 0
    assert quantized.model.compiled
    assert np.isfinite(quantized.model.train_on_batch(EXAMPLES, np.zeros((40, 3))))


def test_the_bytes_are_those_of_the_format():
    kernels, vectors = 12 * 11 + 11 * 7 + 7 * 3, 4 * 11 + 11 + 7 + 3
    outputs = 11 + 7 + 3
    model = build_dense()
    eight = quantize_weights(model, EXAMPLES, mode="int8").report.after
    four = quantize_weights(model, EXAMPLES, mode="int4", block_size=None).report.after
    assert eight.weight_bytes == kernels + 4 * (vectors + outputs)
    # Two outputs to a byte, the odd one alone.
    assert four.weight_bytes == 12 * 6 + 11 * 4 + 7 * 2 + 4 * (vectors + outputs)


def test_what_is_covered_is_counted():
    model = build_convolutional()
    coverage = count_coverage(quantize_weights(model, IMAGES).model)
    assert coverage.num_parameters == model.count_params()
    assert coverage.num_integers == 6 * 6 * 4 * 3
    assert coverage.modes == {"fc": "int8"}
    assert list(coverage.left_float.values()) == ["Keras has no integers for Conv2D"]
    assert "float: conv2d" in str(coverage)


@pytest.mark.parametrize("mode", ["int8", "int4"])
def test_a_transformer_is_covered_but_for_its_vectors(mode):
    model = build_transformer()
    compressed = quantize_weights(model, TOKENS, mode=mode)
    coverage = count_coverage(compressed.model)
    vectors = sum(int(np.prod(w.shape)) for w in model.weights if len(w.shape) == 1)
    assert coverage.num_parameters - coverage.num_integers == vectors
    assert coverage.num_parameters == model.count_params()
    assert not compressed.report.left_out


def test_a_filter_leaves_layers_out():
    report = quantize_weights(build_dense(), EXAMPLES, filters="first|middle").report
    assert report.left_out == {"last": "left out by `filters`, or the model is not quantized"}


def measure_error(kind):
    """Mean squared change of the outputs on the examples."""
    model = build_dense()
    quantized = quantize_weights(model, EXAMPLES, mode="int4", block_size=None, **kind).model
    expected, received = (each.predict(EXAMPLES, verbose=0) for each in (model, quantized))
    return float(np.mean((expected - received) ** 2))


def test_gptq_changes_the_outputs_less_at_equal_size():
    assert measure_error({"method": "gptq"}) < 0.7 * measure_error({})
    sizes = {
        method: quantize_weights(build_dense(), EXAMPLES, mode="int4", method=method).report.after
        for method in ("nearest", "gptq")
    }
    assert sizes["nearest"].weight_bytes == sizes["gptq"].weight_bytes


def test_a_layer_is_rounded_for_what_the_rounded_ones_put_out():
    model = build_dense()
    options = {"mode": "int4", "block_size": None, "method": "gptq"}
    quantized = quantize_weights(model, EXAMPLES, **options).model
    given = keras.Model(quantized.inputs, quantized.get_layer("norm").output)
    expected = quantize_with_gptq(
        model.get_layer("middle").kernel, given.predict(EXAMPLES, verbose=0), block_size=None
    )
    received = keras.ops.convert_to_numpy(quantized.get_layer("middle").kernel)
    assert np.mean(received == expected.integers) > 0.98
    from_floats = quantize_with_gptq(
        model.get_layer("middle").kernel,
        keras.Model(model.inputs, model.get_layer("norm").output).predict(EXAMPLES, verbose=0),
        block_size=None,
    )
    assert not np.array_equal(received, from_floats.integers)


def test_no_layer_keeps_what_watched_it():
    quantized = quantize_weights(build_dense(), EXAMPLES, mode="int4", method="gptq").model
    assert not any("quantized_call" in vars(layer) for layer in quantized.layers)


@pytest.mark.parametrize(
    ("build", "examples", "options", "name"),
    [
        (lambda: "model", EXAMPLES, {}, "model"),
        (lambda: keras.Sequential([layers.Dense(3)]), EXAMPLES, {}, "model"),
        (build_dense, EXAMPLES[:0], {}, "examples"),
        (build_dense, EXAMPLES, {"mode": "float8"}, "mode"),
        (build_dense, EXAMPLES, {"method": "awq"}, "method"),
        (build_dense, EXAMPLES, {"method": "gptq"}, "method"),
        (build_dense, EXAMPLES, {"filters": "nothing"}, "filters"),
        (build_dense, EXAMPLES, {"mode": "int4", "block_size": 0}, "block_size"),
    ],
)
def test_bad_input_is_refused_by_name(build, examples, options, name):
    with pytest.raises(InputError, match=name):
        quantize_weights(build(), examples, **options)


def test_what_is_quantized_is_not_quantized_again():
    quantized = quantize_weights(build_dense(), EXAMPLES).model
    with pytest.raises(InputError, match="quantized to int8"):
        quantize_weights(quantized, EXAMPLES)


def test_a_float_model_and_an_adapted_one_are_not_written(tmp_path):
    with pytest.raises(InputError, match="must be quantized"):
        write_quantized(build_dense(), tmp_path / "model", examples=EXAMPLES)
    adapted = quantize_weights(build_dense(), EXAMPLES).model
    adapted.get_layer("last").enable_lora(2)
    with pytest.raises(InputError, match="LoRA in 'last'"):
        write_quantized(adapted, tmp_path / "model", examples=EXAMPLES)
    assert not list(tmp_path.iterdir())


def test_a_file_that_would_load_another_model_is_not_written(tmp_path, monkeypatch):
    quantized = quantize_weights(build_dense(), EXAMPLES).model
    other = quantize_weights(build_dense(), EXAMPLES, mode="int4").model
    monkeypatch.setattr(_quantized_files, "load_quantized", lambda path: other)
    (tmp_path / "model").write_text("what was there", encoding="utf-8")
    with pytest.raises(InputError, match="same outputs"):
        write_quantized(quantized, tmp_path / "model", examples=EXAMPLES)
    assert (tmp_path / "model").read_text(encoding="utf-8") == "what was there"
    assert len(list(tmp_path.iterdir())) == 1


def test_no_folder_and_no_such_file_are_refused(tmp_path):
    quantized = quantize_weights(build_dense(), EXAMPLES).model
    with pytest.raises(InputError, match="path"):
        write_quantized(quantized, tmp_path / "none" / "model", examples=EXAMPLES)
    (tmp_path / "text").write_text("no model", encoding="utf-8")
    for name in ("absent", "text"):
        with pytest.raises(InputError, match="path"):
            load_quantized(tmp_path / name)
