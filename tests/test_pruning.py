"""Weights set to nought: how many, which, that they stay, and that a stopped run goes on."""

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import layers

from bigmodel_utils import training
from bigmodel_utils._checks import InputError
from bigmodel_utils.compression import (
    PruningSchedule,
    _masks,
    hold_zeros,
    prune_magnitude,
    prune_while_training,
)
from bigmodel_utils.models import LanguageModelSettings, build_language_model
from bigmodel_utils.training import _loop

EXAMPLES = np.random.default_rng(0).normal(size=(64, 8)).astype("float32")
TARGETS = np.eye(3, dtype="float32")[np.argmax(EXAMPLES[:, :3], axis=1)]
IMAGES = np.random.default_rng(0).random((4, 8, 8, 3)).astype("float32")
SCHEDULE = PruningSchedule(0.75, num_times=3, num_steps_between=2, first_step=1)


def build(seed=0, optimizer="adam"):
    keras.utils.set_random_seed(seed)
    model = keras.Sequential(
        [
            keras.Input((8,)),
            layers.Dense(12, activation="relu", name="first"),
            layers.BatchNormalization(),
            layers.Dropout(0.2),
            layers.Dense(3, activation="softmax", name="last"),
        ]
    )
    model.compile(optimizer, "categorical_crossentropy", metrics=["accuracy"])
    return model


def build_convolutional():
    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            layers.Conv2D(8, 3, name="three_inputs"),
            layers.Conv2D(8, 3, name="eight_inputs"),
            layers.DepthwiseConv2D(3, name="depthwise"),
            layers.SeparableConv2D(4, 2, name="separable"),
            layers.Flatten(),
            layers.Dense(5, name="head"),
        ]
    )


def count_zeros(layer):
    return [int(np.sum(weight == 0)) for weight in layer.get_weights() if weight.ndim > 1]


def get_kernels(model):
    return [layer.get_weights()[0] for layer in model.layers if layer.name in ("first", "last")]


# At once.


def find_violations(before, after, share):
    """What a one-shot pruning must hold, checked by sorting in plain Python."""
    kept, dropped = np.abs(before)[after != 0], np.abs(before)[after == 0]
    violations = []
    if len(dropped) != min(round(share * before.size), before.size - 1):
        violations.append("count")
    if len(dropped) and max(dropped.tolist()) > min(kept.tolist()):
        violations.append("order")
    if not np.array_equal(before[after != 0], after[after != 0]):
        violations.append("values")
    return violations


shares = st.floats(0, 0.99)
shapes = st.lists(st.integers(1, 6), min_size=2, max_size=4)


@settings(max_examples=50, deadline=None)
@given(shape=shapes, share=shares, seed=st.integers(0, 99))
def test_the_smallest_weights_go_and_only_they(shape, share, seed):
    kernel = np.random.default_rng(seed).normal(size=shape).astype("float32")
    mask = _masks._choose_largest(kernel, share)
    assert find_violations(kernel, kernel * mask, share) == []


def test_the_property_above_sees_a_wrong_mask():
    kernel = np.arange(1.0, 13.0).reshape(3, 4)
    mask = _masks._choose_largest(kernel, 0.5)
    assert find_violations(kernel, kernel * ~mask, 0.5) == ["order"]
    assert find_violations(kernel, kernel * np.roll(mask, 1), 0.5) == ["order"]
    assert find_violations(kernel, 2 * kernel * mask, 0.5) == ["values"]
    assert find_violations(kernel, kernel * _masks._choose_largest(kernel, 0.6), 0.5) == ["count"]


def test_equal_weights_do_not_fall_together():
    assert _masks._choose_largest(np.ones((4, 4)), 0.25).sum() == 12
    assert _masks._choose_largest(np.ones((1, 1)), 0.9).all()


