"""Moving images, predictions that should not notice, and what a unit can see."""

import json

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import layers

from bigmodel_utils import data, evaluation, models
from bigmodel_utils._checks import InputError
from bigmodel_utils.benchmark import estimate_proportion_interval

# Moving images

IMAGES = np.random.default_rng(0).random((3, 6, 5, 2))


def move_one_by_one(images, down, right):
    moved = np.zeros_like(images)
    height, width = images.shape[1:3]
    for row in range(height):
        for column in range(width):
            if 0 <= row + down < height and 0 <= column + right < width:
                moved[:, row + down, column + right] = images[:, row, column]
    return moved


@given(st.integers(-5, 5), st.integers(-4, 4))
def test_shift_equals_brute_force(down, right):
    expected = move_one_by_one(IMAGES, down, right)
    np.testing.assert_array_equal(data.shift_images(IMAGES, down=down, right=right), expected)


def test_twin_a_rolled_image_is_no_shift():
    assert (np.roll(IMAGES, 1, axis=1) != move_one_by_one(IMAGES, 1, 0)).any()


def test_shift_keeps_the_type_and_the_original():
    images = np.arange(4, dtype="uint8").reshape(1, 2, 2, 1)
    assert data.shift_images(images, down=1).dtype == np.uint8
    assert images.ravel().tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("wrong", [{"down": 6}, {"down": -6}, {"right": 5}, {"right": 1.5}])
def test_shift_that_leaves_nothing_is_refused(wrong):
    with pytest.raises(InputError, match=next(iter(wrong))):
        data.shift_images(IMAGES, **wrong)


def test_shift_of_what_is_no_image_is_refused():
    with pytest.raises(InputError, match="images"):
        data.shift_images(np.zeros((3, 6, 5)), down=1)


# Consistency


def make_scores(classes):
    return np.eye(5)[np.asarray(classes)]


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=40))
def test_consistency_counts_what_stays(pairs):
    before, after = np.array(pairs).T
    report = evaluation.measure_consistency(
        lambda x: make_scores(x[:, 0].astype(int)),
        before[:, None],
        changes={"change": lambda x: after[:, None], "none": lambda x: x},
    )
    kept = int((before == after).sum())
    assert report.kept["change"] == estimate_proportion_interval(kept, len(pairs))
    assert report.kept["none"].value == 1
    assert report.worst == "change"
    assert report.num_examples == len(pairs)


def test_twin_equal_counts_of_classes_are_not_consistency():
    """Both predict each class once; not one prediction stayed."""
    report = evaluation.measure_consistency(
        lambda x: make_scores(x[:, 0]),
        np.array([[0], [1]]),
        changes={"swap": lambda x: x[::-1]},
    )
    assert report.kept["swap"].value == 0


def test_consistency_is_plain_data_and_readable():
    report = evaluation.measure_consistency(
        lambda x: make_scores(x[:, 0]),
        np.array([[0], [1]]),
        changes={"same": lambda x: x, "swap": lambda x: x[::-1]},
        confidence=0.9,
    )
    plain = json.loads(json.dumps(report.to_dict()))
    assert plain["worst"] == "swap"
    assert plain["kept"]["same"]["confidence"] == 0.9
    assert str(report).startswith("same  100.0%")


def test_changes_that_say_nothing_are_refused():
    with pytest.raises(InputError, match="changes"):
        evaluation.measure_consistency(make_scores, np.array([0]), changes={})
    with pytest.raises(InputError, match="drop"):
        evaluation.measure_consistency(
            lambda x: make_scores(x[:, 0]),
            np.array([[0], [1]]),
            changes={"drop": lambda x: x[:1]},
        )


# Receptive field


def build_chain(windows):
    """Positive weights and smooth pooling: no path to the unit cancels or is cut."""
    chain = [keras.Input((40, 40, 1))]
    for kind, size, stride in windows:
        if kind == "pool":
            chain.append(layers.AveragePooling2D(size, stride))
        else:
            gap = 2 if kind == "dilated" else 1
            chain.append(
                layers.Conv2D(
                    1,
                    size,
                    strides=1 if gap > 1 else stride,
                    dilation_rate=gap,
                    kernel_initializer="ones",
                )
            )
    return keras.Sequential(chain)


def measure_field(model):
    """Rows that the first unit of the last map sees, and the step to the next unit."""
    rows = np.repeat(np.eye(40, dtype="float32")[:, :, None, None], 40, axis=2)
    maps = np.asarray(model(rows))  # one image for each row that is lit
    seen = [np.flatnonzero(maps[:, unit, unit, 0]) for unit in (0, 1)]
    return seen[0][-1] + 1 - seen[0][0], seen[1][0] - seen[0][0]


windows = st.tuples(
    st.sampled_from(["convolution", "dilated", "pool"]), st.integers(1, 3), st.integers(1, 2)
)


@settings(deadline=None, max_examples=25)
@given(st.lists(windows, min_size=1, max_size=4))
def test_field_by_formula_equals_what_a_unit_sees(chain):
    field = models.count_receptive_field(build_chain(chain))[-1]
    size, stride = measure_field(build_chain(chain))
    # A window smaller than its step leaves pixels out, inside the field as well.
    assert (field.size[0], field.stride[0]) == (size, stride)


def test_twin_without_the_step_of_the_layer_below_it_differs():
    chain = [("pool", 2, 2), ("convolution", 3, 1)]
    size, _ = measure_field(build_chain(chain))
    assert size == 6 != 1 + 1 + 2


def test_field_of_an_oblong_window_and_of_pointwise_layers():
    model = keras.Sequential(
        [
            keras.Input((20, 20, 1)),
            layers.Conv2D(2, (1, 5)),
            layers.BatchNormalization(),
            layers.Activation("relu"),
            layers.MaxPooling2D((3, 1)),
            layers.Conv2D(2, 3),
            layers.GlobalMaxPooling2D(),
            layers.Dense(2),
        ]
    )
    fields = models.count_receptive_field(model)
    assert [field.size for field in fields] == [(1, 5), (3, 5), (9, 7)]
    assert fields[-1].stride == (3, 1)
    assert fields[0].to_dict()["layer"] == model.layers[0].name


def test_a_layer_that_joins_branches_is_refused():
    images = keras.Input((9, 9, 1))
    joined = layers.Add()([images, layers.Conv2D(1, 3, padding="same")(images)])
    with pytest.raises(InputError, match="Add"):
        models.count_receptive_field(keras.Model(images, joined))
