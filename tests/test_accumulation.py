"""Does a run by parts take the update of the whole batch, and would we notice if not."""

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import layers

from bigmodel_utils import training
from bigmodel_utils._checks import InputError

schedules = keras.optimizers.schedules
few_examples = settings(max_examples=6, deadline=None)
seeds = st.integers(0, 2**32 - 1)
sizes = st.integers(1, 4)


def draw(seed, num_examples, width=3):
    generator = np.random.default_rng(seed)
    x = generator.normal(size=(num_examples, width)).astype("float32")
    return x, generator.normal(size=(num_examples, 2)).astype("float32")


def compile_model(model_layers, num_parts, optimizer=keras.optimizers.SGD, **options):
    accumulated = {"gradient_accumulation_steps": num_parts} if num_parts > 1 else {}
    options = {"learning_rate": 0.3} | options
    model = keras.Sequential([keras.Input((3,)), *model_layers, layers.Dense(2)])
    model.compile(optimizer(**options, **accumulated), "mse", run_eagerly=is_eager())
    return model


def is_eager():
    """A few steps cost less than compiling them, except on JAX."""
    return keras.backend.backend() == "tensorflow"


def build_plain(num_parts, **options):
    return compile_model([layers.Dense(4, activation="tanh")], num_parts, **options)


@few_examples
@given(seeds, sizes, st.integers(2, 4), sizes)
def test_parts_make_up_the_whole(seed, size, num_parts, num_updates):
    data = draw(seed, size * num_parts * num_updates)
    difference = training.measure_accumulation_difference(
        build_plain, data, num_parts=num_parts, num_updates=num_updates, seed=seed
    )
    assert difference < 1e-5


def measure(build, num_updates=1):
    return training.measure_accumulation_difference(
        build, draw(0, 16 * num_updates), num_parts=4, num_updates=num_updates
    )


def build_normalized(num_parts):
    return compile_model([layers.Dense(4), layers.BatchNormalization()], num_parts)


def build_impatient(num_parts):
    """Takes an update after every part."""
    del num_parts
    return build_plain(1)


def build_never(num_parts):
    """Waits for more parts than there are."""
    return build_plain(2 * num_parts if num_parts > 1 else 1)


def build_summing(num_parts):
    """Adds the parts up and forgets to divide: the rate is as many times too large."""
    return build_plain(num_parts, learning_rate=0.3 * num_parts)


def build_scheduled(num_parts):
    """Its schedule counts parts."""
    return build_plain(num_parts, learning_rate=schedules.ExponentialDecay(0.3, 1, 0.5))


@pytest.mark.parametrize(
    "build", [build_normalized, build_impatient, build_never, build_summing, build_scheduled]
)
def test_what_does_not_make_up_the_whole_is_found(build):
    """The twins of the property: each breaks one thing that it needs."""
    assert measure(build, num_updates=2) > 0.05


@pytest.mark.parametrize(
    "options",
    [
        {"momentum": 0.9, "global_clipnorm": 0.1},
        {"optimizer": keras.optimizers.Adam, "learning_rate": 0.01},
        {"optimizer": keras.optimizers.AdamW, "learning_rate": 0.01, "weight_decay": 0.1},
    ],
)
def test_what_counts_updates_makes_up_the_whole(options):
    assert measure(lambda num_parts: build_plain(num_parts, **options), num_updates=3) < 1e-4


def test_loss_scaling_makes_up_the_whole():
    def build(num_parts):
        model = build_plain(num_parts)
        scaled = keras.optimizers.LossScaleOptimizer(model.optimizer, initial_scale=1024.0)
        model.compile(scaled, "mse", run_eagerly=is_eager())
        return model

    assert measure(build, num_updates=2) < 1e-5


def test_a_schedule_by_update_makes_up_the_whole():
    def build(num_parts):
        halving = schedules.ExponentialDecay(0.3, 1, 0.5)
        return build_plain(num_parts, learning_rate=training.UpdateSchedule(halving, num_parts))

    assert measure(build, num_updates=3) < 1e-5


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 9), st.integers(0, 200))
def test_schedule_by_update_is_that_of_the_update(num_parts, part):
    cosine = schedules.CosineDecay(0.0, 10, warmup_target=1.0, warmup_steps=3)
    found = training.UpdateSchedule(cosine, num_parts)(part)
    assert float(found) == float(cosine(part // num_parts))


def test_schedule_survives_saving():
    schedule = training.UpdateSchedule(schedules.ExponentialDecay(0.3, 2, 0.5), 4)
    again = schedules.deserialize(schedules.serialize(schedule))
    assert [float(again(t)) for t in range(20)] == [float(schedule(t)) for t in range(20)]
    optimizer = keras.optimizers.SGD(schedule, gradient_accumulation_steps=4)
    kept = keras.optimizers.SGD.from_config(optimizer.get_config())
    assert kept.get_config() == optimizer.get_config()


def test_a_rate_of_nought_is_refused():
    still = schedules.CosineDecay(0.0, 10, warmup_target=1.0, warmup_steps=3)
    with pytest.raises(InputError, match=r"`num_updates` must be enough .* Fix: "):
        measure(lambda num_parts: build_plain(num_parts, learning_rate=still))


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"num_parts": 1}, "num_parts"),
        ({"num_parts": 2.0}, "num_parts"),
        ({"num_parts": 5}, "data"),
        ({"num_updates": 0}, "num_updates"),
        ({"num_updates": 3}, "data"),
        ({"data": draw(0, 16)[0]}, "data"),
        ({"data": (np.full((8, 3), np.nan), np.ones((8, 2)))}, r"data\[0\]"),
    ],
)
def test_bad_input_is_refused(changes, name):
    arguments = {"data": draw(0, 8), "num_parts": 2} | changes
    with pytest.raises(InputError, match=rf"`{name}` .* Received: .* Fix: "):
        training.measure_accumulation_difference(build_plain, **arguments)


@pytest.mark.parametrize("schedule", [0.1, None, "cosine"])
def test_what_is_no_schedule_is_refused(schedule):
    with pytest.raises(InputError, match=r"`schedule` .* Received: .* Fix: "):
        training.UpdateSchedule(schedule, 2)


def test_a_bad_number_of_parts_is_refused():
    with pytest.raises(InputError, match="`num_parts` "):
        training.UpdateSchedule(schedules.ExponentialDecay(0.3, 2, 0.5), 0)
