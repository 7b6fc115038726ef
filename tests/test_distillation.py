"""Distillation: the loss in closed form, the teacher left alone, runs that resume."""

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import layers, ops
from keras.distillation import LogitsDistillation

from bigmodel_utils import generation, models, training
from bigmodel_utils._checks import InputError
from bigmodel_utils.compression import (
    build_distiller,
    compute_soft_loss,
    find_output_kind,
    write_examples,
)

some_examples = settings(max_examples=20, deadline=None)
seeds = st.integers(0, 2**32 - 1)
temperatures = st.floats(0.5, 8)
shapes = st.tuples(st.integers(1, 4), st.integers(1, 3), st.integers(2, 12))

RNG = np.random.default_rng(0)
IMAGES = RNG.normal(size=(24, 4, 4, 2)).astype("float32")
CLASSES = RNG.integers(0, 3, 24)
ONE_HOT = np.eye(3, dtype="float32")[CLASSES]


def build(width=4, *, last="softmax", dropout=0.0, seed=0):
    keras.utils.set_random_seed(seed)
    model = keras.Sequential(
        [
            keras.Input((4, 4, 2)),
            layers.Conv2D(width, 3, padding="same", activation="relu", name="features"),
            layers.BatchNormalization(name="normalization"),
            layers.Dropout(dropout),
            layers.Flatten(),
            layers.Dense(3, activation=last, name="classes"),
        ]
    )
    loss = keras.losses.CategoricalCrossentropy(from_logits=last != "softmax")
    model.compile(keras.optimizers.SGD(0.1), loss, metrics=["accuracy"])
    return model


def build_language_model(width=8, seed=0):
    keras.utils.set_random_seed(seed)
    architecture = models.LanguageModelSettings(
        vocabulary_size=30,
        num_layers=1,
        width=width,
        num_heads=2,
        feedforward_width=12,
        context_length=12,
    )
    return models.build_language_model(architecture)


def read(tensor):
    return np.asarray(ops.convert_to_numpy(tensor), dtype=np.float64)


def softmax(scores):
    powers = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


def diverge(target, scores, temperature):
    """The loss as its equation is printed, in float64."""
    p, q = softmax(target / temperature), softmax(scores / temperature)
    return temperature**2 * (p * np.log(p / q)).sum(axis=-1).mean()


def slope(loss, target, scores, temperature):
    """Central differences of a loss of float64 arrays."""
    found = np.zeros_like(scores)
    for place in np.ndindex(scores.shape):
        ends = []
        for sign in (1, -1):
            moved = scores.copy()
            moved[place] += sign * 1e-4
            ends.append(loss(target, moved, temperature))
        found[place] = (ends[0] - ends[1]) / 2e-4
    return found


# The loss: its equation, what it is for equal answers, its slope at a high temperature.


def our_loss(target, scores, temperature):
    arrays = (target.astype("float32"), scores.astype("float32"))
    return float(compute_soft_loss(*arrays, temperature=temperature))


def keras_default(target, scores, temperature):
    arrays = (target.astype("float32"), scores.astype("float32"))
    return float(LogitsDistillation(temperature).compute_loss(*arrays))


def check_divergence(loss, seed, shape, temperature):
    target, scores = np.random.default_rng(seed).normal(size=(2, *shape)) * 3
    same = loss(target, target + 1.5, temperature)  # other scores, the same probabilities
    assert abs(same) <= 1e-5 * (1 + temperature**2)
    assert loss(target, scores, temperature) >= -1e-5
    expected = diverge(target, scores, temperature)
    # Rounding is relative to the terms that are added up.
    assert abs(loss(target, scores, temperature) - expected) <= 1e-5 * (expected + temperature**2)


@some_examples
@given(seeds, shapes, temperatures)
def test_the_loss_is_the_divergence(seed, shape, temperature):
    check_divergence(our_loss, seed, shape, temperature)


def without_square(target, scores, temperature):
    return our_loss(target, scores, temperature) / temperature**2


def other_way_round(target, scores, temperature):
    return our_loss(scores, target, temperature)


@pytest.mark.parametrize("wrong", [keras_default, without_square, other_way_round])
def test_the_loss_twin(wrong):
    with pytest.raises(AssertionError):
        check_divergence(wrong, 1, (4, 2, 10), 3.0)


