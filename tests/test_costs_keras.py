"""Costs of Keras models, on every backend: against Keras, its optimizers, and an architecture."""

import dataclasses
import math

import keras
import numpy as np
import pytest
from keras import layers

from bigmodel_utils import costs, models
from bigmodel_utils._checks import InputError

SETTINGS = models.LanguageModelSettings(
    vocabulary_size=61,
    num_layers=2,
    width=32,
    num_heads=4,
    feedforward_width=40,
    context_length=12,
)
LANGUAGE_MODELS = {
    "plain": SETTINGS,
    "shared heads": dataclasses.replace(SETTINGS, num_key_value_heads=2),
    "gelu, layer": dataclasses.replace(SETTINGS, activation="gelu", normalization="layer"),
    "dropout": dataclasses.replace(SETTINGS, dropout=0.1, num_layers=3),
}
every_settings = pytest.mark.parametrize("settings", LANGUAGE_MODELS.values(), ids=LANGUAGE_MODELS)
CLASSIFIERS = {
    "article": lambda: models.build_image_classifier("none"),
    "attention": lambda: models.build_image_classifier("spatial"),
    "features": lambda: models.build_image_classifier("features"),
    "sequential": models.build_small_image_classifier,
    "lstm": lambda: models.build_lstm_classifier(100, num_classes=3),
}


@every_settings
def test_language_model_has_the_parameters_of_its_architecture(settings):
    model = models.build_language_model(settings)
    count = costs.count_parameters(costs.Architecture.from_settings(settings))
    assert costs.count_parameters(model).total == count.total == model.count_params()


@pytest.mark.parametrize("build", CLASSIFIERS.values(), ids=CLASSIFIERS)
def test_classifiers_have_the_parameters_that_keras_says(build):
    model = build()
    count = costs.count_parameters(model)
    assert count.total == model.count_params() == sum(count.parts.values())
    assert count.not_counted == ()


def test_shared_layers_and_nested_models_count_once():
    inner = keras.Sequential([keras.Input((4,)), layers.Dense(4)], name="inner")
    x = keras.Input((4,))
    model = keras.Model(x, inner(inner(x)))
    count = costs.count_parameters(model)
    assert count.total == model.count_params() == 20
    assert list(count.parts) == [f"inner/{inner.layers[0].name}"]


def test_layer_without_weights_yet_is_named():
    model = keras.Sequential([layers.Dense(4, name="late")])
    assert costs.count_parameters(model).not_counted == ("late",)


@every_settings
def test_language_model_has_the_operations_of_its_architecture(settings):
    model = models.build_language_model(settings)
    walked = costs.estimate_flops(model, batch_size=3, length=12)
    shape = costs.Architecture.from_settings(settings)
    flops = costs.estimate_forward_flops(shape, sequence_length=12, batch_size=3)
    assert walked.total == flops.matrix_products
    assert walked.not_counted == ()


def test_cached_model_attends_to_all_its_places():
    model = models.build_cached_model(models.build_language_model(SETTINGS))
    walked = costs.estimate_flops(model, length=1)
    shape = costs.Architecture.from_settings(SETTINGS)
    matrices = costs.estimate_forward_flops(shape, sequence_length=1)
    assert walked.total == sum(matrices.parts.values()) + 2 * 4 * 12 * 32


def test_operations_by_hand():
    walked = costs.estimate_flops(CLASSIFIERS["attention"](), batch_size=2)
    assert [flops for flops in walked.layers.values() if flops] == [
        2 * 2 * 26 * 26 * 32 * 9,
        2 * 2 * 11 * 11 * 64 * 9 * 32,
        2 * 2 * 2 * 25 * 25 * 64,
        2 * 2 * 1600 * 128,
        2 * 2 * 128 * 10,
    ]
    recurrent = costs.estimate_flops(CLASSIFIERS["lstm"](), length=20)
    assert recurrent.total == 2 * 20 * 4 * 64 * (32 + 64) + 2 * 64 * 3


