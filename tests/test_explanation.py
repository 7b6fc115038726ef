"""The explanation package: predictions, the result, and pictures."""

import gc
import weakref

import keras
import numpy as np
import pytest

from bigmodel_utils._checks import InputError
from bigmodel_utils.explanation import (
    Explanation,
    GroupedBackground,
    build_predict_fn,
    explain_with_kernel_shap,
    explain_with_lime_image,
    make_grid_segments,
    plot_beeswarm,
    plot_image,
    plot_waterfall,
    render_tokens,
)

NUMBERS = np.random.default_rng(0)


def build_model(**options):
    return keras.Sequential(
        [
            keras.Input((3,)),
            keras.layers.Dense(8, "relu"),
            keras.layers.Dropout(0.5),
            keras.layers.Dense(2, **options),
        ]
    )


def make_explanation(shape=(4, 3), *, num_targets=2, **options):
    values = NUMBERS.normal(size=(*shape, num_targets))
    base = NUMBERS.normal(size=(shape[0], num_targets))
    outputs = base + values.reshape(shape[0], -1, num_targets).sum(axis=1)
    inputs = NUMBERS.random(shape)
    return Explanation("known", values, base, outputs, inputs, tuple(range(num_targets)), **options)


@pytest.mark.parametrize("num_rows", [1, 3, 16, 37])
def test_predictions_are_the_models_in_any_number(num_rows):
    model, x = build_model(), NUMBERS.normal(size=(num_rows, 3))
    found = build_predict_fn(model, batch_size=16)(x)
    assert found.dtype == np.float64
    assert found == pytest.approx(model.predict(x, verbose=0), abs=1e-6)


def test_predictions_follow_weights_that_change():
    model, x = build_model(), NUMBERS.normal(size=(5, 3))
    predict = build_predict_fn(model)
    before = predict(x)
    model.set_weights([2 * each for each in model.get_weights()])
    assert predict(x) == pytest.approx(model.predict(x, verbose=0), abs=1e-6)
    assert not np.allclose(predict(x), before)


def test_a_second_function_of_a_model_compiles_nothing_and_lets_it_go():
    class Counter(keras.layers.Layer):
        num_calls = 0

        def call(self, x):
            self.num_calls += 1
            return x

    model = keras.Sequential([keras.Input((3,)), Counter(), keras.layers.Dense(2)])
    counter, x = model.layers[0], NUMBERS.normal(size=(5, 3))
    found = build_predict_fn(model)(x)
    before = counter.num_calls
    predict = build_predict_fn(model)
    assert np.array_equal(predict(x), found)
    assert counter.num_calls == before
    model(x)  # the twin: what is not compiled goes through Python again
    assert counter.num_calls > before
    gone = weakref.ref(model)
    del model, counter
    gc.collect()
    assert predict(x[:1]) == pytest.approx(found[:1])  # the function keeps its model
    del predict
    gc.collect()
    assert gone() is None


def test_tokens_stay_integers_and_a_subclassed_model_is_taken():
    seen = set()

    class Model(keras.Model):
        def __init__(self):
            super().__init__()
            self.embedding = keras.layers.Embedding(10, 4)
            self.dense = keras.layers.Dense(2)

        def call(self, ids):
            seen.add(str(ids.dtype))
            return self.dense(keras.ops.mean(self.embedding(ids), axis=1))

    model, ids = Model(), NUMBERS.integers(0, 10, (6, 5)).astype("int32")
    model(ids)
    expected = keras.ops.convert_to_numpy(model(ids))
    seen.clear()
    assert build_predict_fn(model)(ids) == pytest.approx(expected, abs=1e-6)
    assert all("int32" in dtype for dtype in seen), seen


def test_a_function_is_asked_in_batches():
    sizes = []

    def model(x):
        sizes.append(len(x))
        return x[:, :1]

    x = NUMBERS.normal(size=(100, 2))
    assert np.array_equal(build_predict_fn(model, batch_size=40)(x), x[:, :1])
    assert max(sizes) <= 40


@pytest.mark.parametrize(
    ("model", "x", "match"),
    [
        (lambda x: x, np.zeros((0, 2)), "inputs"),
        (lambda x: x, np.full((2, 2), np.nan), "finite"),
        (lambda x: x[:, 0], np.zeros((2, 2)), "column"),
        (lambda x: x * np.inf, np.ones((2, 2)), "finite outputs"),
        (lambda x: x[:1], np.zeros((2, 2)), "shape"),
        (3, np.zeros((2, 2)), "function"),
    ],
)
def test_what_cannot_be_predicted_is_refused(model, x, match):
    with pytest.raises(InputError, match=match):
        build_predict_fn(model)(x)


def test_outputs_of_changing_width_are_refused():
    widths = iter([2, 3])
    predict = build_predict_fn(lambda x: np.zeros((len(x), next(widths))))
    predict(np.zeros((1, 2)))
    with pytest.raises(InputError, match="as many outputs"):
        predict(np.zeros((1, 2)))