def test_the_default_of_keras_falls_below_the_loss_of_a_perfect_copy():
    """Were the default repaired, the page would have to be rewritten: this would fail."""
    target = np.random.default_rng(0).normal(size=(8, 10)) * 3
    # A constant more on all scores of an example: the same probabilities.
    assert keras_default(target, target + 2, 3.0) < -0.1
    assert our_loss(target, target + 2, 3.0) == pytest.approx(0, abs=1e-5)
    fall = training.measure_loss_fall(lambda t, s: keras_default(t, s, 3.0), target)
    assert fall > 1e-2
    assert training.measure_loss_fall(lambda t, s: our_loss(t, s, 3.0), target) <= 1e-6


def check_high_temperature(loss, temperature):
    """Hinton et al. (2015), equation 4: the slope of the softened loss, times the square."""
    target, scores = np.random.default_rng(2).normal(size=(2, 1, 6))
    target -= target.mean(axis=-1, keepdims=True)
    scores -= scores.mean(axis=-1, keepdims=True)
    found = slope(loss, target, scores, temperature)
    assert np.allclose(found, (scores - target) / 6, rtol=0.05, atol=1e-3)


def test_slope_at_a_high_temperature():
    check_high_temperature(diverge, 100.0)
    with pytest.raises(AssertionError):
        check_high_temperature(lambda t, s, T: diverge(t, s, T) / T**2, 100.0)
    with pytest.raises(AssertionError):
        check_high_temperature(diverge, 1.0)


@some_examples
@given(seeds, temperatures)
def test_one_step_moves_the_scores_by_the_printed_slope(seed, temperature):
    """A student without inputs' help: its bias is its logits, and SGD shows their slope."""
    target, scores = np.random.default_rng(seed).normal(size=(2, 5)).astype("float32")
    teacher, student = (build_constant(each) for each in (target, scores))
    distiller = build_distiller(teacher, student, temperature=temperature, label_share=0)
    distiller.train_on_batch(np.zeros((2, 1), "float32"), np.zeros(2, "int32"))
    moved = scores - read(distiller.student.layers[-1].bias)
    expected = temperature * (softmax(scores / temperature) - softmax(target / temperature))
    assert np.abs(moved - expected).max() <= 1e-5 * max(1, temperature)


def build_constant(bias):
    model = keras.Sequential([keras.Input((1,)), layers.Dense(len(bias))])
    model.compile(
        keras.optimizers.SGD(1.0), keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    )
    model.layers[0].bias.assign(bias)
    return model


# Against Keras' own distiller, where that is right.


@pytest.mark.parametrize("label_share", [0.25, 0.75])
def test_one_step_equals_that_of_keras_with_the_object_as_loss(label_share):
    teacher = build(6, last="linear", seed=1)
    ours = build_distiller(teacher, build(last="linear"), temperature=3.0, label_share=label_share)
    peer = keras.distillation.Distiller(
        build(6, last="linear", seed=1),
        build(last="linear"),
        LogitsDistillation(3.0, loss=keras.losses.KLDivergence()),
        student_loss_weight=label_share,
    )
    peer.compile(keras.optimizers.SGD(0.1), keras.losses.CategoricalCrossentropy(from_logits=True))
    for distiller in (ours, peer):
        distiller.train_on_batch(IMAGES, ONE_HOT)
    for one, two in zip(ours.student.weights, peer.student.weights, strict=True):
        assert np.allclose(read(one), read(two), atol=1e-5)


def test_labels_alone_are_plain_training():
    plain, teacher = build(), build(6, seed=1)
    distiller = build_distiller(teacher, plain, label_share=1.0)
    logs = [each.train_on_batch(IMAGES, ONE_HOT, return_dict=True) for each in (plain, distiller)]
    assert np.isclose(logs[0]["loss"], logs[1]["loss"], rtol=1e-6)
    for one, two in zip(plain.weights, distiller.student.weights, strict=True):
        assert np.allclose(read(one), read(two), atol=1e-6)


def test_what_regularizes_the_student_is_added_whole():
    student = keras.Sequential(
        [keras.Input((3,)), layers.Dense(2, kernel_regularizer=keras.regularizers.L2(1.0))]
    )
    student.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    distiller = build_distiller(student, student, label_share=0.0)
    loss = distiller.test_on_batch(np.ones((2, 3)), np.zeros(2), return_dict=True)["loss"]
    assert loss == pytest.approx((read(student.layers[0].kernel) ** 2).sum(), rel=1e-5)


