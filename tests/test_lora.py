"""Adapters: the merge in closed form, files that fit one base, what is trained and refused."""

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import layers

from bigmodel_utils import training
from bigmodel_utils._checks import InputError
from bigmodel_utils.compression import (
    _lora,
    add_adapters,
    load_adapters,
    merge_adapters,
    merge_kernel,
    write_adapters,
)

IMAGES = np.random.default_rng(0).random((12, 6, 6, 2)).astype("float32")
LABELS = np.arange(12) % 4


def build(seed=0, width=12):
    keras.utils.set_random_seed(seed)
    x = keras.Input((6, 6, 2))
    flow = layers.Conv2D(5, 3, name="conv")(x)
    flow = layers.BatchNormalization(name="norm")(flow)
    flow = layers.Flatten()(layers.Activation("relu")(flow))
    flow = layers.Dense(width, activation="relu", name="hidden")(flow)
    flow = layers.EinsumDense("ab,bc->ac", output_shape=8, bias_axes="c", name="einsum")(flow)
    model = keras.Model(x, layers.Dense(4, name="head")(flow))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(0.02), loss)
    return model


def build_trained(*, quantize=None, alpha=3.0, model=None, filters=None):
    model = model or build()
    adapted = add_adapters(
        model, IMAGES, rank=2, alpha=alpha, quantize=quantize, filters=filters
    ).model
    adapted.fit(IMAGES, LABELS, epochs=3, verbose=0)
    return adapted


def predict(model):
    return model.predict(IMAGES, verbose=0).astype(np.float64)


def test_it_begins_as_the_model_and_trains_the_adapters_alone():
    model = build()
    before = model.get_weights()
    result = add_adapters(model, IMAGES, rank=2)
    assert (predict(result.model) == predict(model)).all()
    size = 2 * (3 * 3 * 2 + 5) + 2 * (80 + 12) + 2 * (12 + 8) + 2 * (8 + 4)
    assert sum(np.prod(w.shape) for w in result.model.trainable_weights) == size
    # The model grows: what gets smaller is what is trained.
    report = result.report
    assert report.after.num_parameters == report.before.num_parameters + size
    assert set(report.left_out) == set()
    base = _lora._hash_base(result.model)
    result.model.fit(IMAGES, LABELS, epochs=2, verbose=0)
    assert _lora._hash_base(result.model) == base
    assert all((a == b).all() for a, b in zip(before, model.get_weights(), strict=True))
    assert len(model.trainable_weights) == 10
    # Adam keeps two numbers for each that is trained, and four bytes are a number.
    state = sum(np.prod(v.shape) for v in result.model.optimizer.variables)
    assert 2 * size <= state <= 2 * size + 2


def check_merge(rank, alpha, kind, seed):
    generator = np.random.default_rng(seed)
    keras.utils.set_random_seed(seed)
    layer = {
        "dense": lambda: layers.Dense(7, name="layer"),
        "einsum": lambda: layers.EinsumDense("ab,bc->ac", 7, bias_axes="c", name="layer"),
    }[kind]()
    model = keras.Sequential([keras.Input((9,)), layer])
    examples = generator.normal(size=(5, 9)).astype("float32")
    adapted = add_adapters(model, examples, rank=rank, alpha=alpha).model
    a, b = (generator.normal(size=s) for s in ((9, rank), (rank, 7)))
    adapted.get_layer("layer").lora_kernel_a.assign(a)
    adapted.get_layer("layer").lora_kernel_b.assign(b)
    kernel, bias = (w.astype(np.float64) for w in model.get_weights())
    expected = kernel + alpha / rank * a.astype("f4").astype("f8") @ b.astype("f4").astype("f8")
    merged = merge_adapters(adapted, examples).model
    received = merged.get_weights()[0]
    outputs = merged.predict(examples, verbose=0)
    error = np.linalg.norm(received - expected) / np.linalg.norm(expected)
    wanted = examples @ expected + bias
    output_error = np.linalg.norm(outputs - wanted) / np.linalg.norm(wanted)
    return error <= 1e-6 and output_error <= 1e-5


@settings(max_examples=8, deadline=None)
@given(
    rank=st.integers(1, 7),
    alpha=st.floats(0, 20),
    kind=st.sampled_from(["dense", "einsum"]),
    seed=st.integers(0, 99),
)
def test_merging_is_the_printed_sum(rank, alpha, kind, seed):
    assert check_merge(rank, alpha, kind, seed)


def test_twin_a_merge_without_the_strength_is_found_out(monkeypatch):
    def merge_wrongly(layer):
        product = keras.ops.matmul(layer.lora_kernel_a, layer.lora_kernel_b)
        return keras.ops.convert_to_numpy(layer._kernel + product)

    monkeypatch.setattr(_lora, "merge_kernel", merge_wrongly)
    assert not check_merge(2, 5.0, "dense", 0)


def test_a_merged_network_predicts_alike_and_trains_again(tmp_path):
    adapted = build_trained()
    result = merge_adapters(adapted, IMAGES)
    expected = predict(adapted)
    assert np.linalg.norm(predict(result.model) - expected) <= 1e-5 * np.linalg.norm(expected)
    assert result.model.count_params() == build().count_params()
    assert len(result.model.trainable_weights) == 10
    result.model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    assert (predict(again) == predict(result.model)).all()
    result.model.fit(IMAGES, LABELS, verbose=0)


