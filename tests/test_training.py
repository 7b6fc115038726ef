"""The loop's promises, each with a run in which a broken promise would show."""

import keras
import numpy as np
import pytest

from bigmodel_utils import data, training
from bigmodel_utils._checks import InputError
from bigmodel_utils.training import NonFiniteLossError, TrainingSettings

GENERATOR = np.random.default_rng(0)
X = GENERATOR.normal(size=(70, 4)).astype("float32")
Y = np.eye(2, dtype="float32")[(X.sum(axis=1) > 0).astype(int)]
HELD_OUT = (X[:30], Y[:30])


def build(learning_rate=0.05):
    model = keras.Sequential(
        [
            keras.Input((4,)),
            keras.layers.Dense(8, activation="relu"),
            keras.layers.Dropout(0.3),
            keras.layers.Dense(2, activation="softmax"),
        ]
    )
    model.compile(
        keras.optimizers.Adam(learning_rate), "categorical_crossentropy", metrics=["accuracy"]
    )
    return model


def train(settings=None, **options):
    return training.train(build, (X, Y), validation_data=HELD_OUT, settings=settings, **options)


def test_the_loop_equals_an_independent_one_step_for_step():
    settings = TrainingSettings(num_epochs=2, batch_size=16, seed=3, precision="float32")
    final = []
    train(settings, on_epoch_end=lambda _, model: final.append(model.get_weights()))

    keras.utils.set_random_seed(3)
    model = build()
    for epoch in range(2):
        for batch in data.shuffle_batches(len(X), batch_size=16, seed=3, epoch=epoch):
            model.train_on_batch(X[batch], Y[batch])
    for ours, theirs in zip(final[-1], model.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_equal_seeds_give_equal_weights_and_other_seeds_do_not():
    settings = TrainingSettings(num_epochs=2, seed=5)
    assert (
        training.measure_seed_difference(build, (X, Y), validation_data=HELD_OUT, settings=settings)
        == 0
    )
    one, two = (train(TrainingSettings(num_epochs=2, seed=seed)).model for seed in (5, 6))
    assert np.abs(one.get_weights()[0] - two.get_weights()[0]).max() > 1e-3


def test_seed_difference_sees_a_builder_that_ignores_the_seed():
    drift = iter([0.0, 0.5])

    def build_drifting():
        model = build()
        weights = model.get_weights()
        model.set_weights([weights[0] + next(drift), *weights[1:]])
        return model

    settings = TrainingSettings(num_epochs=1)
    assert (
        training.measure_seed_difference(
            build_drifting, (X, Y), validation_data=HELD_OUT, settings=settings
        )
        > 0.1
    )


@pytest.mark.parametrize(("monitor", "best"), [("loss", min), ("accuracy", max)])
def test_the_model_kept_is_that_of_the_best_epoch(monitor, best):
    seen = []
    run = train(
        TrainingSettings(num_epochs=8, monitor=monitor, seed=1),
        on_epoch_end=lambda _, model: seen.append(model.get_weights()),
    )
    values = [epoch.validation[monitor] for epoch in run.epochs]
    assert run.best_epoch == values.index(best(values))
    for kept, wanted in zip(run.model.get_weights(), seen[run.best_epoch], strict=True):
        np.testing.assert_array_equal(kept, wanted)
    assert training.evaluate(run.model, HELD_OUT)[monitor] == pytest.approx(values[run.best_epoch])


def test_evaluation_counts_every_example_once_whatever_the_batches(monkeypatch):
    model = build()
    probabilities = np.asarray(model.predict_on_batch(X))
    by_hand = -np.log((probabilities * Y).sum(axis=1)).mean()
    monkeypatch.setattr(training._evaluate, "EVALUATION_BATCH_SIZE", 32)  # 32 + 32 + 6
    assert training.evaluate(model, (X, Y))["loss"] == pytest.approx(by_hand, rel=1e-5)
    # The twin: the mean over batches of unequal size is another number.
    halves = [-np.log((probabilities * Y)[i : i + 32].sum(axis=1)).mean() for i in (0, 32, 64)]
    assert np.mean(halves) != pytest.approx(by_hand, rel=1e-5)


def test_a_loss_that_is_not_finite_stops_the_run_and_gives_finite_weights_back():
    broken = X.copy()
    broken[::2] = np.finfo("float32").max
    started = []

    def build_watched():
        model = build()
        started.append(model.get_weights())
        return model

    with pytest.raises(NonFiniteLossError, match=r"`loss` .* Received: .* Fix: ") as caught:
        training.train(build_watched, (broken, Y), validation_data=HELD_OUT)
    assert (caught.value.batch % 2 == 0).any()
    assert training.count_nonfinite_weights(caught.value.model) == 0
    for kept, initial in zip(caught.value.model.get_weights(), started[0], strict=True):
        np.testing.assert_array_equal(kept, initial)
    # The twin: Keras' own loop goes on and loses the weights.
    plain = build()
    plain.fit(broken, Y, verbose=0)
    assert training.count_nonfinite_weights(plain) > 0


def test_weights_that_blow_up_in_the_last_step_are_noticed():
    # The loss of a step is that before its update: only the weights show the last one.
    def build_explosive():
        model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
        model.compile(keras.optimizers.SGD(3e38), "mse")
        return model

    with pytest.raises(NonFiniteLossError):
        training.train(
            build_explosive,
            (X * 100, Y),
            validation_data=HELD_OUT,
            settings=TrainingSettings(num_epochs=1, batch_size=70),
        )


def test_precision_is_applied_while_building_and_restored_after():
    run = train(TrainingSettings(num_epochs=1, precision="mixed_bfloat16"))
    assert run.model.layers[0].compute_dtype == "bfloat16"
    assert run.precision == "mixed_bfloat16"
    assert keras.config.dtype_policy().name == "float32"


def test_auto_precision_is_full_on_a_cpu():
    run = train(TrainingSettings(num_epochs=1))
    if "GPU" not in run.device:
        assert run.precision == "float32"


def test_the_report_is_plain_data():
    report = train(TrainingSettings(num_epochs=2)).to_dict()
    assert report["settings"]["num_epochs"] == len(report["epochs"]) == 2
    assert report["examples_per_second"] > 0
    assert "model" not in report


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda: TrainingSettings(num_epochs=0), "num_epochs"),
        (lambda: TrainingSettings(batch_size=2.5), "batch_size"),
        (lambda: TrainingSettings(precision="float7"), "precision"),
        (lambda: train(TrainingSettings(num_epochs=1, monitor="beauty")), "monitor"),
        (lambda: training.train(build, X, validation_data=HELD_OUT), "training_data"),
        (
            lambda: training.train(build, (X, Y[:3]), validation_data=HELD_OUT),
            r"training_data\[0\]",
        ),
        (
            lambda: training.train(build, (X * np.nan, Y), validation_data=HELD_OUT),
            r"training_data\[0\]",
        ),
        (
            lambda: training.train(build, (X, Y), validation_data=(X[:0], Y[:0])),
            r"validation_data\[0\]",
        ),
    ],
)
def test_bad_input_gets_one_clear_error(call, name):
    with pytest.raises(InputError, match=rf"`{name}` .* Received: .* Fix: "):
        call()
