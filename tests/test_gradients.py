"""Gradients against closed forms on both backends; what they are not; tokens and positions."""

import gc
import weakref

import keras
import numpy as np
import pytest

from bigmodel_utils._checks import InputError
from bigmodel_utils.explanation import (
    CutModel,
    build_cut_model,
    explain_with_expected_gradients,
    explain_with_integrated_gradients,
    explain_with_kernel_shap,
)

NUMBERS = np.random.default_rng(0)
ROWS, BACKGROUND = NUMBERS.normal(size=(3, 4)), NUMBERS.normal(size=(40, 4))


def build_network(num_outputs=3):
    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [
            keras.Input((4,)),
            keras.layers.Dense(12, "tanh"),
            keras.layers.Dropout(0.5),
            keras.layers.Dense(num_outputs),
        ]
    )


def build_reader(*, rank=3, embedding=None):
    """A small model of tokens: vectors, a causal convolution, logits."""
    keras.utils.set_random_seed(0)
    ids = keras.Input((6,), dtype="int32")
    table = embedding or keras.layers.Embedding(20, 5, name="table")
    flow = keras.layers.Conv1D(8, 3, padding="causal", activation="tanh")(table(ids))
    if rank == 2:
        flow = keras.layers.GlobalAveragePooling1D()(flow)
    return keras.Model(ids, keras.layers.Dense(20)(flow))


def take_maximum(x):
    return keras.ops.max(x[:, :2], axis=1, keepdims=True)


# Closed forms


def test_linear_and_product():
    weights = NUMBERS.normal(size=(4, 1)).astype("float32")
    found = explain_with_integrated_gradients(
        lambda x: keras.ops.matmul(x, weights) + x[:, :1] * x[:, 1:2], ROWS, num_steps=2
    )
    known = ROWS * weights[:, 0]
    known[:, :2] += ROWS[:, :1] * ROWS[:, 1:2] / 2
    assert found.values[..., 0] == pytest.approx(known, abs=1e-6)
    assert found.diagnostics["completeness_error"].max() < 1e-6


def test_polynomials_up_to_the_degree_of_the_rule():
    """Of x³y the shares along a line from nought are 3/4 and 1/4."""
    rows = np.array([[1.5, 2.0]])
    cubic = lambda x: x[:, :1] ** 3 * x[:, 1:2]  # noqa: E731
    found = explain_with_integrated_gradients(cubic, rows, num_steps=2).values[0, :, 0]
    assert found == pytest.approx([0.75 * 6.75, 0.25 * 6.75], abs=1e-5)
    coarse = explain_with_integrated_gradients(cubic, rows, num_steps=1)  # the twin
    assert coarse.diagnostics["completeness_error"].max() > 1


def test_linear_on_average():
    weights = NUMBERS.normal(size=(4, 2)).astype("float32")
    found = explain_with_expected_gradients(
        lambda x: keras.ops.matmul(x, weights), ROWS, background=BACKGROUND, num_samples=4000
    )
    known = (ROWS - BACKGROUND.mean(axis=0))[..., None] * weights
    assert (np.abs(found.values - known) < 4.5 * found.standard_errors).all()
    assert (np.abs(found.values - known) > 0.2 * found.standard_errors).any()


def test_standard_errors_cover_the_truth():
    network = build_network()
    truth = np.mean(
        [explain_with_integrated_gradients(network, ROWS, baseline=b).values for b in BACKGROUND],
        axis=0,
    )
    found = [
        explain_with_expected_gradients(
            network, ROWS, background=BACKGROUND, num_samples=150, seed=seed
        )
        for seed in range(25)
    ]
    ratios = np.array([(each.values - truth) / each.standard_errors for each in found])
    assert 0.88 < np.mean(np.abs(ratios) < 1.96) < 0.99
    assert np.mean(np.abs(ratios) < 0.98) < 0.8  # the twin: half as wide


def test_batches_are_one_sum():
    """More samples than a batch holds: mean and errors are those of all together."""
    line = lambda x: x[:, :1] ** 2  # noqa: E731
    found = explain_with_expected_gradients(
        line, ROWS[:1], background=BACKGROUND, num_samples=700, seed=4
    )
    numbers = np.random.default_rng(4)
    known = BACKGROUND[numbers.integers(40, size=700), 0]
    step = ROWS[0, 0] - known
    parts = 2 * (known + numbers.random(700) * step) * step
    assert found.values[0, 0, 0] == pytest.approx(parts.mean(), rel=1e-5)
    errors = parts.std(ddof=1) / np.sqrt(700)
    assert found.standard_errors[0, 0, 0] == pytest.approx(errors, rel=1e-4)