@pytest.mark.parametrize("mode", ["int8", "int4"])
def test_quantized_kernels_stay_whole_while_adapters_learn(mode, tmp_path):
    model = build(width=32)
    result = add_adapters(model, IMAGES, rank=2, quantize=mode)
    assert result.model.get_layer("hidden").quantization_mode == mode
    assert result.model.get_layer("conv").quantization_mode is None
    assert set(result.report.left_out) == {"conv", "einsum"}
    base = _lora._hash_base(result.model)
    adapted = build_trained(quantize=mode, model=model)
    assert _lora._hash_base(adapted) == base
    # A file of adapters gives the same outputs again, bit for bit.
    path = write_adapters(adapted, tmp_path / "adapters.npz")
    assert (predict(load_adapters(model, path)) == predict(adapted)).all()
    # The merged kernel is what the quantized one stands for, and the change.
    hidden = adapted.get_layer("hidden")
    step = np.abs(model.get_layer("hidden").get_weights()[0]).max() / (127 if mode == "int8" else 7)
    change = keras.ops.matmul(hidden.lora_kernel_a, hidden.lora_kernel_b) * (3.0 / 2)
    base_kernel = merge_kernel(hidden) - keras.ops.convert_to_numpy(change)
    assert np.abs(base_kernel - model.get_layer("hidden").get_weights()[0]).max() <= 1.01 * step
    merged = merge_adapters(adapted, IMAGES)
    assert merged.model.get_layer("hidden").quantization_mode is None
    assert merged.report.agreement.mean_difference <= 0.05 * np.abs(predict(adapted)).mean()


@pytest.mark.parametrize(("mode", "moves"), [(None, False), ("int8", True)])
def test_what_keras_saves_is_merged_and_rounded_again(mode, moves, tmp_path):
    adapted = build_trained(quantize=mode, alpha=None)
    adapted.save(tmp_path / "model.keras")
    # The file forgets which biases were frozen: the optimizer's state would not fit.
    again = keras.models.load_model(tmp_path / "model.keras", compile=False)
    difference = np.abs(predict(again) - predict(adapted)).max()
    assert (difference > 1e-3) == moves
    assert not keras.ops.convert_to_numpy(again.get_layer("hidden").lora_kernel_b).any()


def test_adapters_train_and_resume(tmp_path):
    base = build()
    one_run = training.TrainingSettings(3, batch_size=4, seed=1, precision="float32")
    data = (IMAGES, LABELS)

    def train(checkpoints=None, on_epoch_end=None):
        return training.train(
            lambda: add_adapters(base, IMAGES, rank=2).model,
            data,
            validation_data=data,
            settings=one_run,
            checkpoints=checkpoints,
            on_epoch_end=on_epoch_end,
        )

    class Killed(Exception):
        pass

    def die(epoch, _):
        if epoch == 1:
            raise Killed

    expected = train()
    checkpoints = training.CheckpointSettings(tmp_path, num_steps_between=2)
    with pytest.raises(Killed):
        train(checkpoints, die)
    resumed = train(checkpoints)
    pairs = zip(expected.model.get_weights(), resumed.model.get_weights(), strict=True)
    assert all((a == b).all() for a, b in pairs)


def test_a_file_is_small_and_fits_its_base_alone(tmp_path):
    model = build(width=64)
    adapted = build_trained(model=model)
    path = write_adapters(adapted, tmp_path / "adapters.npz")
    assert [p.name for p in tmp_path.iterdir()] == ["adapters.npz"]
    again = load_adapters(model, path)
    assert (predict(again) == predict(adapted)).all()
    again.fit(IMAGES, LABELS, verbose=0)  # compiled, and trains on
    for other in (build(seed=1, width=64), build(width=32)):
        with pytest.raises(InputError, match="trained on"):
            load_adapters(other, path)
    moved = build(width=64)
    moved.layers[1].bias.assign(moved.layers[1].bias + 1e-6)
    with pytest.raises(InputError, match="other weights"):
        load_adapters(moved, path)
    stranger = keras.Sequential([keras.Input((6, 6, 2)), layers.Dense(4, name="other")])
    with pytest.raises(InputError, match="no layers"):
        load_adapters(stranger, path)


def test_no_half_file_is_left(tmp_path):
    adapted = build_trained()
    with pytest.raises(InputError, match="path"):
        write_adapters(adapted, tmp_path / "missing" / "adapters.npz")
    (tmp_path / "folder").mkdir()
    with pytest.raises(InputError, match="path"):
        write_adapters(adapted, tmp_path / "folder")
    assert [p.name for p in tmp_path.iterdir()] == ["folder"]
    path = write_adapters(adapted, tmp_path / "adapters.npz")
    path.write_bytes(path.read_bytes()[:-200])
    for bad in (path, tmp_path / "none"):
        with pytest.raises(InputError, match="path"):
            load_adapters(build(), bad)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("rank", {"rank": 0}),
        ("rank", {"rank": 5}),  # the head has four outputs
        ("alpha", {"rank": 1, "alpha": -1}),
        ("quantize", {"rank": 1, "quantize": "int2"}),
        ("filters", {"rank": 1, "filters": "nothing"}),
        ("filters", {"rank": 1, "filters": "norm"}),
    ],
)
def test_bad_input_is_refused(name, options):
    with pytest.raises(InputError) as caught:
        add_adapters(build(), IMAGES, **options)
    assert caught.value.name == name


def test_adapters_are_added_once_and_merged_where_they_are():
    adapted = build_trained(filters="hidden")
    with pytest.raises(InputError, match="adapters"):
        add_adapters(adapted, IMAGES, rank=1)
    for call in (lambda m: merge_adapters(m, IMAGES), lambda m: write_adapters(m, "never")):
        with pytest.raises(InputError, match="adapters"):
            call(build())
