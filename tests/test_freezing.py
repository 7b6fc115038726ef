"""Frozen layers do not move, nor their statistics; stages resume bit for bit."""

from functools import partial

import keras
import numpy as np
import pytest
from keras import layers

from bigmodel_utils import training
from bigmodel_utils._checks import InputError
from bigmodel_utils.compression import freeze_layers, unfreeze_gradually

X = np.random.default_rng(0).normal(2, 3, (40, 5)).astype("float32")
Y = X[:, :1] * 2
DATA = (X, Y)
SETTINGS = training.TrainingSettings(2, batch_size=8, seed=0, precision="float32")


def build():
    model = keras.Sequential(
        [
            keras.Input((5,)),
            layers.Dense(6, name="first"),
            layers.BatchNormalization(name="norm"),
            layers.Dense(4, activation="relu", name="second"),
            layers.Dense(1, name="head"),
        ]
    )
    model.compile(keras.optimizers.Adam(0.01), "mse")
    return model


def find_moved(model, before):
    return {
        layer.name
        for layer in model.layers
        if layer.weights
        and any(
            (a != b).any() for a, b in zip(before[layer.name], layer.get_weights(), strict=True)
        )
    }


def train_and_find_moved(model):
    before = {layer.name: layer.get_weights() for layer in model.layers}
    model.fit(X, Y, verbose=0)
    return find_moved(model, before)


def test_frozen_layers_and_statistics_stay():
    model = build()
    frozen = freeze_layers(model, num_trainable=2)
    assert train_and_find_moved(frozen) == {"second", "head"}
    assert all(layer.trainable for layer in model.layers)
    assert train_and_find_moved(model) == {"first", "norm", "second", "head"}  # the twin


def test_filters_name_what_is_frozen():
    assert train_and_find_moved(freeze_layers(build(), filters=["norm", "second"])) == {
        "first",
        "head",
    }


def test_a_frozen_norm_runs_in_inference_mode():
    frozen = freeze_layers(build(), num_trainable=1)
    free = build()
    free.set_weights(frozen.get_weights())
    inference = keras.ops.convert_to_numpy(frozen(X))
    assert (keras.ops.convert_to_numpy(frozen(X, training=True)) == inference).all()
    assert (keras.ops.convert_to_numpy(free(X, training=True)) != inference).any()


def test_what_is_frozen_survives_a_file(tmp_path):
    frozen = freeze_layers(build(), num_trainable=1)
    frozen.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    assert [layer.trainable for layer in again.layers] == [False, False, False, True]
    assert (again.predict(X, verbose=0) == frozen.predict(X, verbose=0)).all()


def test_stages_go_on_where_they_stopped(tmp_path):
    run_stages = partial(
        unfreeze_gradually,
        build,
        DATA,
        validation_data=DATA,
        stages=(1, 2),
        settings=SETTINGS,
    )
    expected = run_stages()
    assert [len(run.model.trainable_weights) for run in expected] == [2, 4]
    assert find_moved(
        expected[1].model, {layer.name: layer.get_weights() for layer in expected[0].model.layers}
    ) == {"second", "head"}

    class Killed(Exception):
        pass

    calls = []

    def die():
        calls.append(1)
        if len(calls) == 2:
            raise Killed
        return build()

    checkpoints = training.CheckpointSettings(tmp_path, num_steps_between=4)
    with pytest.raises(Killed):
        unfreeze_gradually(
            die,
            DATA,
            validation_data=DATA,
            stages=(1, 2),
            settings=SETTINGS,
            checkpoints=checkpoints,
        )
    resumed = run_stages(checkpoints=checkpoints)
    for first, second in zip(expected, resumed, strict=True):
        pairs = zip(first.model.get_weights(), second.model.get_weights(), strict=True)
        assert all((a == b).all() for a, b in pairs)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("num_trainable", {}),
        ("num_trainable", {"num_trainable": 1, "filters": "head"}),
        ("num_trainable", {"num_trainable": 0}),
        ("num_trainable", {"num_trainable": 4}),
        ("filters", {"filters": "nothing"}),
        ("filters", {"filters": "."}),
    ],
)
def test_bad_input_is_refused(name, options):
    with pytest.raises(InputError) as caught:
        freeze_layers(build(), **options)
    assert caught.value.name == name


@pytest.mark.parametrize("stages", [(), (2, 1), (None, 1)])
def test_stages_only_grow(stages):
    with pytest.raises(InputError, match="stages"):
        unfreeze_gradually(build, DATA, validation_data=DATA, stages=stages)