def test_completeness_of_a_network():
    found = explain_with_integrated_gradients(build_network(), ROWS, targets=[2, 0])
    assert found.targets == (2, 0)
    assert found.diagnostics["completeness_error"].max() < 1e-5
    both = explain_with_integrated_gradients(build_network(), ROWS)
    assert found.values == pytest.approx(both.values[..., [2, 0]], abs=1e-6)


def test_maximum_tells_gradients_from_shapley():
    """A bias, not noise: with many draws the difference stays, far outside its error."""
    rows, background = np.array([[1.0, 0.6]]), NUMBERS.normal(size=(60, 2))
    many = explain_with_expected_gradients(
        take_maximum, rows, background=background, num_samples=40_000
    )
    shapley = explain_with_kernel_shap(
        lambda x: x[:, :2].max(axis=1, keepdims=True), rows, background=background
    )
    difference = many.values - shapley.values
    assert np.linalg.norm(difference) > 0.1 * np.linalg.norm(shapley.values)
    assert np.abs(difference / many.standard_errors).max() > 10
    assert many.diagnostics["completeness_error"].max() < 0.05


# What is compiled is kept


class Counter(keras.layers.Layer):
    """Counts how often Python goes through it: once for each program that is compiled."""

    num_calls = 0

    def call(self, x):
        self.num_calls += 1
        return x


def build_line():
    return keras.Sequential([keras.Input((4,)), Counter(), keras.layers.Dense(2)])


def explain_by_average(model, rows, **options):
    return explain_with_expected_gradients(
        model, rows, background=np.zeros((1, 4)), num_samples=4, **options
    ).values


def explain_by_steps(model, rows, **options):
    return explain_with_integrated_gradients(model, rows, num_steps=4, **options).values


WAYS = pytest.mark.parametrize("explain", [explain_by_average, explain_by_steps])


@WAYS
def test_a_second_call_compiles_nothing(explain):
    model = build_line()
    explain(model, ROWS)
    before = model.layers[0].num_calls
    explain(model, ROWS + 1)
    assert model.layers[0].num_calls == before
    explain(model, ROWS, targets=1)  # the twin: another program
    assert model.layers[0].num_calls > before


@WAYS
def test_a_model_that_was_trained_between_is_seen(explain):
    model = build_line()
    before = explain(model, ROWS)
    model.compile(keras.optimizers.SGD(0.5), "mse")
    model.fit(ROWS, np.ones((3, 2)), epochs=2, verbose=0)
    after = explain(model, ROWS)
    assert after == pytest.approx(ROWS[..., None] * model.layers[1].get_weights()[0], abs=1e-6)
    assert np.abs(after - before).max() > 0.01  # what the weights of before would give


@WAYS
def test_a_model_with_other_weights_is_seen(explain):
    model = build_line()
    before = explain(model, ROWS)
    model.layers[1].enable_lora(1)
    model.layers[1].lora_kernel_b.assign(np.ones((1, 2)))
    after = explain(model, ROWS)
    assert after == pytest.approx(ROWS[..., None] * np.asarray(model.layers[1].kernel), abs=1e-6)
    assert np.abs(after - before).max() > 0.01


@WAYS
def test_a_model_is_explained_as_it_infers(explain):
    class Model(keras.Model):
        """One that trains unless it is told not to."""

        def __init__(self):
            super().__init__()
            self.dense = keras.layers.Dense(2)

        def call(self, x, training=True):
            return 100 * self.dense(x) if training else self.dense(x)

    model = Model()
    model(np.zeros((1, 4), "float32"))
    known = ROWS[..., None] * model.dense.get_weights()[0]
    assert explain(model, ROWS) == pytest.approx(known, abs=1e-6)
    trained = explain(lambda x: model(x), ROWS)  # noqa: PLW0108, the twin: nobody tells it
    assert trained == pytest.approx(100 * known, rel=1e-4, abs=1e-4)


@WAYS
def test_nothing_keeps_a_model_alive(explain):
    model = build_line()
    explain(model, ROWS)
    gone = weakref.ref(model)
    held = [model]  # the twin: what a strong reference does
    del model
    gc.collect()
    assert gone() is not None
    held.clear()
    gc.collect()
    assert gone() is None


# Tokens


def test_tokens_of_a_language_model():
    model, ids = build_reader(), NUMBERS.integers(20, size=(2, 6))
    cut = build_cut_model(model, "table", position=-1)
    nodes = [len(layer._inbound_nodes) for layer in model.layers]
    found = explain_with_integrated_gradients(cut, ids, targets=[3, 7])
    assert [len(layer._inbound_nodes) for layer in model.layers] == nodes
    outputs = keras.ops.convert_to_numpy(model(ids))[:, -1][:, [3, 7]]
    assert found.outputs == pytest.approx(outputs, abs=1e-6)
    assert found.values.shape == (2, 6, 2)
    assert found.diagnostics["completeness_error"].max() < 1e-5
    assert np.abs(found.values[:, :3]).max() == 0  # the convolution reads three positions
    assert np.abs(found.values[:, 3:]).min() > 0


