"""How far back a sequence model recalls: the task, the measurement, the bias that helps."""

import json

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bigmodel_utils import data, evaluation, models
from bigmodel_utils._checks import InputError
from bigmodel_utils.benchmark import estimate_proportion_interval

# The task


def find_distances(x, num_symbols):
    """Steps from the only symbol of each sequence to its end."""
    is_symbol = x[:, :, :num_symbols].sum(axis=2) > 0
    assert (is_symbol.sum(axis=1) == 1).all()
    return x.shape[1] - 1 - is_symbol.argmax(axis=1)


@settings(deadline=None)
@given(st.integers(1, 30), st.integers(0, 10), st.integers(2, 5), st.integers(0, 10**6))
def test_the_symbol_stands_where_it_is_said_to(distance, before, num_symbols, seed):
    x, y = data.make_recall_examples(
        20, distance=distance, length=distance + 1 + before, num_symbols=num_symbols, seed=seed
    )
    assert x.shape == (20, distance + 1 + before, 2 * num_symbols)
    assert (find_distances(x, num_symbols) == distance).all()
    assert (x[:, before, :num_symbols].argmax(axis=1) == y).all()
    assert not x[:, :before].any()
    assert (x[:, before:].sum(axis=2) == 1).all()


def test_twin_a_symbol_elsewhere_is_noticed():
    x, _ = data.make_recall_examples(20, distance=5, seed=0)
    with pytest.raises(AssertionError):
        assert (find_distances(np.roll(x, 1, axis=1), 2) == 5).all()


def test_fillers_tell_nothing_and_symbols_are_even():
    x, y = data.make_recall_examples(20_000, distance=3, seed=0)
    assert abs(y.mean() - 0.5) < 0.02
    fillers = x[:, 1:, 2]
    assert np.abs(np.corrcoef(fillers.T, y)[-1, :-1]).max() < 0.03
    twice, again = (data.make_recall_examples(9, distance=3, seed=s)[0] for s in (1, 2))
    assert (twice != again).any()


@pytest.mark.parametrize(
    "wrong",
    [
        {"num_examples": 0},
        {"distance": 0},
        {"num_symbols": 1},
        {"seed": -1},
        {"length": 4},
        {"length": 2.5},
    ],
)
def test_impossible_tasks_are_refused(wrong):
    good = {"num_examples": 3, "distance": 4}
    with pytest.raises(InputError, match=next(iter(wrong)) if wrong != {"length": 4} else "dist"):
        data.make_recall_examples(**{**good, **wrong})


# The measurement


def make(distance):
    return data.make_recall_examples(150, distance=distance, seed=distance)


def read_back(num_steps, num_symbols=2):
    """A perfect reader of the last steps, which guesses the first symbol otherwise."""

    def predict(x):
        seen = x[:, -num_steps - 1 :, :num_symbols].sum(axis=1)
        seen[seen.sum(axis=1) == 0, 0] = 1
        return seen

    return predict


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 40), st.sets(st.integers(1, 60), min_size=1, max_size=6))
def test_reach_of_a_reader_is_how_far_it_reads(num_steps, distances):
    tested = sorted(distances)
    recall = evaluation.measure_recall(read_back(num_steps), make, distances=tested)
    assert recall.find_reach(0.9) == max((d for d in tested if d <= num_steps), default=0)
    assert recall.num_examples == 150
    for distance, interval in recall.accuracy.items():
        guess = estimate_proportion_interval(int((make(distance)[1] == 0).sum()), 150)
        perfect = estimate_proportion_interval(150, 150)
        assert interval == (perfect if distance <= num_steps else guess)


def test_twin_a_reader_one_step_short_does_not_reach():
    assert evaluation.measure_recall(read_back(9), make, distances=[10]).find_reach(0.9) == 0


def test_reach_ends_at_the_first_distance_that_fails():
    """Right again farther away, as a state that oscillates is: that is no reach."""

    def predict(x):
        near, far = read_back(5)(x), read_back(60)(x)
        return far if x.shape[1] > 20 else near

    recall = evaluation.measure_recall(predict, make, distances=[5, 10, 40])
    assert recall.accuracy[40].value == 1
    assert recall.find_reach(0.9) == 5


def test_report_is_plain_data_and_readable():
    recall = evaluation.measure_recall(read_back(3), make, distances=[1, 9], confidence=0.9)
    assert json.loads(json.dumps(recall.to_dict()))["accuracy"]["1"]["confidence"] == 0.9
    assert str(recall).splitlines()[1].startswith("     1  100.0%")


@pytest.mark.parametrize("distances", [[], [3, 3], [4, 2], [0, 1], [1.5]])
def test_distances_must_rise(distances):
    with pytest.raises(InputError, match="distances"):
        evaluation.measure_recall(read_back(1), make, distances=distances)


def test_unequal_numbers_of_examples_are_refused():
    with pytest.raises(InputError, match="make_examples"):
        evaluation.measure_recall(
            read_back(1), lambda n: data.make_recall_examples(n, distance=n), distances=[2, 3]
        )


def test_a_bound_outside_its_range_is_refused():
    recall = evaluation.measure_recall(read_back(1), make, distances=[1])
    with pytest.raises(InputError, match="at_least"):
        recall.find_reach(1.5)


# The bias


def test_a_cell_that_nothing_moves_keeps_its_share():
    """Through Keras itself: no input, no recurrence, a cell that starts at one."""
    layer = keras.layers.LSTM(
        3,
        unit_forget_bias=False,
        bias_initializer=models.ForgetBias(50, kept=0.25),
        recurrent_initializer="zeros",
        return_state=True,
    )
    *_, cell = layer(
        np.zeros((1, 50, 2), "float32"), initial_state=[np.zeros((1, 3)), np.ones((1, 3))]
    )
    np.testing.assert_allclose(np.asarray(cell), 0.25, rtol=1e-5)


def test_twin_the_default_does_not():
    layer = keras.layers.LSTM(3, recurrent_initializer="zeros", return_state=True)
    *_, cell = layer(
        np.zeros((1, 50, 2), "float32"), initial_state=[np.zeros((1, 3)), np.ones((1, 3))]
    )
    assert np.asarray(cell).max() < 1e-5


def test_bias_survives_saving(tmp_path):
    layer = keras.layers.LSTM(
        4, unit_forget_bias=False, bias_initializer=models.ForgetBias(70, kept=0.5)
    )
    model = keras.Sequential([keras.Input((None, 2)), layer])
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras", compile=False)
    assert again.layers[0].bias_initializer.get_config() == {"distance": 70, "kept": 0.5}


@pytest.mark.parametrize("wrong", [{"distance": 0}, {"kept": 0.0}, {"kept": 1.0}, {"kept": 2}])
def test_impossible_biases_are_refused(wrong):
    with pytest.raises(InputError, match=next(iter(wrong))):
        models.ForgetBias(**{"distance": 10, **wrong})


@pytest.mark.parametrize("shape", [(6,), (2, 8)])
def test_bias_is_for_an_lstm_only(shape):
    with pytest.raises(InputError, match="shape"):
        models.ForgetBias(10)(shape)
