"""Whole units cut: what adds nothing may go, sizes in closed form, what is refused."""

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import layers

from bigmodel_utils._checks import InputError
from bigmodel_utils.compression import list_prunable_units, prune_units
from bigmodel_utils.compression._channels import map_channels
from bigmodel_utils.compression._importance import compute_gradients
from bigmodel_utils.compression._structured import _rebuild
from bigmodel_utils.models import (
    LanguageModelSettings,
    build_image_classifier,
    build_language_model,
)

IMAGES = np.random.default_rng(0).random((6, 8, 8, 3)).astype("float32")
TOKENS = np.random.default_rng(0).integers(0, 32, (4, 10)).astype("int32")
LANGUAGE = LanguageModelSettings(
    vocabulary_size=32,
    num_layers=2,
    width=16,
    num_heads=4,
    feedforward_width=12,
    context_length=10,
    num_key_value_heads=2,
)


def build_branching(seed, *, kind, depth_multiplier=1):
    """A graph with a residual, a concatenation, a depthwise layer, BatchNorm and a flatten."""
    keras.utils.set_random_seed(seed)
    x = keras.Input((8, 8, 3))
    stem = layers.Conv2D(6, 3, padding="same", name="stem")(x)
    flow = layers.BatchNormalization(name="stem_norm")(stem)
    flow = layers.Activation("relu")(flow)
    if kind in ("residual", "all"):
        branch = layers.Conv2D(5, 3, padding="same", activation="relu", name="inner")(flow)
        branch = layers.Conv2D(6, 1, use_bias=False, name="outer")(branch)
        flow = layers.Add()([flow, branch])
    if kind in ("concatenation", "all"):
        side = layers.Conv2D(4, 3, padding="same", name="side")(flow)
        flow = layers.Concatenate()([flow, side])
    if kind in ("depthwise", "all"):
        flow = layers.DepthwiseConv2D(
            3, padding="same", depth_multiplier=depth_multiplier, name="depthwise"
        )(flow)
        flow = layers.SeparableConv2D(7, 3, name="separable")(flow)
    flow = layers.MaxPooling2D()(flow)
    flow = layers.Flatten()(flow)
    flow = layers.Dense(9, activation="relu", name="hidden")(flow)
    model = keras.Model(x, layers.Dense(4, name="head")(flow))
    generator = np.random.default_rng(seed)
    for layer in model.layers:  # statistics and shifts that are not those of the start
        if layer.weights:
            layer.set_weights(
                [w + 0.3 * generator.random(w.shape).astype("float32") for w in layer.get_weights()]
            )
    return model


def silence_units(model, share, seed):
    """Sets what leaves a random share of the units to nought; returns the labels chosen."""
    channels = map_channels(model)
    generator = np.random.default_rng(seed)
    roots = {
        root
        for name in channels.producers
        for root in channels.find_all(channels.uses[name][1]).tolist()
        if root not in channels.held
    }
    # One unit of each layer stays.
    kept = {int(channels.find_all(channels.uses[n][1])[0]) for n in channels.producers}
    chosen = {root for root in roots - kept if generator.random() < share}
    for layer in model.layers:
        if layer.name not in channels.producers:
            continue
        inputs, _ = channels.uses[layer.name]
        weights = layer.get_weights()
        for weight, cut in zip(weights, channels.cuts[layer.name], strict=True):
            for axis, labels in cut.items():
                if labels is inputs[0] or len(labels) != len(channels.uses[layer.name][1]):
                    rows = [r in chosen for r in channels.find_all(labels).tolist()]
                    index = [slice(None)] * weight.ndim
                    index[axis] = np.flatnonzero(rows)
                    weight[tuple(index)] = 0
        layer.set_weights(weights)
    return channels, chosen


def build_transformer(seed):
    keras.utils.set_random_seed(seed)
    model = build_language_model(LANGUAGE)
    model.set_weights([w * 6 if w.ndim > 1 else w for w in model.get_weights()])
    return model


graphs = st.sampled_from(["plain", "residual", "concatenation", "depthwise", "all", "language"])


