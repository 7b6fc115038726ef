"""Splits that hold when data grow, and orders that are functions of seed and epoch."""

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from bigmodel_utils._checks import InputError
from bigmodel_utils.data import count_overlap, make_tf_dataset, shuffle_batches, split_by_hash

FRACTIONS = {"train": 0.6, "validation": 0.2, "test": 0.2}
MANY_KEYS = [f"key {number}" for number in range(20_000)]

key_lists = st.lists(st.text(max_size=8), min_size=1, max_size=60)
shares = st.lists(st.integers(1, 9), min_size=1, max_size=4).map(
    lambda parts: {f"side {i}": part / sum(parts) for i, part in enumerate(parts)}
)


def split_at_random(keys, fractions, *, salt=""):
    """What many projects do, and what the properties below must catch."""
    order = np.random.default_rng(len(salt)).permutation(len(keys))
    edges = np.round(np.cumsum(list(fractions.values())) * len(keys)).astype(int)[:-1]
    return {
        name: np.sort(part) for name, part in zip(fractions, np.split(order, edges), strict=True)
    }


def sides_by_key(split, keys, fractions):
    found = {}
    for name, indices in split(keys, fractions).items():
        for index in indices:
            found.setdefault(keys[index], set()).add(name)
    return found


def check_growth_moves_nothing(split, keys, more, fractions):
    """Holds whether new examples are appended, or old and new are reversed."""
    before = sides_by_key(split, keys, fractions)
    for grown in (keys + more, (keys + more)[::-1]):
        after = sides_by_key(split, grown, fractions)
        assert all(after[key] == before[key] for key in keys)


def check_duplicates_stay_together(split, keys, fractions):
    assert all(len(sides) == 1 for sides in sides_by_key(split, keys * 2, fractions).values())


def check_covers_each_example_once(split, keys, fractions):
    sides = split(keys, fractions)
    assert list(sides) == list(fractions)
    assert all(np.array_equal(indices, np.sort(indices)) for indices in sides.values())
    assert sorted(np.concatenate(list(sides.values())).tolist()) == list(range(len(keys)))


@given(key_lists, key_lists, shares)
def test_growth_moves_nothing(keys, more, fractions):
    check_growth_moves_nothing(split_by_hash, keys, more, fractions)


@given(key_lists, shares)
def test_duplicates_stay_together_and_all_are_covered(keys, fractions):
    check_duplicates_stay_together(split_by_hash, keys, fractions)
    check_covers_each_example_once(split_by_hash, keys, fractions)


def test_random_split_fails_the_same_properties():
    keys = MANY_KEYS[:40]
    with pytest.raises(AssertionError):
        check_growth_moves_nothing(split_at_random, keys, ["one more"], FRACTIONS)
    with pytest.raises(AssertionError):
        check_duplicates_stay_together(split_at_random, keys, FRACTIONS)


@pytest.mark.parametrize("salt", ["", "second"])
def test_proportions_lie_within_binomial_bounds(salt):
    sides = split_by_hash(MANY_KEYS, FRACTIONS, salt=salt)
    for name, fraction in FRACTIONS.items():
        deviation = np.sqrt(len(MANY_KEYS) * fraction * (1 - fraction))
        assert abs(len(sides[name]) - len(MANY_KEYS) * fraction) < 4 * deviation


def test_salts_are_independent():
    first, second = (
        set(split_by_hash(MANY_KEYS, FRACTIONS, salt=salt)["train"].tolist()) for salt in "ab"
    )
    expected = len(MANY_KEYS) * 0.36
    assert abs(len(first & second) - expected) < 4 * np.sqrt(expected * 0.64)


def test_only_cumulative_edges_matter():
    coarse = split_by_hash(MANY_KEYS, {"train": 0.6, "rest": 0.4})
    fine = split_by_hash(MANY_KEYS, FRACTIONS)
    assert np.array_equal(coarse["train"], fine["train"])
    assert len(coarse["rest"]) == len(fine["validation"]) + len(fine["test"])


def test_split_is_pinned():
    """A change of the hash would silently move the examples of every reader."""
    sides = split_by_hash(MANY_KEYS[:12], FRACTIONS, salt="pinned")
    assert {name: indices.tolist() for name, indices in sides.items()} == {
        "train": [0, 1, 4, 7, 8],
        "validation": [3, 10, 11],
        "test": [2, 5, 6, 9],
    }


@pytest.mark.parametrize(
    ("keys", "fractions", "parts"),
    [
        (["a"], {"train": 0.6, "test": 0.6}, ["`fractions`", "sum to 1", "1.2", "Fix"]),
        (["a"], {}, ["`fractions`", "sum to 1", "0"]),
        (["a"], {"train": 1.5, "test": -0.5}, ["`fractions['train']`", "from 0 to 1", "1.5"]),
        (["a"], {"train": float("nan"), "test": 1}, ["`fractions['train']`", "nan"]),
        ([], {"all": 1}, ["`keys`", "empty", "Dataset.keys"]),
        ("abc", {"all": 1}, ["`keys`", "sequence of strings", "single string"]),
        (["a", 7], {"all": 1}, ["`keys`", "strings", "7 at index 1"]),
    ],
)
def test_split_refuses(keys, fractions, parts):
    with pytest.raises(InputError) as error:
        split_by_hash(keys, fractions)
    assert all(part in str(error.value) for part in parts)