# Logits and probabilities.


def test_probabilities_give_the_loss_of_their_logits():
    losses = []
    for lasts in (("softmax", "softmax"), ("linear", "softmax"), ("linear", "linear")):
        pair = build(6, last=lasts[0], seed=1), build(last=lasts[1])
        distiller = build_distiller(*pair, temperature=2.0, label_share=0.0)
        kinds = ["probabilities" if last == "softmax" else "logits" for last in lasts]
        assert distiller.settings["output_kinds"] == kinds
        losses.append(distiller.test_on_batch(IMAGES, ONE_HOT, return_dict=True)["loss"])
    assert np.allclose(losses, losses[0], rtol=1e-4)
    wrong = build_distiller(*pair, temperature=2.0, label_share=0.0, output_kind="probabilities")
    found = wrong.test_on_batch(IMAGES, ONE_HOT, return_dict=True)["loss"]
    assert not np.isclose(found, losses[0], rtol=1e-2)


def test_kind_of_an_output():
    assert find_output_kind(build()) == "probabilities"
    assert find_output_kind(build(last="linear")) == "logits"
    assert find_output_kind(build_language_model()) == "logits"
    inner = build()
    assert find_output_kind(keras.Sequential([keras.Input((4, 4, 2)), inner])) == "probabilities"
    with pytest.raises(InputError, match="output_kind"):
        find_output_kind(build(last="sigmoid"))


# The teacher is outside.


def test_neither_model_passed_in_changes():
    teacher, student = build(6, dropout=0.5, seed=1), build()
    before = [model.get_weights() for model in (teacher, student)]
    flags = [layer.trainable for layer in teacher.layers]
    distiller = build_distiller(teacher, student, hints={"features": "features"})
    distiller.fit(IMAGES, ONE_HOT, epochs=2, verbose=0)
    for model, weights in zip((teacher, student), before, strict=True):
        assert all(np.array_equal(*p) for p in zip(weights, model.get_weights(), strict=True))
        assert model.compiled
    assert [layer.trainable for layer in teacher.layers] == flags
    assert any(
        not np.array_equal(*pair)
        for pair in zip(before[1], distiller.student.get_weights(), strict=True)
    )


def test_dropout_of_the_teacher_is_off_and_that_of_the_student_on():
    def measure(teacher_dropout, student_dropout):
        distiller = build_distiller(
            build(6, dropout=teacher_dropout, seed=1),
            build(dropout=student_dropout),
            label_share=0.0,
        )
        return {
            float(distiller.compute_loss(IMAGES, ONE_HOT, distiller(IMAGES, training=True)))
            for _ in range(3)
        }

    assert len(measure(0.5, 0.0)) == 1
    assert len(measure(0.0, 0.5)) == 3


def test_evaluation_leaves_the_averages_of_the_student_alone():
    """Keras' distiller, with features to imitate, moves them while it evaluates."""
    hints = {"features": "features"}
    ours = build_distiller(build(seed=1), build(), hints=hints)
    before = ours.get_weights()
    ours.evaluate(IMAGES, ONE_HOT, verbose=0)
    assert all(np.array_equal(*pair) for pair in zip(before, ours.get_weights(), strict=True))


def test_no_checkpoint_holds_the_teacher():
    teacher, student = build(64, seed=1), build()
    distiller = build_distiller(teacher, student, hints={"features": "features"})
    names = [variable.shape for variable in distiller.variables]
    assert len(names) == len(student.variables) + 1
    projection = distiller.projections[0].kernel
    assert tuple(projection.shape) == (4, 64)
    assert any(variable is projection for variable in distiller.trainable_variables)


SETTINGS = training.TrainingSettings(2, 8, precision="float32", monitor="accuracy")


def test_a_run_that_was_killed_goes_on_exactly():
    teacher = build(6, seed=1)

    def build_pair():
        student = build(dropout=0.3, seed=training.TrainingSettings().seed)
        return build_distiller(teacher, student, hints={"features": "features"})

    data = IMAGES, ONE_HOT
    difference = training.measure_resume_difference(
        build_pair, data, validation_data=data, settings=SETTINGS, num_steps=4
    )
    assert difference == 0


