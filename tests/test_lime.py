"""LIME: the coefficients of `lime` on the same draws, closed forms, and what is refused."""

import keras
import numpy as np
import pytest

from bigmodel_utils._checks import InputError
from bigmodel_utils.explanation import (
    ImageSegments,
    explain_with_lime_image,
    explain_with_lime_tabular,
    make_grid_segments,
)

BACKGROUND = np.random.default_rng(0).normal(size=(200, 7)) * np.arange(1, 8)
SLOPES = np.random.default_rng(1).normal(size=(7, 3))
IMAGES = np.random.default_rng(2).random((3, 12, 12, 1))
GRID = make_grid_segments((12, 12), 3, hide_value=0.0)


def softmax(logits):
    shares = np.exp(logits - logits.max(axis=1, keepdims=True))
    return shares / shares.sum(axis=1, keepdims=True)


def predict_table(x):
    return softmax(np.tanh(x) @ SLOPES)


def predict_images(x):
    flat = np.asarray(x, float).reshape(len(x), -1)
    kernel = np.random.default_rng(3).normal(size=(flat.shape[1], 4)) / 6
    return softmax(np.tanh(flat @ kernel))


def read_peer(found, targets, num_segments):
    """Coefficients, intercepts of an explanation by `lime`."""
    values = np.zeros((num_segments, len(targets)))
    for place, target in enumerate(targets):
        for feature, weight in found.local_exp[target]:
            values[feature, place] = weight
    return values, np.array([found.intercept[target] for target in targets])


# Tables


@pytest.mark.parametrize("seed", [0, 5])
def test_tables_are_explained_as_by_lime(seed):
    peer = pytest.importorskip("lime.lime_tabular")
    targets = (2, 0)
    rows = np.concatenate([BACKGROUND[:3], 9 * BACKGROUND[3:4]])  # the last lies outside
    found = explain_with_lime_tabular(
        predict_table, rows, background=BACKGROUND, num_samples=700, targets=targets, seed=seed
    )
    for place, row in enumerate(rows):
        explainer = peer.LimeTabularExplainer(
            BACKGROUND, feature_selection="none", random_state=seed
        )
        expected = explainer.explain_instance(
            row, predict_table, labels=targets, num_features=7, num_samples=700
        )
        values, intercepts = read_peer(expected, targets, 7)
        assert np.abs(found.values[place] - values).max() < 1e-7
        assert np.abs(found.base_values[place] - intercepts).max() < 1e-7
        assert found.diagnostics["r2"][place, -1] == pytest.approx(expected.score, abs=1e-9)
        error = abs(expected.local_pred - predict_table(row[None])[0, targets[-1]])
        assert found.additivity_errors[place, -1] == pytest.approx(error[0], abs=1e-9)


def test_twin_another_seed_is_another_table():
    first, second = (
        explain_with_lime_tabular(
            predict_table, BACKGROUND[:1], background=BACKGROUND, num_samples=700, seed=seed
        )
        for seed in (0, 1)
    )
    assert np.abs(first.values - second.values).max() > 1e-4


def test_a_feature_that_steps_at_a_quartile():
    edge = np.percentile(BACKGROUND[:, 2], 75)
    found = explain_with_lime_tabular(
        lambda x: (x[:, 2:3] > edge) * 1.0, BACKGROUND[:20], background=BACKGROUND
    )
    above = BACKGROUND[:20, 2] > edge
    # Where the row is above, it alone is; below, one of the three other quartiles is above.
    expected = np.where(above, 1.0, -1 / 3)
    assert np.abs(found.values[:, 2, 0] - expected).max() < 0.06
    assert np.abs(np.delete(found.values, 2, axis=1)).max() < 0.06


def test_one_forward_pass_serves_all_rows():
    sizes = []

    def predict(x):
        sizes.append(len(x))
        return predict_table(x)

    explain_with_lime_tabular(predict, BACKGROUND[:9], background=BACKGROUND, num_samples=500)
    assert sum(sizes) == 9 + 499


def draw_rows_where_quartiles_hold_one_value(explain):
    """Rows that the model saw; a column is always 5, and the least of another is common."""
    background = BACKGROUND.copy()
    background[:, 0] = 5.0
    background[:, 1] = np.maximum(background[:, 1], 0) + 3
    seen = []

    def predict(x):
        seen.append(np.array(x))
        return predict_table(x)

    found = explain(predict, background)
    return np.concatenate(seen)[1:], found


