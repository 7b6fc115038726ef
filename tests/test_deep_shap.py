"""DeepSHAP behind its guard: right where it answers, refused elsewhere, nothing left broken."""

import warnings

import keras
import numpy as np
import pytest

from bigmodel_utils._checks import InputError
from bigmodel_utils.explanation import _deep, explain_with_deep_shap, explain_with_kernel_shap

NUMBERS = np.random.default_rng(0)
ROWS, BACKGROUND = NUMBERS.normal(size=(3, 4)), NUMBERS.normal(size=(20, 4))
on_tensorflow = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="DeepExplainer is TensorFlow's"
)


def build_network(*layers, num_outputs=2):
    keras.utils.set_random_seed(0)
    return keras.Sequential([keras.Input((4,)), *layers, keras.layers.Dense(num_outputs)])


@on_tensorflow
def test_linear():
    model = build_network()
    found = explain_with_deep_shap(model, ROWS, background=BACKGROUND, targets=[1, 0])
    weights = model.get_weights()[0][:, [1, 0]]
    known = (ROWS - BACKGROUND.mean(axis=0))[..., None] * weights
    assert found.values == pytest.approx(known, abs=1e-5)
    assert found.values[..., ::-1] != pytest.approx(known, abs=1e-2)  # the twin


@on_tensorflow
def test_network_adds_up_and_yet_is_not_shapley():
    model = build_network(keras.layers.Dense(8, "relu"), keras.layers.Dense(8, "tanh"))
    found = explain_with_deep_shap(model, ROWS, background=BACKGROUND)
    assert found.diagnostics["completeness_error"].max() < 1e-5
    exact = explain_with_kernel_shap(model, ROWS, background=BACKGROUND)
    difference = np.linalg.norm(found.values - exact.values) / np.linalg.norm(exact.values)
    assert 1e-3 < difference < 0.5


@on_tensorflow
def test_images():
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            keras.layers.Conv2D(4, 3, activation="relu"),
            keras.layers.MaxPooling2D(),
            keras.layers.Flatten(),
            keras.layers.Dense(3, "softmax"),
        ]
    )
    images = NUMBERS.random((5, 8, 8, 1))
    found = explain_with_deep_shap(model, images[:2], background=images)
    assert found.values.shape == (2, 8, 8, 1, 3)
    assert found.additivity_errors.max() < 1e-5


@on_tensorflow
def test_large_outputs_are_judged_by_their_size():
    """shap's own tolerance is absolute and refuses a right answer here."""
    model = build_network(keras.layers.Dense(8, "relu"), num_outputs=1)
    model.set_weights([*model.get_weights()[:2], 1e5 * model.get_weights()[2], np.zeros(1)])
    found = explain_with_deep_shap(model, ROWS, background=BACKGROUND)
    assert np.abs(found.outputs).max() > 1e4


@on_tensorflow
@pytest.mark.parametrize(
    "layer",
    [
        lambda: keras.layers.Dense(5, "gelu"),
        lambda: keras.layers.Dense(5, "silu"),
        keras.layers.LeakyReLU,
        keras.layers.LayerNormalization,
        lambda: keras.layers.Dense(5, "relu", dtype="mixed_bfloat16"),
        lambda: keras.Sequential([keras.layers.Dense(5, "gelu")]),
    ],
)
def test_other_layers_are_refused(layer):
    with pytest.raises(InputError, match="layers that DeepSHAP"):
        explain_with_deep_shap(build_network(layer()), ROWS, background=BACKGROUND)


@on_tensorflow
def test_a_sum_that_is_off_is_refused(monkeypatch):
    """silu runs through shap without an error and is wrong: the second guard finds it."""
    monkeypatch.setattr(_deep, "ACTIVATIONS", _deep.ACTIVATIONS | {"silu"})
    model = build_network(keras.layers.Dense(5, "silu"))
    with pytest.raises(InputError, match="miss it"):
        explain_with_deep_shap(model, ROWS, background=BACKGROUND)


def train(model):
    model.compile(optimizer="sgd", loss="mse")
    return model.fit(ROWS, np.zeros((3, 2)), verbose=0).history["loss"][0]


@on_tensorflow
def test_a_model_trains_after_a_failed_explanation(monkeypatch):
    """shap leaves TensorFlow's record of gradients replaced when a layer has no rule."""
    from tensorflow.python.eager import execute

    before = execute.record_gradient
    monkeypatch.setattr(_deep, "LAYERS", _deep.LAYERS | {"LeakyReLU"})
    model = build_network(keras.layers.LeakyReLU())
    with pytest.raises(Exception, match="shap_LeakyRelu"):
        explain_with_deep_shap(model, ROWS, background=BACKGROUND)
    assert execute.record_gradient is before
    assert np.isfinite(train(build_network()))


@on_tensorflow
def test_twin_without_the_guard_no_model_trains():
    from tensorflow.python.eager import execute

    shap = _deep.import_shap()
    model = build_network(keras.layers.LeakyReLU())
    with _deep.keep_gradients():
        before = execute.record_gradient
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            explainer = shap.DeepExplainer(model, BACKGROUND.astype("float32"))
            with pytest.raises(Exception, match="shap_LeakyRelu"):
                explainer.shap_values(ROWS.astype("float32"))
        assert execute.record_gradient is not before
        with pytest.raises(LookupError, match="shap_"):
            train(build_network())
    assert np.isfinite(train(build_network()))


@on_tensorflow
@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"model": lambda x: x}, "model"),
        ({"inputs": np.full((1, 4), np.nan)}, "inputs"),
        ({"background": BACKGROUND[:, :3]}, "background"),
        ({"targets": 5}, "targets"),
    ],
)
def test_bad_input(change, name):
    options = {"model": build_network(), "inputs": ROWS, "background": BACKGROUND} | change
    with pytest.raises(InputError) as error:
        explain_with_deep_shap(options.pop("model"), options.pop("inputs"), **options)
    assert error.value.name == name


@pytest.mark.skipif(keras.backend.backend() == "tensorflow", reason="what other backends are told")
def test_other_backends_are_told():
    with pytest.raises(InputError, match="TensorFlow"):
        explain_with_deep_shap(build_network(), ROWS, background=BACKGROUND)