def test_a_run_does_not_go_on_with_another_teacher(tmp_path):
    data, checkpoints = (IMAGES, ONE_HOT), training.CheckpointSettings(tmp_path, 2)

    def run(teacher_seed, temperature=2.0):
        teacher = build(6, seed=teacher_seed)
        return training.train(
            lambda: build_distiller(teacher, build(), temperature=temperature),
            data,
            validation_data=data,
            settings=SETTINGS,
            checkpoints=checkpoints,
        )

    run(1)
    assert run(1).resumed_from_step == 6
    for other in ({"teacher_seed": 2}, {"teacher_seed": 1, "temperature": 4.0}):
        with pytest.raises(InputError, match="checkpoints"):
            run(**other)


# What is trained, and what comes out.


def test_the_student_comes_out_compiled_and_alone(tmp_path):
    distiller = build_distiller(build(6, seed=1), build(), hints={"features": "features"})
    distiller.fit(IMAGES, ONE_HOT, verbose=0)
    student = distiller.copy_student()
    assert len(student.variables) == len(build().variables)
    assert np.array_equal(read(student(IMAGES)), read(distiller(IMAGES)))
    labels = student.evaluate(IMAGES, ONE_HOT, verbose=0, return_dict=True)
    expected = -np.log((read(student(IMAGES)) * ONE_HOT).sum(axis=-1)).mean()
    assert labels["loss"] == pytest.approx(expected, rel=1e-5)
    student.save(tmp_path / "student.keras")
    loaded = keras.models.load_model(tmp_path / "student.keras")
    assert np.array_equal(read(loaded(IMAGES)), read(student(IMAGES)))


def test_a_saved_distiller_is_the_same_again(tmp_path):
    distiller = build_distiller(build(6, seed=1), build(), hints={"features": "features"})
    distiller.fit(IMAGES, ONE_HOT, verbose=0)
    distiller.save(tmp_path / "distiller.keras")
    loaded = keras.models.load_model(tmp_path / "distiller.keras")
    assert np.array_equal(read(loaded(IMAGES)), read(distiller(IMAGES)))
    assert loaded.fixed_parts == distiller.fixed_parts
    logs = [each.test_on_batch(IMAGES, ONE_HOT, return_dict=True) for each in (distiller, loaded)]
    assert logs[0] == logs[1]


@pytest.mark.parametrize("is_sparse", [False, True])
def test_an_example_without_a_label_has_neither_loss_nor_slope_by_labels(is_sparse):
    """The same as a batch of those with a label, for a loss that is divided by the batch."""
    teacher, student = build(6, seed=1), build()
    loss = keras.losses.SparseCategoricalCrossentropy() if is_sparse else student.loss
    student.compile(keras.optimizers.SGD(0.1), loss)
    missing, labels = (-1, CLASSES) if is_sparse else (np.zeros(3, "float32"), ONE_HOT)
    some = labels.copy()
    some[8:] = missing
    none = np.full_like(labels, missing) if is_sparse else np.zeros_like(labels)
    found = {}
    for name, given_labels in (("some", some), ("none", none)):
        distiller = build_distiller(teacher, student, label_share=0.5)
        logs = distiller.train_on_batch(IMAGES, given_labels, return_dict=True)
        found[name] = logs["loss"], read(distiller.student.layers[-1].kernel)
    outputs = read(keras.Model(student.inputs[0], student.outputs[0])(IMAGES, training=True))
    by_labels = -np.log((outputs[:8] * ONE_HOT[:8]).sum(axis=-1)).sum() / 24
    assert found["some"][0] - found["none"][0] == pytest.approx(0.5 * by_labels, rel=1e-3)
    # Without any label, what is trained is what a teacher alone trains, at half the rate.
    alone = build_distiller(teacher, student, label_share=0.0)
    before = read(alone.student.layers[-1].kernel)
    alone.train_on_batch(IMAGES, labels)
    expected = (read(alone.student.layers[-1].kernel) - before) / 2
    assert np.allclose(found["none"][1] - before, expected, atol=1e-6)


