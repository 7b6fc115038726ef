"""The bundled data sets against published numbers, and what `Dataset` refuses."""

import hashlib
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn import datasets as bundled

from bigmodel_utils._checks import InputError
from bigmodel_utils.data import Dataset, count_overlap, load_breast_cancer, load_digits

# Alpaydin and Kaynak (1998), file optdigits.names: examples of each class in the test set.
DIGITS_PER_CLASS = [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]


@pytest.fixture(scope="module")
def digits():
    return load_digits()


def make(**changes):
    arguments = {
        "name": "points",
        "x": np.zeros((3, 2)),
        "y": np.array([0, 1, 0]),
        "class_names": ("left", "right"),
    }
    return Dataset(**(arguments | changes))


def shrink(images):
    """The inverse that `load_digits` documents."""
    return images[:, 3:-2:3, 3:-2:3, 0] * 16


def check_enlarged(images):
    original = bundled.load_digits().images
    blocks = images[:, 2:-2, 2:-2, 0].reshape(-1, 8, 3, 8, 3)
    assert np.array_equal(shrink(images), original)
    assert (blocks == blocks[:, :, :1, :, :1]).all()
    margin = images.copy()
    margin[:, 2:-2, 2:-2] = 0
    assert not margin.any()


def test_digits_have_their_published_counts(digits):
    assert digits.x.shape == (1797, 28, 28, 1)
    assert digits.x.dtype == np.float32
    assert digits.y.dtype == np.int64
    assert digits.x.min() == 0
    assert digits.x.max() == 1
    assert np.bincount(digits.y).tolist() == DIGITS_PER_CLASS
    assert digits.class_names[3] == "3"


def test_digits_are_enlarged_without_loss(digits):
    check_enlarged(digits.x)


@pytest.mark.parametrize("place", [(7, 0, 0), (7, 13, 13), (7, 27, 14)])
def test_one_changed_pixel_fails_the_same_check(digits, place):
    images = digits.x.copy()
    images[(*place, 0)] += 0.5
    with pytest.raises(AssertionError):
        check_enlarged(images)


def test_breast_cancer_has_its_published_counts():
    cancer = load_breast_cancer()
    assert cancer.x.shape == (569, 30)
    assert dict(zip(cancer.class_names, np.bincount(cancer.y), strict=True)) == {
        "malignant": 212,
        "benign": 357,
    }
    assert np.allclose(cancer.x, bundled.load_breast_cancer().data, rtol=1e-7)


@pytest.mark.parametrize("load", [load_digits, load_breast_cancer])
def test_provenance_is_stated_and_stable(load):
    first, second = load(), load()
    assert first.sha256 == second.sha256
    assert first.keys == second.keys
    report = first.to_dict()
    assert json.loads(json.dumps(report)) == report
    assert "doi.org" in report["source"]
    assert report["licence"] == "CC BY 4.0"
    assert report["num_examples"] == len(first)


def test_key_is_the_hash_of_the_example(digits):
    content = digits.x[5].astype("<f4").tobytes()
    assert digits.keys[5] == hashlib.sha256(content).hexdigest()[:16]
    assert len(digits.keys) == len(digits)


arrays = hnp.arrays(
    np.float32,
    st.tuples(st.integers(1, 12), st.integers(1, 3)),
    elements=st.sampled_from([-1.0, -0.0, 0.0, 1.0]),
)


@given(arrays)
def test_keys_are_equal_exactly_when_examples_are(x):
    keys = make(x=x, y=np.zeros(len(x), int)).keys
    for i in range(len(x)):
        for j in range(len(x)):
            assert (keys[i] == keys[j]) == np.array_equal(x[i], x[j])


def test_keys_ignore_labels_and_hash_does_not():
    first, second = make(), make(y=np.array([1, 1, 0]))
    assert first.keys == second.keys
    assert count_overlap(first.keys, second.keys) == 3
    hashes = {
        first.sha256,
        second.sha256,
        make(x=np.ones((3, 2))).sha256,
        make(x=np.zeros((3, 2, 1))).sha256,
        make(class_names=("right", "left")).sha256,
    }
    assert len(hashes) == 5


def test_take_keeps_order_and_provenance(digits):
    some = digits.take(np.array([9, 2, 9]))
    assert np.array_equal(some.x, digits.x[[9, 2, 9]])
    assert some.y.tolist() == digits.y[[9, 2, 9]].tolist()
    assert some.keys == (digits.keys[9], digits.keys[2], digits.keys[9])
    assert (some.source, some.class_names) == (digits.source, digits.class_names)


def test_arrays_are_read_only_but_the_callers_are_not():
    x = np.zeros((3, 2), np.float32)
    points = make(x=x)
    with pytest.raises(ValueError, match="read-only"):
        points.x[0] = 1
    x[0] = 1


def with_value(value):
    x = np.zeros((3, 2))
    x[1, 0] = value
    return x


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({"x": with_value(np.nan)}, ["`x`", "finite", "nan at index (1, 0)", "drop or impute"]),
        ({"x": with_value(1e300)}, ["`x`", "finite", "inf at index (1, 0)"]),
        ({"x": np.zeros((0, 2)), "y": []}, ["`x`", "empty", "shape (0, 2)", "at least one"]),
        ({"x": np.zeros(3)}, ["`x`", "(num_examples, …)", "shape (3,)", "add an axis"]),
        ({"x": [["a"], ["b"], ["c"]]}, ["`x`", "numeric", "dtype <U1", "convert"]),
        ({"x": np.zeros((2, 2))}, ["`x`", "one entry per example", "2 in `x`, 3 in `y`", "align"]),
        ({"y": [0, 1, 2]}, ["`y`", "0 … 1", "2 at index 2", "relabel"]),
        ({"y": [0, -1, 0]}, ["`y`", "0 … 1", "-1 at index 1"]),
        ({"y": [0, 0.5, 0]}, ["`y`", "integers", "0.5 at index 1"]),
        ({"y": np.eye(3)}, ["`y`", "shape (any)", "shape (3, 3)"]),
        ({"class_names": ()}, ["`class_names`", "non-empty", "()", "one name per class"]),
        ({"class_names": ("a", "a")}, ["`class_names`", "distinct", "('a', 'a')"]),
        ({"class_names": "ab"}, ["`class_names`", "sequence of strings", "'ab'"]),
    ],
)
def test_dataset_refuses(changes, parts):
    with pytest.raises(InputError) as error:
        make(**changes)
    assert all(part in str(error.value) for part in [*parts, "Received", "Fix"])


@pytest.mark.parametrize(
    ("indices", "parts"),
    [
        ([], ["`indices`", "empty"]),
        ([0, 3], ["`indices`", "0 … 2", "3 at index 1"]),
        ([-1], ["`indices`", "0 … 2", "-1 at index 0"]),
        ([True, False, True], ["`indices`", "integers", "bool", "flatnonzero"]),
        ([[0]], ["`indices`", "shape (any)"]),
    ],
)
def test_take_refuses(indices, parts):
    with pytest.raises(InputError) as error:
        make().take(indices)
    assert all(part in str(error.value) for part in parts)
