"""Layers split in two: Eckart and Young's error in closed form, the budget, what is refused."""

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import layers

from bigmodel_utils._checks import InputError
from bigmodel_utils.compression import _low_rank, factorize_layers, find_directions
from bigmodel_utils.models import LanguageModelSettings, build_language_model

KINDS = ("dense", "conv1d", "causal", "conv2d", "strided", "one by one")


def build_layer(kind, *, num_outputs, num_inputs=6):
    """A model of one layer, and the patches that its kernel multiplies, found by brute force."""
    shape = {"dense": (num_inputs,), "conv1d": (7, 6), "causal": (7, 6)}.get(kind, (6, 6, 6))
    layer = {
        "dense": lambda: layers.Dense(num_outputs, name="layer"),
        "conv1d": lambda: layers.Conv1D(num_outputs, 3, padding="same", name="layer"),
        "causal": lambda: layers.Conv1D(
            num_outputs, 3, padding="causal", dilation_rate=2, name="layer"
        ),
        "conv2d": lambda: layers.Conv2D(num_outputs, 3, padding="same", name="layer"),
        "strided": lambda: layers.Conv2D(num_outputs, (3, 2), strides=2, name="layer"),
        "one by one": lambda: layers.Conv2D(num_outputs, 1, name="layer"),
    }[kind]()
    model = keras.Sequential([keras.Input(shape), layer])
    generator = np.random.default_rng(num_outputs)
    model.set_weights([generator.normal(size=w.shape) for w in model.get_weights()])
    return model, shape


def measure_products(model, examples):
    """Outputs before the bias."""
    bias = model.get_weights()[-1]
    outputs = np.asarray(model.predict(examples, verbose=0), np.float64) - bias
    return outputs.reshape(-1, len(bias))


def check_closed_form(kind, num_outputs, rank, seed):
    keras.utils.set_random_seed(seed)
    model, shape = build_layer(kind, num_outputs=num_outputs)
    examples = np.random.default_rng(seed).normal(size=(9, *shape)).astype("float32")
    result = factorize_layers(model, examples, rank=rank)
    before, after = (measure_products(m, examples) for m in (model, result.model))
    singular = np.linalg.svd(before, compute_uv=False)
    expected = np.sqrt((singular[rank:] ** 2).sum())
    if result.report.left_out:
        rank, expected = None, 0.0
    difference = np.linalg.norm(after - before)
    return abs(difference - expected) <= 2e-5 * np.linalg.norm(before)


@settings(max_examples=10, deadline=None)
@given(
    kind=st.sampled_from(KINDS),
    num_outputs=st.integers(4, 12),
    rank=st.integers(1, 4),
    seed=st.integers(0, 99),
)
def test_the_error_is_that_of_eckart_and_young(kind, num_outputs, rank, seed):
    assert check_closed_form(kind, num_outputs, rank, seed)


def test_twin_other_directions_are_found_out(monkeypatch):
    def find_last(gram):
        vectors, errors = find_directions(gram)
        return vectors[:, ::-1], errors

    monkeypatch.setattr(_low_rank, "find_directions", find_last)
    assert not check_closed_form("conv2d", 12, 2, 0)


@pytest.mark.parametrize("budget", [0.05, 0.2, 0.5])
def test_the_budget_is_kept_by_the_smallest_rank(budget):
    model, _ = build_layer("dense", num_outputs=40, num_inputs=40)
    generator = np.random.default_rng(0)
    spread = 0.7 ** np.arange(40)  # inputs that lie near a few directions
    examples = (generator.normal(size=(300, 40)) * spread).astype("float32")
    result = factorize_layers(model, examples, error_budget=budget)
    before, after = (measure_products(m, examples) for m in (model, result.model))
    singular = np.linalg.svd(before, compute_uv=False)
    errors = [np.linalg.norm(singular[r:]) / np.linalg.norm(singular) for r in range(41)]
    rank = result.model.get_layer("layer_low_rank").units
    assert errors[rank] <= budget < errors[rank - 1]
    received = np.linalg.norm(after - before) / np.linalg.norm(before)
    assert received == pytest.approx(errors[rank], rel=1e-4)
    # The kernel alone does not see where inputs lie: its own best rank moves outputs more.
    kernel = model.get_weights()[0].astype(np.float64)
    u, s, v = np.linalg.svd(kernel)
    blind = examples @ ((u[:, :rank] * s[:rank]) @ v[:rank] - kernel)
    assert np.linalg.norm(blind) > 1.5 * np.linalg.norm(after - before)