@settings(max_examples=14, deadline=None)
@given(kind=graphs, seed=st.integers(0, 99), depth_multiplier=st.integers(1, 2))
def test_units_that_nothing_listens_to_may_go(kind, seed, depth_multiplier):
    if kind == "language":
        model, examples = build_transformer(seed), TOKENS
    else:
        model = build_branching(seed, kind=kind, depth_multiplier=depth_multiplier)
        examples = IMAGES
    channels, chosen = silence_units(model, 0.5, seed)
    smaller = _rebuild(model, channels, chosen)
    expected, received = (m.predict(examples, verbose=0) for m in (model, smaller))
    assert np.linalg.norm(received - expected) <= 1e-5 * np.linalg.norm(expected)
    if chosen:
        assert smaller.count_params() < model.count_params()


@pytest.mark.parametrize("kind", ["all", "language"])
def test_units_that_something_listens_to_are_missed(kind):
    if kind == "language":
        model, examples = build_transformer(3), TOKENS
    else:
        model, examples = build_branching(3, kind=kind), IMAGES
    channels, chosen = silence_units(model, 0.5, 3)
    kept = [root for root in chosen if root not in channels.held]
    others = {
        root
        for name in channels.producers
        for root in channels.find_all(channels.uses[name][1])[1:].tolist()
        if root not in channels.held and root not in kept
    }
    smaller = _rebuild(model, channels, set(list(others)[:3]))
    expected, received = (m.predict(examples, verbose=0) for m in (model, smaller))
    assert np.linalg.norm(received - expected) > 1e-4 * np.linalg.norm(expected)


def test_sizes_are_those_of_the_network_built_narrow():
    model = build_image_classifier("none")
    result = prune_units(model, np.zeros((1, 28, 28, 1)), share=0.5)
    narrow = 16 * 10 + (16 * 9 * 32 + 32) + (5 * 5 * 32 * 64 + 64) + (64 * 10 + 10)
    assert result.model.count_params() == narrow
    assert result.report.after.num_parameters == narrow
    assert result.report.after.num_flops < 0.3 * result.report.before.num_flops


def test_heads_go_as_a_whole_and_by_name():
    result = prune_units(
        build_transformer(0),
        TOKENS,
        share={"block_0_attention_qkv": 0.5, "block_1_feedforward_up": 0.75},
    )
    attention = result.model.get_layer("block_0_attention")
    assert (attention.num_heads, attention.num_key_value_heads) == (2, 1)
    assert result.model.get_layer("block_1_attention").num_heads == 4
    assert result.model.get_layer("block_1_feedforward_down").kernel.shape == (3, 16)
    assert result.model.get_layer("block_0_feedforward_down").kernel.shape == (12, 16)


def test_what_can_be_cut_and_what_cannot_is_listed():
    assert list_prunable_units(build_transformer(0)) == {
        "block_0_attention_qkv": 2,
        "block_0_feedforward_gate": 12,
        "block_1_attention_qkv": 2,
        "block_1_feedforward_gate": 12,
    }
    model = build_branching(0, kind="all")
    assert list_prunable_units(model) == {
        "stem": 6,
        "inner": 5,
        "side": 4,
        "separable": 7,
        "hidden": 9,
    }
    left_out = prune_units(model, IMAGES, share=0.3).report.left_out
    assert left_out == {"head": "it is an output of the model"}


def test_the_model_passed_in_stays_as_it_was_and_the_new_one_trains():
    model = build_image_classifier("none")
    before = [w.copy() for w in model.get_weights()]
    smaller = prune_units(model, np.zeros((1, 28, 28, 1)), share=0.5).model
    y = np.eye(10, dtype="float32")[[1, 2]]
    smaller.fit(np.ones((2, 28, 28, 1), "float32"), y, verbose=0)
    assert all(np.array_equal(*pair) for pair in zip(before, model.get_weights(), strict=True))
    assert model.layers[1].filters == 32


@pytest.mark.parametrize("kind", ["all", "language"])
def test_it_is_saved_and_loaded(kind, tmp_path):
    if kind == "language":
        model, examples = build_transformer(1), TOKENS
    else:
        model, examples = build_branching(1, kind=kind), IMAGES
    smaller = prune_units(model, examples, share=0.5).model
    smaller.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert np.array_equal(*(m.predict(examples, verbose=0) for m in (smaller, loaded)))