@pytest.mark.parametrize("scope", ["layer", "global"])
def test_a_model_has_the_share_asked_for(scope):
    model = build()
    weights = model.get_weights()
    result = prune_magnitude(model, EXAMPLES, sparsity=0.75, scope=scope)
    kernels = get_kernels(result.model)
    assert sum(int(np.sum(kernel == 0)) for kernel in kernels) == 0.75 * (96 + 36)
    if scope == "layer":
        assert [int(np.sum(kernel == 0)) for kernel in kernels] == [72, 27]
    else:
        before = np.concatenate([kernel.ravel() for kernel in get_kernels(model)])
        after = np.concatenate([kernel.ravel() for kernel in kernels])
        assert find_violations(before, after, 0.75) == []
    report = result.report
    assert report.before.num_nonzero - report.after.num_nonzero == 99
    assert report.after.num_parameters == report.before.num_parameters
    assert report.after.num_flops == report.before.num_flops
    assert all(map(np.array_equal, weights, model.get_weights()))
    assert type(result.model.optimizer) is type(model.optimizer)


def count_groups_that_are_wrong(kernel):
    """By loops: how many groups of four inputs do not hold exactly two weights."""
    wrong = 0
    for place in np.ndindex(kernel.shape[:-2]):
        for output in range(kernel.shape[-1]):
            column = kernel[place][:, output]
            for start in range(0, len(column), 4):
                wrong += sum(weight != 0 for weight in column[start : start + 4]) != 2
    return wrong


def test_two_of_every_four_inputs_stay_and_they_are_the_largest():
    model = build_convolutional()
    result = prune_magnitude(model, IMAGES, sparsity=0.5, pattern="2:4")
    assert set(result.report.left_out) == {"three_inputs", "depthwise", "separable"}
    assert "multiple of four" in result.report.left_out["three_inputs"]
    for name in ("eight_inputs", "head"):
        before, after = (m.get_layer(name).get_weights()[0] for m in (model, result.model))
        assert count_groups_that_are_wrong(after) == 0
        groups = np.moveaxis(before, -1, 0).reshape(-1, 4)
        pruned = np.moveaxis(after, -1, 0).reshape(-1, 4)
        for group, left in zip(groups, pruned, strict=True):
            assert set(np.abs(left[left != 0])) == set(sorted(np.abs(group))[2:])
        # The twin: half of the weights, but not by groups; groups of outputs, not of inputs.
        assert count_groups_that_are_wrong(before * _masks._choose_largest(before, 0.5)) > 0
        if before.ndim == 4:
            other = _masks._choose_two_of_four(before.swapaxes(-1, -2)).swapaxes(-1, -2)
            assert count_groups_that_are_wrong(before * other) > 0


def test_filters_choose_and_the_rest_is_named():
    model = build()
    for filters in ("first", ["^first$"], lambda layer: layer.name == "first"):
        result = prune_magnitude(model, EXAMPLES, sparsity=0.5, filters=filters)
        assert [count_zeros(result.model.get_layer(n)) for n in ("first", "last")] == [[48], [0]]
        assert result.report.left_out == {"last": "the filters do not match it"}


def test_every_kernel_is_found_and_the_embedding_is_named():
    result = prune_magnitude(build_convolutional(), IMAGES, sparsity=0.5)
    assert count_zeros(result.model.get_layer("separable")) == [16, 16]
    assert count_zeros(result.model.get_layer("depthwise")) == [36]
    settings = LanguageModelSettings(
        vocabulary_size=32,
        num_layers=1,
        width=8,
        num_heads=2,
        feedforward_width=12,
        context_length=10,
    )
    language = build_language_model(settings)
    report = prune_magnitude(language, np.zeros((1, 10), "int32"), sparsity=0.5).report
    assert list(report.left_out) == ["embedding"]


@pytest.mark.parametrize("pattern", ["unstructured", "2:4"])
def test_a_saved_model_has_its_zeros(pattern, tmp_path):
    result = prune_magnitude(build(), EXAMPLES, sparsity=0.5, pattern=pattern)
    result.model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    expected, received = (m.predict(EXAMPLES, verbose=0) for m in (result.model, loaded))
    assert np.array_equal(expected, received)
    assert [int(np.sum(kernel == 0)) for kernel in get_kernels(loaded)] == [48, 18]


# While the model trains.