LAYERS = {
    "strided": (layers.Conv2D(6, 3, strides=2, padding="same", groups=2), 2 * 16 * 6 * 9 * 2),
    "depthwise": (layers.DepthwiseConv2D(3), 2 * 36 * 4 * 9),
    "separable": (layers.SeparableConv2D(6, 3), 2 * 36 * 4 * 9 + 2 * 36 * 4 * 6),
    "transposed": (layers.Conv2DTranspose(6, 3), 2 * 64 * 4 * 6 * 9),
    "einsum": (layers.EinsumDense("abcd,de->abce", (None, 8, 5)), 2 * 64 * 4 * 5),
    "pooling": (layers.AveragePooling2D(2), 0),
}


@pytest.mark.parametrize(("layer", "flops"), LAYERS.values(), ids=LAYERS)
def test_layers_by_hand(layer, flops):
    images = keras.Input((8, 8, 4))
    assert costs.estimate_flops(keras.Model(images, layer(images))).total == flops


SEQUENCE_LAYERS = {
    "gru": (layers.GRU(6), 2 * 5 * 3 * 6 * (8 + 6)),
    "both directions": (
        layers.Bidirectional(layers.LSTM(6)),
        2 * 2 * 5 * 4 * 6 * (8 + 6),
    ),
    "heads": (
        lambda x: layers.MultiHeadAttention(2, 3)(x, x),
        2 * 5 * 8 * 6 * 4 + 2 * 5 * 5 * 2 * (3 + 3),
    ),
    "shared heads": (
        lambda x: layers.GroupQueryAttention(3, 4, 2)(x, x),
        2 * 5 * 8 * (2 * 4 * 3 + 2 * 2 * 3) + 2 * 5 * 5 * 4 * (3 + 3),
    ),
    "shared": (lambda x: SHARED(SHARED(x)), 2 * 2 * 5 * 8 * 8),
}
SHARED = layers.Dense(8)


@pytest.mark.parametrize(("call", "flops"), SEQUENCE_LAYERS.values(), ids=SEQUENCE_LAYERS)
def test_sequence_layers_by_hand(call, flops):
    tokens = keras.Input((None, 8))
    walked = costs.estimate_flops(keras.Model(tokens, call(tokens)), length=5)
    assert walked.total == flops
    assert walked.not_counted == ()


class Own(layers.Layer):
    """A layer of a user's, with a part of Keras' and a product of its own."""

    def __init__(self):
        super().__init__(name="own")
        self.dense = layers.Dense(4, name="inside")

    def build(self, shape):
        self.dense.build(shape)

    def call(self, x):
        return keras.ops.matmul(self.dense(x), keras.ops.ones((4, 4)))


class OwnModel(keras.Model):
    """A model that multiplies by itself."""

    def __init__(self):
        super().__init__(name="own_model")
        self.dense = layers.Dense(4)

    def call(self, x):
        return keras.ops.matmul(self.dense(x), keras.ops.ones((4, 4)))


def test_what_cannot_be_counted_is_named():
    x = keras.Input((8,))
    y = keras.ops.matmul(Own()(x), np.ones((4, 2), "float32"))
    z = layers.TimeDistributed(layers.Dense(3), name="timed")(keras.ops.expand_dims(y, 1))
    walked = costs.estimate_flops(keras.Model(x, z))
    assert walked.layers["own/inside"] == 2 * 8 * 4
    assert {"own", "timed"} < set(walked.not_counted)
    assert any(name.startswith("matmul") for name in walked.not_counted)
    assert "timed" in str(walked)


def test_subclassed_model_is_named_where_it_is_used():
    x = keras.Input((8,))
    walked = costs.estimate_flops(keras.Model(x, OwnModel()(x)))
    assert walked.total == 2 * 8 * 4
    assert "own_model" in walked.not_counted


def test_subclass_of_a_known_layer_is_not_taken_for_it():
    class Dense(layers.Dense):
        def call(self, x):
            return super().call(super().call(x))

    x = keras.Input((8,))
    walked = costs.estimate_flops(keras.Model(x, Dense(8, name="twice")(x)))
    assert walked.not_counted == ("twice",)


def test_walking_leaves_the_model_as_it_was():
    model = models.build_language_model(SETTINGS)
    tokens = np.ones((1, 12), "int32")
    before = np.asarray(model(tokens))
    costs.estimate_flops(model, length=12)
    assert all("call" not in vars(layer) for layer in model.layers)
    assert model.get_layer("block_0_attention").output.shape == (None, None, 32)
    np.testing.assert_array_equal(np.asarray(model(tokens)), before)