def test_a_layer_used_twice_is_cut_once():
    x = keras.Input((4,))
    shared = layers.Dense(6, activation="relu", name="shared")
    wide = layers.Dense(6, name="wide")(x)
    narrow = layers.Dense(4, name="narrow")
    flow = layers.Add()([shared(x), shared(narrow(wide))])
    model = keras.Model(x, layers.Dense(2)(flow))
    # `shared` reads the input of the model, so what it reads elsewhere is held as well.
    assert list_prunable_units(model) == {"shared": 6, "wide": 6}
    assert prune_units(model, np.ones((2, 4)), share=0.5).model.get_layer("shared").units == 3


def rank_two(ranking, **options):
    """A network of two hidden units, of which one is to be cut; returns the weights kept."""
    model = keras.Sequential(
        [
            keras.Input((2,)),
            layers.Dense(2, use_bias=False, name="hidden"),
            layers.BatchNormalization(name="norm"),
            layers.Dense(1, use_bias=False, name="head"),
        ]
    )
    model.compile("sgd", "mse")
    model.get_layer("hidden").set_weights([np.array([[3.0, 0.0], [0.0, 1.0]])])
    norm = model.get_layer("norm").get_weights()
    model.get_layer("norm").set_weights([np.array([0.1, 1.0]), *norm[1:]])
    model.get_layer("head").set_weights([np.array([[2.0], [0.3]])])
    examples = np.array([[1.0, 1.0], [1.0, -1.0]], "float32")
    smaller = prune_units(model, examples, share=0.5, ranking=ranking, **options).model
    return smaller.get_layer("hidden").get_weights()[0].ravel().tolist()


def test_each_ranking_keeps_what_it_says():
    assert rank_two("norm") == [3.0, 0.0]
    assert rank_two("batch_norm") == [0.0, 1.0]
    # Outputs are 0.6 ± 0.3 / sqrt(1.001). With targets that only the second unit's share misses,
    # the loss does not hang on the first.
    assert rank_two("taylor", targets=np.array([[0.6], [0.6]])) == [0.0, 1.0]
    assert rank_two("taylor", targets=np.array([[5.3], [4.7]])) == [3.0, 0.0]


def test_gradients_are_those_of_finite_differences():
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((3,)), layers.Dense(2, activation="tanh")])
    model.compile("sgd", "mse")
    x, y = np.random.default_rng(1).normal(size=(2, 5, 3)).astype("float32")
    y = y[:, :2]
    kernel, bias = compute_gradients(model, (x, y), layers=[model.layers[-1]])
    weights = model.layers[-1].get_weights()
    step = 1e-2
    for index in np.ndindex(weights[0].shape):
        losses = []
        for sign in (1, -1):
            moved = [w.copy() for w in weights]
            moved[0][index] += sign * step
            model.layers[-1].set_weights(moved)
            losses.append(float(np.mean((model.predict(x, verbose=0) - y) ** 2)))
        assert kernel[index] == pytest.approx((losses[0] - losses[1]) / (2 * step), abs=2e-3)
    assert bias.shape == (2,)


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"share": 1.0}, "below 1"),
        ({"share": -0.1}, "share"),
        ({"share": float("nan")}, "share"),
        ({"share": {"head": 0.5}}, "output of the model"),
        ({"share": {"nowhere": 0.5}}, "no such layer"),
        ({"share": 0.5, "ranking": "luck"}, "ranking"),
        ({"share": 0.5, "ranking": "taylor"}, "targets"),
        ({"share": 0.5, "ranking": "batch_norm"}, "BatchNormalization"),
    ],
)
def test_bad_input(options, word):
    model = build_branching(0, kind="residual")
    with pytest.raises(InputError, match=word):
        prune_units(model, IMAGES, **options)


def test_a_network_with_nothing_to_cut_is_refused_by_name():
    x = keras.Input((5, 3))
    model = keras.Model(x, layers.Dense(2)(layers.LSTM(4, name="memory")(x)))
    with pytest.raises(InputError, match="output of the model"):
        prune_units(model, np.ones((1, 5, 3)), share=0.5)
    assert "memory" in str(map_channels(model).held)