def test_the_schedule_is_the_published_equation():
    for step in range(12):
        times = min(max(step - 1, 0) // 2, 3)
        expected = 0.75 - 0.75 * (1 - 2 * times / (3 * 2)) ** 3
        assert SCHEDULE.get_sparsity(step) == pytest.approx(expected)
    assert [step for step in range(12) if SCHEDULE.is_due(step)] == [1, 3, 5, 7]
    assert SCHEDULE.last_step == 7


@pytest.mark.parametrize("optimizer", ["adam", "sgd", "adamw"])
def test_zeros_grow_by_the_schedule_and_stay(optimizer):
    model = prune_while_training(build(optimizer=optimizer), SCHEDULE)
    before = [np.zeros_like(kernel, dtype=bool) for kernel in get_kernels(model)]
    for step in range(10):
        model.train_on_batch(EXAMPLES, TARGETS)
        zeros = [kernel == 0 for kernel in get_kernels(model)]
        share = SCHEDULE.get_sparsity(step)
        assert [int(z.sum()) for z in zeros] == [round(share * z.size) for z in zeros]
        assert all((new | ~old).all() for new, old in zip(zeros, before, strict=True))
        before = zeros


def test_zeros_do_not_stay_without_masks():
    pruned = prune_magnitude(build(), EXAMPLES, sparsity=0.75).model
    pruned.train_on_batch(EXAMPLES, TARGETS)
    assert sum(int(np.sum(kernel == 0)) for kernel in get_kernels(pruned)) < 50


@pytest.mark.parametrize("pattern", ["unstructured", "2:4"])
def test_zeros_are_held_and_the_rest_learns(pattern):
    pruned = prune_magnitude(build(), EXAMPLES, sparsity=0.5, pattern=pattern).model
    held = hold_zeros(pruned)
    held.fit(EXAMPLES, TARGETS, epochs=3, batch_size=16, verbose=0)
    for before, after in zip(get_kernels(pruned), get_kernels(held), strict=True):
        assert np.array_equal(before == 0, after == 0)
        assert not np.allclose(before, after)


def test_the_first_zeros_are_those_of_one_shot_pruning():
    model = build(optimizer=keras.optimizers.SGD(1e-12))
    schedule = PruningSchedule(0.6, num_times=1, num_steps_between=5, initial_sparsity=0.5)
    trained = prune_while_training(model, schedule)
    trained.train_on_batch(EXAMPLES, TARGETS)
    at_once = prune_magnitude(model, EXAMPLES, sparsity=0.5).model
    for one, other in zip(get_kernels(trained), get_kernels(at_once), strict=True):
        assert np.array_equal(one == 0, other == 0)


def test_the_model_passed_in_and_its_own_constraint_stay():
    model = build()
    kernel = model.get_layer("first").kernel
    weights, num_variables = model.get_weights(), len(model.optimizer.variables)
    copy = prune_while_training(model, SCHEDULE)
    copy.train_on_batch(EXAMPLES, TARGETS)
    assert all(map(np.array_equal, weights, model.get_weights()))
    assert kernel.constraint is None
    assert len(model.optimizer.variables) == num_variables

    model = keras.Sequential([keras.Input((8,)), layers.Dense(3, kernel_constraint="non_neg")])
    model.compile("sgd", "mse")
    held = hold_zeros(prune_magnitude(model, EXAMPLES, sparsity=0.5).model)
    held.train_on_batch(EXAMPLES, TARGETS)
    kernel = held.layers[0].get_weights()[0]
    assert (kernel >= 0).all()
    assert (kernel == 0).sum() >= 12


def test_a_file_of_a_model_in_training(tmp_path):
    model = prune_while_training(build(), SCHEDULE)
    for _ in range(4):
        model.train_on_batch(EXAMPLES, TARGETS)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras", compile=False)
    assert type(loaded) is type(model)
    expected, received = (m.predict(EXAMPLES, verbose=0) for m in (model, loaded))
    assert np.array_equal(expected, received)


# A run that was stopped.

SETTINGS = training.TrainingSettings(3, 8, seed=3, compile_mode="plain")


def build_for_training():
    return prune_while_training(build(), PruningSchedule(0.75, num_times=6, num_steps_between=2))


def train(build_model=build_for_training, directory=None):
    checkpoints = None
    if directory is not None:
        checkpoints = training.CheckpointSettings(directory, num_steps_between=5)
    return training.train(
        build_model,
        (EXAMPLES, TARGETS),
        validation_data=(EXAMPLES[:16], TARGETS[:16]),
        settings=SETTINGS,
        checkpoints=checkpoints,
    )


def measure_difference():
    return training.measure_resume_difference(
        build_for_training,
        (EXAMPLES, TARGETS),
        validation_data=(EXAMPLES[:16], TARGETS[:16]),
        settings=SETTINGS,
        num_steps=5,
    )


def test_a_resumed_run_has_the_weights_and_zeros_of_one_never_stopped(monkeypatch):
    assert measure_difference() == 0
    # The twin: masks that are lost with the process.
    list_variables = _loop._Loop.list_variables

    def list_less(loop):
        groups = list_variables(loop)
        return {name: [v for v in group if "mask" not in v.name] for name, group in groups.items()}

    monkeypatch.setattr(_loop._Loop, "list_variables", list_less)
    assert measure_difference() > 0


def test_a_run_of_another_schedule_is_not_resumed(tmp_path):
    train(directory=tmp_path)

    def build_other():
        return prune_while_training(build(), PruningSchedule(0.5, 6, 2))

    with pytest.raises(InputError, match="must belong to this run"):
        train(build_other, directory=tmp_path)


@pytest.mark.parametrize("compile_mode", ["plain", "xla"])
def test_training_ends_with_the_zeros_asked_for(compile_mode):
    if compile_mode == "xla" and keras.backend.backend() != "tensorflow":
        pytest.skip("JAX compiles with XLA always")
    run = training.train(
        build_for_training,
        (EXAMPLES, TARGETS),
        validation_data=(EXAMPLES[:16], TARGETS[:16]),
        settings=training.TrainingSettings(3, 8, seed=3, compile_mode=compile_mode),
    )
    shares = [float(np.mean(kernel == 0)) for kernel in get_kernels(run.model)]
    times = min((run.best_epoch * 8 + 7) // 2, 6)
    assert shares == pytest.approx([0.75 - 0.75 * (1 - times / 6) ** 3] * 2, abs=0.02)


# What is refused.


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"sparsity": 1.0}, "`sparsity` must be below 1"),
        ({"sparsity": -0.1}, "`sparsity`"),
        ({"sparsity": float("nan")}, "`sparsity`"),
        ({"sparsity": "half"}, "`sparsity`"),
        ({"sparsity": 0.4, "pattern": "2:4"}, "`sparsity` must fit the pattern"),
        ({"sparsity": 0.5, "pattern": "2:4", "scope": "global"}, "`scope` must fit the pattern"),
        ({"sparsity": 0.5, "pattern": "1:4"}, "`pattern` must be one of"),
        ({"sparsity": 0.5, "scope": "model"}, "`scope` must be one of"),
        ({"sparsity": 0.5, "filters": "no such layer"}, "`filters` must leave a layer"),
    ],
)
def test_bad_input_is_refused(options, words):
    model = build()
    weights = model.get_weights()
    with pytest.raises(InputError, match=words):
        prune_magnitude(model, EXAMPLES, **options)
    assert all(map(np.array_equal, weights, model.get_weights()))