@given(key_lists, key_lists)
def test_overlap_equals_brute_force(keys_a, keys_b):
    assert count_overlap(keys_a, keys_b) == sum(
        any(key == other for other in keys_a) for key in keys_b
    )


def test_overlap_refuses_empty_sides():
    for keys in ([], ["a"]), (["a"], []):
        with pytest.raises(InputError, match="must not be empty"):
            count_overlap(*keys)


def check_each_example_once(batches, num_examples, batch_size):
    assert sorted(np.concatenate(batches).tolist()) == list(range(num_examples))
    assert all(len(batch) == batch_size for batch in batches[:-1])
    assert 1 <= len(batches[-1]) <= batch_size


sizes = {"num_examples": st.integers(1, 200), "batch_size": st.integers(1, 70)}
seeds = {"seed": st.integers(0, 2**70), "epoch": st.integers(0, 10**6)}


@given(**sizes, **seeds)
def test_every_example_once_an_epoch(num_examples, batch_size, seed, epoch):
    arguments = {"batch_size": batch_size, "seed": seed, "epoch": epoch}
    batches = shuffle_batches(num_examples, **arguments)
    check_each_example_once(batches, num_examples, batch_size)
    if batch_size <= num_examples:
        full = shuffle_batches(num_examples, **arguments, keep_tail=False)
        assert len(full) == num_examples // batch_size
        assert all(np.array_equal(one, other) for one, other in zip(full, batches, strict=False))


def test_sampling_with_replacement_fails_the_same_property():
    order = np.random.default_rng(0).integers(0, 50, size=50)
    with pytest.raises(AssertionError):
        check_each_example_once(np.array_split(order, 5), 50, 10)


def order_of(seed, epoch, num_examples=100):
    batches = shuffle_batches(num_examples, batch_size=7, seed=seed, epoch=epoch)
    return np.concatenate(batches).tolist()


def test_order_depends_on_seed_and_epoch_alone():
    np.random.seed(1)  # noqa: NPY002
    first = order_of(0, 0)
    np.random.seed(2)  # noqa: NPY002
    assert order_of(0, 0) == first
    # 2**32 and 2**64 are where a seed spills into the word that an epoch could take.
    pairs = [(s, e) for s in (0, 1, 2**32, 2**32 + 1, 2**64) for e in (0, 1, 2)]
    assert len({tuple(order_of(*pair)) for pair in pairs}) == len(pairs)


def test_order_is_uniform():
    """Each of four orders of one example's place occurs a quarter of the time."""
    places = [order_of(0, epoch, num_examples=4).index(0) for epoch in range(4000)]
    counts = np.bincount(places, minlength=4)
    assert ((counts - 1000) ** 2 / 1000).sum() < 16.3  # chi-squared, 3 degrees, p = 0.001


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        ({"num_examples": 0}, ["`num_examples`", "at least 1"]),
        ({"batch_size": 0}, ["`batch_size`", "at least 1"]),
        ({"seed": -1}, ["`seed`", "at least 0"]),
        ({"epoch": 0.5}, ["`epoch`", "integer"]),
        (
            {"batch_size": 9, "keep_tail": False},
            ["`batch_size`", "tail", "9 for 8 examples", "smaller"],
        ),
    ],
)
def test_shuffle_refuses(arguments, parts):
    arguments = {"num_examples": 8, "batch_size": 2, "seed": 0, "epoch": 0} | arguments
    with pytest.raises(InputError) as error:
        shuffle_batches(**arguments)
    assert all(part in str(error.value) for part in parts)


@settings(max_examples=10, deadline=None)
@given(
    x=hnp.arrays(
        np.float32,
        st.tuples(st.integers(1, 20), st.just(3)),
        elements={"allow_nan": False, "allow_infinity": False},
    ),
    batch_size=st.integers(1, 8),
    num_epochs=st.integers(1, 3),
)
def test_tf_dataset_yields_the_batches_of_shuffle(x, batch_size, num_epochs):
    tensorflow = pytest.importorskip("tensorflow")
    y = np.arange(len(x))
    dataset = make_tf_dataset(x, y, batch_size=batch_size, seed=5, num_epochs=num_epochs)
    expected = [
        batch
        for epoch in range(num_epochs)
        for batch in shuffle_batches(len(x), batch_size=batch_size, seed=5, epoch=epoch)
    ]
    assert isinstance(dataset, tensorflow.data.Dataset)
    assert len(dataset) == len(expected)
    for _ in range(2):  # iterating again starts again
        found = list(dataset.as_numpy_iterator())
        assert all(
            np.array_equal(labels, batch) and np.array_equal(inputs, x[batch])
            for (inputs, labels), batch in zip(found, expected, strict=True)
        )


def test_tf_dataset_refuses_and_names_the_missing_extra(monkeypatch):
    with pytest.raises(InputError, match="3 in `x`, 2 in `y`"):
        make_tf_dataset(np.eye(3), [0, 1], batch_size=2, seed=0)
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    with pytest.raises(ImportError, match=r"bigmodel_utils\[tensorflow\]"):
        make_tf_dataset(np.eye(3), [0, 1, 2], batch_size=2, seed=0)


def test_import_is_light():
    code = (
        "import sys, bigmodel_utils.data\n"
        "print(sorted({'tensorflow', 'keras', 'sklearn', 'jax'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "[]"