def test_a_quartile_of_one_value_is_drawn_as_it_is():
    drawn, found = draw_rows_where_quartiles_hold_one_value(
        lambda predict, background: explain_with_lime_tabular(
            predict, background[:1], background=background, num_samples=500
        )
    )
    assert (drawn[:, 0] == 5).all()
    assert drawn[:, 1].min() == 3
    assert (drawn[:, 1] == 3).mean() == pytest.approx(0.5, abs=0.1)
    assert np.abs(found.values[0, 0]).max() < 1e-12


def test_twin_lime_leaves_the_data_there():
    peer = pytest.importorskip("lime.lime_tabular")
    drawn, _ = draw_rows_where_quartiles_hold_one_value(
        lambda predict, background: peer.LimeTabularExplainer(
            background, random_state=0
        ).explain_instance(background[0], predict, num_features=7, num_samples=500)
    )
    assert np.abs(drawn[:, 0]).max() < 1e-3
    assert drawn[:, 1].min() < 1e-3


# Images


@pytest.mark.parametrize("channels", [1, 3])
def test_images_are_explained_as_by_lime(channels):
    peer = pytest.importorskip("lime.lime_image")
    images = np.random.default_rng(channels).random((2, 12, 12, channels))
    segments = GRID if channels == 1 else ImageSegments(GRID.labels)
    found = explain_with_lime_image(
        predict_images, images, segments=segments, num_samples=200, seed=4
    )
    for place, image in enumerate(images):
        explainer = peer.LimeImageExplainer(feature_selection="none", random_state=4)
        expected = explainer.explain_instance(
            image,
            predict_images,
            top_labels=4,
            hide_color=0 if channels == 1 else None,
            num_samples=200,
            segmentation_fn=lambda _: GRID.labels,
            random_seed=0,
        )
        values, intercepts = read_peer(expected, range(4), 16)
        assert np.abs(found.values[place] - values).max() < 1e-7
        assert np.abs(found.base_values[place] - intercepts).max() < 1e-7


def look_at_a_patch(x):
    return x[:, 3:6, 6:9].mean(axis=(1, 2))


def finds_the_patch(values):
    painted = GRID.paint(values)[..., 0]
    inside = np.zeros((12, 12), dtype=bool)
    inside[3:6, 6:9] = True
    return all((each[inside] == each.max()).all() for each in painted) and (
        painted[:, ~inside].max() < 0.2 * painted.max()
    )


def test_the_planted_patch_is_found_and_the_twin_is_not():
    found = explain_with_lime_image(look_at_a_patch, IMAGES, segments=GRID)
    assert finds_the_patch(found.values)
    shuffled = np.random.default_rng(0).permutation(found.values, axis=1)
    assert not finds_the_patch(shuffled)
    # Hidden by its own mean the patch says the same: its model cannot tell.
    with pytest.raises(InputError, match="hide_value"):
        explain_with_lime_image(look_at_a_patch, IMAGES, segments=ImageSegments(GRID.labels))


def test_the_patch_is_found_with_any_numbers_of_segments():
    found = explain_with_lime_image(
        look_at_a_patch, IMAGES, segments=ImageSegments(7 * GRID.labels + 100, hide_value=0.0)
    )
    assert finds_the_patch(found.values)


def test_hidden_by_the_mean_of_segment_and_channel():
    images = np.random.default_rng(0).random((2, 4, 6, 3))
    segments = make_grid_segments((4, 6), 2)
    hidden = segments.hide(images)
    assert np.allclose(hidden[1, 2:, 4:, 2], images[1, 2:, 4:, 2].mean())
    assert (make_grid_segments((4, 6), 2, hide_value=0.5).hide(images) == 0.5).all()


def test_an_image_without_channels_and_rows_that_share_masks():
    found = explain_with_lime_image(predict_images, IMAGES[..., 0], segments=GRID)
    alone = explain_with_lime_image(predict_images, IMAGES[2:, ..., 0], segments=GRID)
    assert np.allclose(found.values[2:], alone.values, atol=1e-12)
    assert found.values.shape == (3, 16, 4)
    assert (found.diagnostics["num_segments"] == 16).all()