def test_models_of_another_form_are_refused():
    with pytest.raises(InputError, match="built"):
        build_predict_fn(keras.Sequential([keras.layers.Dense(2)]))
    first, second = keras.Input((2,)), keras.Input((2,))
    both = keras.Model([first, second], keras.layers.Add()([first, second]))
    with pytest.raises(InputError, match="one input"):
        build_predict_fn(both)
    steps = keras.Sequential([keras.Input((4, 3)), keras.layers.Dense(2)])
    with pytest.raises(InputError, match="position"):
        build_predict_fn(steps)


def test_additivity_errors_see_what_is_missing():
    explanation = make_explanation()
    assert explanation.additivity_errors.max() < 1e-12
    twin = make_explanation()
    twin.values[0, 0] += 0.5
    assert twin.additivity_errors[0] == pytest.approx([0.5, 0.5])
    assert "additivity" in str(explanation)
    assert "<table>" in explanation._repr_html_()


def test_an_explanation_goes_to_shap_and_to_json():
    shap = pytest.importorskip("shap")
    explanation = make_explanation(feature_names=("a", "b", "c"), diagnostics={"r2": np.ones(4)})
    found = explanation.to_shap(target=1)
    assert isinstance(found, shap.Explanation)
    assert np.array_equal(found.values, explanation.values[..., 1])
    assert explanation.to_dict()["diagnostics"]["r2"] == [1, 1, 1, 1]
    with pytest.raises(InputError, match="target"):
        explanation.to_shap(target=2)


def test_segments_and_groups_are_painted_for_shap():
    pytest.importorskip("shap")
    images = NUMBERS.random((2, 6, 6, 1))
    grid = make_grid_segments((6, 6), 2, hide_value=0.0)
    read = lambda x: x[:, :2, 2:4].sum(axis=(1, 2))  # noqa: E731
    lime = explain_with_lime_image(read, images, segments=grid)
    painted = lime.to_shap().values
    assert np.array_equal(painted, grid.paint(lime.values)[..., 0])
    assert painted.shape == (2, 6, 6)
    strongest = painted == painted.max(axis=(1, 2), keepdims=True)
    assert strongest[:, :2, 2:4].all()
    assert strongest.sum() == 2 * 4
    turned = grid.paint(lime.values[:, ::-1])[..., 0]  # the twin: another order of segments
    assert not np.array_equal(painted, turned)
    groups = grid.labels[..., None]
    shapley = explain_with_kernel_shap(
        read, images, background=GroupedBackground(np.zeros((1, 6, 6, 1)), groups)
    )
    assert shapley.to_shap().values == pytest.approx(grid.paint(shapley.values)[..., :1], abs=1e-12)
    whole = explain_with_kernel_shap(
        lambda x: x[:, :1], NUMBERS.random((2, 3)), background=np.zeros((1, 3))
    )
    assert np.array_equal(whole.to_shap().values, whole.values[..., 0])


def test_shap_draws_and_leaves_no_black_text():
    pytest.importorskip("shap")
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    explanation = make_explanation((20, 3), feature_names=("one", "two", "three"))
    others = pyplot.get_fignums()
    for drawn in (plot_waterfall(explanation, row=2), plot_beeswarm(explanation)):
        assert pyplot.get_fignums() == others
        labels = [each for axes in drawn.axes for each in axes.get_yticklabels()]
        assert any("two" in label.get_text() for label in labels)
        assert {label.get_color() for label in labels if label.get_text()} == {"#767676"}
    with pytest.raises(InputError, match="plot_image"):
        plot_waterfall(make_explanation((4, 5, 5)))
    with pytest.raises(InputError, match="row"):
        plot_waterfall(explanation, row=20)


def test_images_are_overlaid():
    figures = pytest.importorskip("matplotlib.figure")
    for shape in ((2, 6, 7), (2, 6, 7, 1)):
        axes = figures.Figure().subplots()
        explanation = make_explanation(shape)
        plot_image(axes, explanation, row=1, target=1)
        overlay = axes.images[1].get_array()
        values = explanation.values[1, ..., 1].reshape(6, 7)
        assert overlay.shape == (6, 7, 4)
        assert np.array_equal(overlay[..., 2] > 0.5, values > 0)  # blue speaks for
        strongest = np.unravel_index(np.abs(values).argmax(), values.shape)
        assert overlay[strongest][3] == overlay[..., 3].max()
    with pytest.raises(InputError, match="images"):
        plot_image(figures.Figure().subplots(), make_explanation())


def test_tokens_are_small_escaped_and_colored_by_sign():
    values = np.array([[1.0, -0.5, 0.0]])[..., None]
    zero = np.zeros((1, 1))
    explanation = Explanation("known", values, zero, zero, np.array([[7, 8, 9]]), (0,))
    shown = render_tokens(explanation, tokens=["<b>", "and", "so"]).html
    assert "&lt;b&gt;" in shown
    assert "<b>" not in shown
    assert "rgba(0,114,178,0.60)" in shown
    assert "rgba(213,94,0,0.30)" in shown
    assert "script" not in shown
    assert "7" in render_tokens(explanation).html
    many = NUMBERS.normal(size=(1, 500, 1))
    long = Explanation("known", many, zero, zero, np.full((1, 500), "token"), (0,))
    assert len(render_tokens(long)._repr_html_()) < 50_000
    with pytest.raises(InputError, match="tokens"):
        render_tokens(explanation, tokens=["one"])