def test_models_that_cannot_be_pruned_are_refused():
    model = keras.Sequential([keras.Input((8, 8, 3)), layers.Conv2D(2, 3)])
    with pytest.raises(InputError, match="no multiple of four"):
        prune_magnitude(model, IMAGES, sparsity=0.5, pattern="2:4")
    with pytest.raises(InputError, match="must be compiled"):
        hold_zeros(model)
    with pytest.raises(InputError, match="must be compiled"):
        prune_while_training(model, SCHEDULE)
    with pytest.raises(InputError, match="`schedule` must be a PruningSchedule"):
        prune_while_training(build(), 0.5)
    quantized = build()
    quantized.quantize("int8", filters="first")
    with pytest.raises(InputError, match="quantized"):
        prune_magnitude(quantized, EXAMPLES, sparsity=0.5)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"final_sparsity": 1.0}, "`final_sparsity`"),
        ({"final_sparsity": 0.5, "initial_sparsity": 0.6}, "`initial_sparsity` must be at most"),
        ({"num_times": 0}, "`num_times`"),
        ({"num_steps_between": 0}, "`num_steps_between`"),
        ({"first_step": -1}, "`first_step`"),
    ],
)
def test_schedules_that_make_no_sense_are_refused(options, words):
    with pytest.raises(InputError, match=words):
        PruningSchedule(
            **{"final_sparsity": 0.5, "num_times": 2, "num_steps_between": 2, **options}
        )