def test_tokens_of_a_classifier_against_a_background():
    model, ids = build_reader(rank=2), NUMBERS.integers(20, size=(9, 6))
    cut = build_cut_model(model, "table")
    found = explain_with_expected_gradients(
        cut, ids[:2], background=ids, num_samples=2000, targets=1
    )
    assert found.diagnostics["completeness_error"].max() < 0.05
    assert found.standard_errors.shape == found.values.shape == (2, 6, 1)


def test_a_pair_of_functions_is_a_model():
    """A subclassed model has no graph; its two parts do."""
    model = build_reader(rank=2)
    layers = model.layers
    pair = CutModel(layers[1], lambda flow: layers[4](layers[3](layers[2](flow))))
    ids = NUMBERS.integers(20, size=(2, 6))
    found = explain_with_integrated_gradients(pair, ids, targets=0)
    cut = explain_with_integrated_gradients(build_cut_model(model, "table"), ids, targets=0)
    assert found.values == pytest.approx(cut.values, abs=1e-6)


def test_the_book_language_model_is_cut_at_its_tied_embedding():
    from bigmodel_utils.models import LanguageModelSettings, build_language_model

    settings = LanguageModelSettings(
        vocabulary_size=30,
        width=16,
        num_layers=1,
        num_heads=2,
        feedforward_width=32,
        context_length=16,
    )
    model = build_language_model(settings)
    ids = NUMBERS.integers(30, size=(2, 7))
    cut = build_cut_model(model, "embedding", position=-1)
    baseline = np.zeros(7, dtype=int)
    found = explain_with_integrated_gradients(cut, ids, baseline=baseline, targets=5)
    outputs = keras.ops.convert_to_numpy(model(ids))[:, -1, 5:6]
    assert found.outputs == pytest.approx(outputs, abs=1e-5)
    assert found.diagnostics["completeness_error"].max() < 1e-3


# Bad input


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"inputs": np.full((1, 4), np.inf)}, "inputs"),
        ({"inputs": ROWS[0]}, "inputs"),
        ({"background": BACKGROUND[:, :2]}, "background"),
        ({"num_samples": 1}, "num_samples"),
        ({"targets": 1}, "targets"),
        ({"model": lambda x: keras.ops.tile(x, (1, 40))}, "targets"),
        ({"model": 3}, "model"),
        ({"model": CutModel(lambda x: x, lambda x: x)}, "inputs"),
    ],
)
def test_bad_input(change, name):
    options = {"model": take_maximum, "inputs": ROWS, "background": BACKGROUND} | change
    with pytest.raises(InputError) as error:
        explain_with_expected_gradients(options.pop("model"), options.pop("inputs"), **options)
    assert error.value.name == name


@pytest.mark.skipif(keras.backend.backend() == "jax", reason="jax takes it as constant")
def test_a_function_without_a_gradient_is_refused():
    with pytest.raises(InputError, match="gradient"):
        explain_with_integrated_gradients(lambda x: keras.ops.cast(x > 0, "float32"), ROWS)


@pytest.mark.parametrize(
    ("build", "options", "name"),
    [
        (build_reader, {"position": None}, "position"),
        (lambda: build_reader(rank=2), {"position": -1}, "position"),
        (build_reader, {"embedding_layer": "none", "position": -1}, "embedding_layer"),
        (lambda: lambda x: x, {}, "model"),
    ],
)
def test_bad_cuts(build, options, name):
    with pytest.raises(InputError) as error:
        build_cut_model(build(), options.pop("embedding_layer", "table"), **options)
    assert error.value.name == name


def test_ids_that_go_elsewhere_are_refused():
    ids = keras.Input((6,), dtype="int32")
    vectors = keras.layers.Embedding(20, 5, name="table")(ids)
    flow = keras.layers.Dense(2)(vectors[:, 0]) + keras.ops.cast(ids[:, :1], "float32")
    cut = build_cut_model(keras.Model(ids, flow), "table")
    with pytest.raises(InputError, match="embedding alone"):
        explain_with_integrated_gradients(cut, np.ones((1, 6), int))


def test_a_mask_is_refused():
    table = keras.layers.Embedding(20, 5, mask_zero=True, name="table")
    ids = keras.Input((6,), dtype="int32")
    model = keras.Model(ids, keras.layers.LSTM(2)(table(ids)))
    with pytest.raises(InputError, match="mask_zero"):
        build_cut_model(model, "table")