def test_a_kernel_of_low_rank_loses_nothing():
    model, _ = build_layer("dense", num_outputs=30, num_inputs=20)
    generator = np.random.default_rng(1)
    kernel = generator.normal(size=(20, 3)) @ generator.normal(size=(3, 30))
    model.set_weights([kernel, model.get_weights()[1]])
    examples = generator.normal(size=(50, 20)).astype("float32")
    result = factorize_layers(model, examples, error_budget=1e-4)
    assert result.model.get_layer("layer_low_rank").units == 3
    assert result.report.agreement.largest_difference <= 1e-4
    assert result.report.after.num_parameters == 3 * (20 + 30) + 30
    assert result.report.after.num_flops < result.report.before.num_flops


def build_network():
    keras.utils.set_random_seed(0)
    x = keras.Input((8, 8, 3))
    flow = layers.Conv2D(32, 3, activation="relu", name="first")(x)
    flow = layers.SeparableConv2D(8, 3, name="separable")(flow)
    flow = layers.Flatten()(flow)
    flow = layers.Dense(64, activation="relu", name="hidden")(flow)
    model = keras.Model(x, layers.Dense(4, activation="softmax", name="head")(flow))
    model.compile("adam", "sparse_categorical_crossentropy")
    return model


IMAGES = np.random.default_rng(0).random((6, 8, 8, 3)).astype("float32")


def test_a_network_is_split_saved_and_trained(tmp_path):
    model = build_network()
    before = model.get_weights()
    result = factorize_layers(model, IMAGES, rank=4)
    assert set(result.report.left_out) == {"separable", "head"}
    assert "saves nothing" in result.report.left_out["head"]
    assert all((a == b).all() for a, b in zip(before, model.get_weights(), strict=True))
    result.model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    expected = result.model.predict(IMAGES, verbose=0)
    assert (again.predict(IMAGES, verbose=0) == expected).all()
    again.fit(IMAGES, np.zeros(6, int), verbose=0)
    assert again.count_params() < model.count_params()


def test_a_language_model_is_split():
    keras.utils.set_random_seed(0)
    language = LanguageModelSettings(
        vocabulary_size=32,
        num_layers=1,
        width=16,
        num_heads=4,
        feedforward_width=24,
        context_length=10,
    )
    model = build_language_model(language)
    tokens = np.random.default_rng(0).integers(0, 32, (4, 10)).astype("int32")
    result = factorize_layers(model, tokens, rank=3, filters="feedforward")
    assert result.model.get_layer("block_0_feedforward_down_low_rank").units == 3
    assert result.report.after.num_parameters < result.report.before.num_parameters


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("error_budget", {}),
        ("error_budget", {"error_budget": 0.1, "rank": 2}),
        ("error_budget", {"error_budget": 1.0}),
        ("error_budget", {"error_budget": -0.1}),
        ("rank", {"rank": 0}),
        ("rank", {"rank": 5}),  # the head has four outputs
        ("filters", {"rank": 1, "filters": "nothing"}),
    ],
)
def test_bad_input_is_refused(name, options):
    with pytest.raises(InputError) as caught:
        factorize_layers(build_network(), IMAGES, **options)
    assert caught.value.name == name


def test_no_examples_are_refused():
    with pytest.raises(InputError, match="examples"):
        factorize_layers(build_network(), IMAGES[:0], rank=1)


def test_outputs_of_nought_need_one_direction():
    vectors, errors = find_directions(np.zeros((3, 3)))
    assert vectors.shape == (3, 3)
    assert not errors.any()