def test_hints_are_the_printed_mean_square():
    teacher, student = build(6, seed=1), build()
    losses = [
        build_distiller(teacher, student, label_share=0.0, hints=hints)
        for hints in ({}, {"features": "features"})
    ]
    apart = [each.test_on_batch(IMAGES, ONE_HOT, return_dict=True)["loss"] for each in losses]
    features = [
        read(keras.Model(model.inputs[0], model.get_layer("features").output)(IMAGES))
        for model in (teacher, student)
    ]
    projected = features[1] @ read(losses[1].projections[0].kernel)
    expected = ((features[0] - projected) ** 2).mean()
    assert apart[1] - apart[0] == pytest.approx(expected, rel=1e-4)
    equal = build_distiller(build(seed=1), student, hints={"features": "features"})
    assert len(equal.variables) == len(student.variables)


def test_a_student_of_the_language_model_comes_closer():
    teacher = build_language_model(16, seed=1)
    tokens = np.random.default_rng(0).integers(0, 30, (64, 12)).astype("int32")
    data = tokens, np.roll(tokens, -1, axis=1)
    # A trained teacher has something to say.
    teacher.optimizer.learning_rate.assign(0.02)
    teacher.fit(*data, epochs=15, verbose=0)
    run = training.train(
        lambda: build_distiller(teacher, build_language_model(), temperature=1, label_share=0.0),
        data,
        validation_data=data,
        settings=training.TrainingSettings(6, 8, precision="float32", compile_mode="xla"),
    )
    losses = [epoch.validation["loss"] for epoch in run.epochs]
    assert 0 < losses[-1] < 0.98 * losses[0]
    assert generation.generate(run.model.copy_student(), [1], num_tokens=3)


def test_a_teacher_writes_what_it_finds_most_probable():
    teacher = build_language_model(16, seed=1)
    # Untrained, it would say the last token again and again.
    weights = [RNG.normal(size=w.shape).astype("float32") for w in teacher.get_weights()]
    teacher.set_weights(weights)
    greedy = generation.SamplingSettings(temperature=0)
    x, y = write_examples(teacher, [[3, 1], [4, 1]], num_tokens=6, sampling=greedy)
    assert x.shape == y.shape == (2, 7)
    assert x.dtype == np.int32
    assert np.array_equal(x[:, :2], [[3, 1], [4, 1]])
    assert np.array_equal(x[:, 1:], y[:, :-1])
    logits = read(teacher(x))
    assert np.array_equal(logits[:, 1:].argmax(axis=-1), y[:, 1:])
    twin = np.roll(y, 1, axis=0)
    assert not np.array_equal(logits[:, 1:].argmax(axis=-1), twin[:, 1:])


def test_texts_repeat_by_their_seed_and_differ_among_each_other():
    teacher = build_language_model()
    first, again, other = (
        write_examples(teacher, [[1], [1]], num_tokens=8, seed=seed)[1] for seed in (0, 0, 1)
    )
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    assert not np.array_equal(first[0], first[1])


# What cannot be done is refused, and nothing is changed.


def uncompiled():
    return keras.Sequential([keras.Input((4, 4, 2)), layers.Flatten(), layers.Dense(3)])


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("temperature", {"temperature": 0}),
        ("temperature", {"temperature": float("nan")}),
        ("label_share", {"label_share": 1.5}),
        ("output_kind", {"output_kind": "scores"}),
        ("teacher", {"teacher": "model"}),
        ("teacher", {"teacher": keras.Sequential([layers.Dense(3)])}),
        ("student", {"student": uncompiled}),
        ("student", {"student": build_language_model}),
        ("hints", {"hints": {"absent": "features"}}),
        ("hints", {"hints": {"features": "absent"}}),
        ("hints", {"hints": {"features": "classes"}}),
    ],
)
def test_bad_input(name, arguments):
    teacher, student = build(6, seed=1), build()
    arguments = {"teacher": teacher, "student": student, **arguments}
    if callable(arguments["student"]) and not isinstance(arguments["student"], keras.Model):
        arguments["student"] = arguments["student"]()
    before = student.get_weights()
    with pytest.raises(InputError, match=f"`{name}`"):
        build_distiller(arguments.pop("teacher"), arguments.pop("student"), **arguments)
    assert all(np.array_equal(*pair) for pair in zip(before, student.get_weights(), strict=True))


@pytest.mark.parametrize("prompts", [[], [[]], [[99]], [[1] * 12]])
def test_bad_prompts(prompts):
    with pytest.raises(InputError):
        write_examples(build_language_model(), prompts, num_tokens=2)