def test_a_failure_leaves_the_model_as_it_was():
    model = models.build_language_model(SETTINGS)
    with pytest.raises(Exception, match="context_length"):
        costs.estimate_flops(model, length=13)
    assert all("call" not in vars(layer) for layer in model.layers)


@pytest.mark.parametrize("name", ["sgd", "momentum", "adagrad", "rmsprop", "lion", "adam", "adamw"])
def test_states_are_those_that_keras_makes(name):
    optimizer = {
        "momentum": lambda: keras.optimizers.SGD(momentum=0.9),
    }.get(name, lambda: keras.optimizers.get(name))()
    model = models.build_language_model(SETTINGS)
    optimizer.build(model.trainable_variables)
    scalars = ("iteration", "learning_rate")  # one number each, whatever the model
    kept = sum(
        math.prod(variable.shape) * 4
        for variable in optimizer.variables
        if variable.path.split("/")[-1] not in scalars
    )
    plan = costs.TrainingPlan(batch_size=2, sequence_length=12, optimizer=name)
    memory = costs.estimate_memory(costs.Architecture.from_settings(SETTINGS), plan)
    # Keras' SGD keeps a mean per parameter only with momentum.
    assert memory.optimizer_states == kept
    assert memory.weights == memory.gradients == 4 * model.count_params()


def test_cache_is_the_one_that_is_made():
    model = models.build_cached_model(models.build_language_model(SETTINGS))
    made = models.make_empty_cache(model, batch_size=3)
    shape = costs.Architecture.from_settings(SETTINGS)
    counted = costs.count_kv_cache_bytes(shape, sequence_length=12, batch_size=3, dtype="float32")
    assert counted == sum(4 * math.prod(array.shape) for array in made)


def test_bad_models():
    with pytest.raises(InputError, match="known shape"):
        costs.estimate_flops(OwnModel())
    with pytest.raises(InputError, match="free length"):
        costs.estimate_flops(models.build_language_model(SETTINGS))
    with pytest.raises(InputError, match="batch_size"):
        costs.estimate_flops(CLASSIFIERS["sequential"](), batch_size=0)


def count_graph_flops(model, *inputs):
    """Operations of the products and convolutions in TensorFlow's graph of a model."""
    import tensorflow as tf

    graph = tf.function(model).get_concrete_function(*inputs).graph
    flops = 0
    for operation in graph.get_operations():
        shapes = [tuple(tensor.shape) for tensor in operation.inputs]
        if operation.type in ("MatMul", "BatchMatMulV2"):
            output = tuple(operation.outputs[0].shape)
            is_turned = operation.get_attr("transpose_a" if operation.type == "MatMul" else "adj_x")
            flops += 2 * math.prod(output) * shapes[0][-2 if is_turned else -1]
        elif operation.type == "Einsum":
            letters = operation.get_attr("equation").decode().split("->")[0].split(",")
            sizes = {
                letter: size
                for part, shape in zip(letters, shapes, strict=True)
                for letter, size in zip(part, shape, strict=True)
            }
            flops += 2 * math.prod(sizes.values())
        elif operation.type == "Conv2D":
            output = tuple(operation.outputs[0].shape)
            flops += 2 * math.prod(output) * math.prod(shapes[1][:3])
    return flops


on_tensorflow = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="reads TensorFlow's graph"
)


@on_tensorflow
@every_settings
def test_operations_are_those_of_the_graph(settings):
    import tensorflow as tf

    model = models.build_language_model(settings)
    walked = costs.estimate_flops(model, batch_size=2, length=12)
    counted = count_graph_flops(model, tf.TensorSpec((2, 12), "int32"))
    assert walked.total == counted
    assert walked.total - walked.layers["block_0_attention"] != counted  # twin


@on_tensorflow
@pytest.mark.parametrize("name", ["article", "attention", "features", "sequential"])
def test_operations_of_classifiers_are_those_of_the_graph(name):
    import tensorflow as tf

    model = CLASSIFIERS[name]()
    counted = count_graph_flops(model, tf.TensorSpec((2, 28, 28, 1), "float32"))
    assert costs.estimate_flops(model, batch_size=2).total == counted