# Both


def explain_both(seed):
    table = explain_with_lime_tabular(
        predict_table, BACKGROUND[:2], background=BACKGROUND, num_samples=100, seed=seed
    )
    image = explain_with_lime_image(
        predict_images, IMAGES, segments=GRID, num_samples=100, seed=seed
    )
    return table, image


def test_seeds_repeat_and_leave_the_process_alone():
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    first, second = explain_both(3), explain_both(3)
    assert (np.random.get_state()[1] == before).all()  # noqa: NPY002
    for a, b in zip(first, second, strict=True):
        assert a.to_dict() == b.to_dict()
    assert (explain_both(4)[1].values != first[1].values).any()


def test_a_keras_model_is_explained():
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((12, 12, 1)), keras.layers.Flatten()])
    model.add(keras.layers.Dense(1))
    found = explain_with_lime_image(
        model, IMAGES.astype("float32"), segments=GRID, num_samples=400, targets=0
    )
    kernel = model.get_weights()[0].reshape(12, 12)
    # Linear in the segments: each adds its pixels times their weights, less LIME's penalty.
    products = IMAGES[..., 0] * kernel
    expected = products.reshape(3, 4, 3, 4, 3).sum(axis=(2, 4)).reshape(3, 16)
    assert np.abs(found.values[..., 0] - expected).max() < 0.05 * np.abs(expected).max()
    assert found.diagnostics["r2"].min() > 0.99
    table = keras.Sequential([keras.Input((7,)), keras.layers.Dense(2, activation="softmax")])
    found = explain_with_lime_tabular(table, BACKGROUND[:2], background=BACKGROUND)
    assert np.abs(found.values.sum(axis=2)).max() < 1e-5  # shares sum to one, slopes to nought


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"inputs": BACKGROUND[0]}, "`inputs` must have shape"),
        ({"inputs": BACKGROUND[:1] * np.nan}, "`inputs` must be finite"),
        ({"inputs": BACKGROUND[:2, :1], "background": BACKGROUND[:, :1]}, "two features"),
        ({"background": BACKGROUND[:, :3]}, "`background` must have shape"),
        ({"num_samples": 15}, "`num_samples` must be an integer of at least 16"),
        ({"targets": 3}, "`targets`"),
        ({"seed": -1}, "`seed`"),
        ({"model": lambda x: np.ones((len(x), 1))}, "output 0 of row 0 is always 1"),
        ({"model": lambda x: np.full((len(x), 2), np.nan)}, "finite outputs"),
        ({"model": lambda x: x[:, 0]}, "must return outputs of shape"),
        ({"model": 3}, "`model` must be"),
    ],
)
def test_bad_tables(change, message):
    known = {"model": predict_table, "inputs": BACKGROUND[:2], "background": BACKGROUND}
    with pytest.raises(InputError, match=message):
        explain_with_lime_tabular(**(known | change))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"inputs": IMAGES[0]}, "`inputs` must be images"),
        ({"inputs": IMAGES[:, :6]}, "`inputs` must be images"),
        ({"inputs": IMAGES * np.inf}, "`inputs` must be finite"),
        ({"num_samples": 20}, "`num_samples`"),
        ({"targets": []}, "`targets`"),
        ({"model": lambda x: np.ones((len(x), 1))}, "answer perturbed inputs differently"),
    ],
)
def test_bad_images(change, message):
    known = {"model": predict_images, "inputs": IMAGES, "segments": GRID}
    with pytest.raises(InputError, match=message):
        explain_with_lime_image(**(known | change))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: make_grid_segments((8, 8), 4), "at least 5 parts to hide. Received: 4"),
        (lambda: make_grid_segments((8, 8), 0), "`size`"),
        (lambda: ImageSegments(np.zeros((8, 8))), "`labels` must be integers"),
        (lambda: ImageSegments(np.zeros((8, 8), int)), "`labels`"),
        (lambda: ImageSegments(GRID.labels, hide_value="blur"), "`hide_value`"),
        (lambda: ImageSegments(GRID.labels, hide_value=np.nan), "`hide_value`"),
        (lambda: GRID.paint(np.zeros((1, 3, 1))), "`values`"),
    ],
)
def test_bad_segments(make, message):
    with pytest.raises(InputError, match=message):
        make()
