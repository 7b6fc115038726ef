"""The transformer against a NumPy one, and through every change that a model goes through."""

import dataclasses
import gc
import itertools
import math
import warnings

import keras
import numpy as np
import pytest

from bigmodel_utils import models
from bigmodel_utils._checks import InputError

SETTINGS = models.LanguageModelSettings(
    vocabulary_size=61,
    num_layers=2,
    width=32,
    num_heads=4,
    feedforward_width=40,
    context_length=12,
)
VARIANTS = {
    "plain": {},
    "shared heads, gelu, layer": {
        "num_key_value_heads": 2,
        "activation": "gelu",
        "normalization": "layer",
    },
    "one key head": {"num_key_value_heads": 1},
}
TOKENS = np.random.default_rng(0).integers(0, 61, (2, 12)).astype(np.int32)

every_variant = pytest.mark.parametrize("variant", VARIANTS)


def build(**changes):
    """A model whose weights are large enough for every part to matter."""
    model = models.build_language_model(dataclasses.replace(SETTINGS, **changes))
    generator = np.random.default_rng(1)
    model.set_weights(
        [
            weight + generator.normal(0, 0.5 if weight.ndim == 1 else 0.2, weight.shape)
            for weight in model.get_weights()
        ]
    )
    return model


def predict(model, tokens=TOKENS):
    return np.asarray(model(np.asarray(tokens), training=False))


def read(cached_model, tokens, position, cache):
    """One eager step; `predict_on_batch` would compile each of the few."""
    inputs = [tokens, np.asarray(position, np.int32), *cache]
    logits, *cache = cached_model([keras.ops.convert_to_tensor(array) for array in inputs])
    return np.asarray(logits), cache


def quantize(model, mode):
    gc.freeze()  # Keras collects garbage once for each matrix: a third of a second among many tests
    with warnings.catch_warnings():  # one for each layer without matrices
        warnings.filterwarnings("ignore", message="Layer .* does not have a `quantize` method")
        model.quantize(mode)
    gc.unfreeze()
    return model


def compute_logits(model, settings, tokens):
    """The equations in NumPy, one text; pairs of numbers turn as complex numbers do."""
    weights = {variable.path: np.asarray(variable, np.float64) for variable in model.variables}

    def project(name, x):
        return x @ weights[f"{name}/kernel"]

    def normalize(name, x):
        if settings.normalization == "layer":
            x = x - x.mean(-1, keepdims=True)
            scale, shift = weights[f"{name}/gamma"], weights[f"{name}/beta"]
            return x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-6) * scale + shift
        return x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-6) * weights[f"{name}/scale"]

    def turn(x):
        half = x.shape[-1] // 2
        angles = np.outer(np.arange(len(x)), 10000.0 ** -(np.arange(half) / half))
        turned = (x[..., :half] + 1j * x[..., half:]) * np.exp(1j * angles)
        return np.concatenate([turned.real, turned.imag], axis=-1)

    def attend(name, x):
        num_keys = settings.num_key_value_heads or settings.num_heads
        heads = np.split(project(f"{name}_qkv", x), settings.num_heads + 2 * num_keys, axis=-1)
        keys, values = heads[settings.num_heads : -num_keys], heads[-num_keys:]
        mixed = []
        for index, query in enumerate(heads[: settings.num_heads]):
            shared = index * num_keys // settings.num_heads
            scores = turn(query) @ turn(keys[shared]).T / np.sqrt(query.shape[-1])
            scores[np.triu_indices(len(x), 1)] = -np.inf
            shares = np.exp(scores - scores.max(-1, keepdims=True))
            mixed.append(shares / shares.sum(-1, keepdims=True) @ values[shared])
        return project(f"{name}_output", np.concatenate(mixed, axis=-1))

    def feed_forward(name, x):
        up = project(f"{name}_up", x)
        if settings.activation == "gelu":
            hidden = up / 2 * (1 + np.tanh(np.sqrt(2 / np.pi) * (up + 0.044715 * up**3)))
        else:
            gate = project(f"{name}_gate", x)
            hidden = gate / (1 + np.exp(-gate)) * up
        return project(f"{name}_down", hidden)

    embeddings = weights["embedding/embeddings"]
    x = embeddings[tokens]
    for block in range(settings.num_layers):
        for part, name in (attend, "attention"), (feed_forward, "feedforward"):
            place = f"block_{block}_{name}"
            x = x + part(place, normalize(f"{place}_normalization", x))
    return normalize("final_normalization", x) @ embeddings.T


@every_variant
def test_logits_are_those_of_the_equations(variant):
    model = build(**VARIANTS[variant])
    settings = dataclasses.replace(SETTINGS, **VARIANTS[variant])
    expected = [compute_logits(model, settings, tokens) for tokens in TOKENS]
    assert np.std(expected) > 1
    np.testing.assert_allclose(predict(model), expected, atol=2e-4)
    # The oracle is not blind: one head fewer, or tokens at other places, and it differs.
    other = compute_logits(model, settings, np.roll(TOKENS[0], 1))
    assert np.abs(other - np.asarray(expected[0])).max() > 0.1


def test_approximate_gelu_is_as_close_as_it_says():
    x = np.linspace(-6, 6, 4001)
    exact = [value * (1 + math.erf(value / math.sqrt(2))) / 2 for value in x]
    error = np.abs(np.asarray(models.approximate_gelu(x)) - exact).max()
    assert 4e-4 < error < 5e-4


def check_causal(function):
    changed = TOKENS.copy()
    changed[:, 7] = (changed[:, 7] + 1) % 61
    difference = np.abs(function(TOKENS) - function(changed)).max(axis=(0, 2))
    assert difference[:7].max() < 1e-5
    assert difference[7:].min() > 1e-3


def test_no_token_sees_a_later_one():
    model = build()
    check_causal(lambda tokens: predict(model, tokens))
    with pytest.raises(AssertionError):  # a text read backwards sees what comes
        check_causal(lambda tokens: predict(model, tokens[:, ::-1])[:, ::-1])


def test_parameters_follow_the_formula():
    model = models.build_language_model(dataclasses.replace(SETTINGS, num_key_value_heads=2))
    attention = 32 * (32 + 2 * 16) + 32 * 32
    assert model.count_params() == 61 * 32 + 2 * (attention + 3 * 32 * 40 + 2 * 32) + 32


@pytest.mark.slow
def test_parameters_of_a_published_model():
    """SmolLM-135M, of this architecture, has 134,515,008."""
    model = models.build_language_model(
        models.LanguageModelSettings(
            vocabulary_size=49_152,
            num_layers=30,
            width=576,
            num_heads=9,
            num_key_value_heads=3,
            feedforward_width=1536,
            context_length=2048,
        )
    )
    assert model.count_params() == 134_515_008


def test_initial_weights_have_the_stated_deviation_and_differ_between_layers():
    model = models.build_language_model(
        dataclasses.replace(SETTINGS, width=128, feedforward_width=128, num_layers=8)
    )
    seen = []
    for variable in model.trainable_variables:
        value = np.asarray(variable)
        if value.ndim == 1:
            assert np.all(value == 1)
            continue
        is_residual = variable.path.split("/")[0].endswith(("_output", "_down"))
        deviation = 0.02 / 4 if is_residual else 0.02
        # The deviation of a sample deviation is about 1 / √(2 n); five of them.
        assert value.std() == pytest.approx(deviation, rel=5 / np.sqrt(2 * value.size))
        assert abs(value.mean()) < 5 * deviation / np.sqrt(value.size)
        seen.append(value.flat[0])
    assert len(set(seen)) == len(seen)


def test_initial_loss_is_near_that_of_guessing():
    model = models.build_language_model(SETTINGS)
    loss = model.loss(TOKENS[:, 1:], predict(model, TOKENS[:, :-1]))
    assert float(loss) == pytest.approx(np.log(61), abs=0.1)


def test_dropout_acts_in_training_only():
    model = build(dropout=0.5)
    assert sum(isinstance(layer, keras.layers.Dropout) for layer in model.layers) == 5
    np.testing.assert_array_equal(predict(model), predict(model))
    first, second = (np.asarray(model(TOKENS, training=True)) for _ in range(2))
    assert np.abs(first - second).max() > 0.1


@pytest.mark.slow
def test_model_learns_what_it_is_shown():
    """Each token follows from the one two places before it, so attention is needed."""
    keras.utils.set_random_seed(0)
    schedule = keras.optimizers.schedules.CosineDecay(1e-2, decay_steps=80)
    model = models.build_language_model(SETTINGS, learning_rate=schedule, global_clip_norm=None)
    first = np.random.default_rng(0).integers(0, 61, (200, 2))
    texts = np.tile(first, (1, 7)).astype(np.int32)[:, :13]
    for step in range(80):
        batch = texts[step % 5 * 32 :][:32]
        model.train_on_batch(batch[:, :-1], batch[:, 1:])
    predicted = predict(model, texts[-40:, :-1]).argmax(-1)
    assert (predicted[:, 2:] == texts[-40:, 3:]).mean() > 0.9
    assert (predicted[:, 0] == texts[-40:, 1]).mean() < 0.5  # this one nobody can know


@pytest.mark.parametrize("mode", [None, "int8", "int4"])
@every_variant
def test_saving_changes_nothing(mode, variant, tmp_path):
    model = build(**VARIANTS[variant])
    before = predict(model)
    if mode is not None:
        quantize(model, mode)
        assert np.abs(predict(model) - before).max() > 1e-3
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras", compile=False)
    np.testing.assert_array_equal(predict(model), predict(again))


def train_without_gradient(model, optimizer):
    """What weight decay alone does: the factor on each variable."""
    before = [np.asarray(variable) for variable in model.trainable_variables]
    optimizer.apply([np.zeros_like(value) for value in before], model.trainable_variables)
    pairs = zip(before, model.trainable_variables, strict=True)
    return {value.ndim: float((np.asarray(variable) / value).flat[0]) for value, variable in pairs}


def test_weight_decay_spares_vectors_also_after_loading(tmp_path):
    model = models.build_language_model(SETTINGS, learning_rate=0.1, weight_decay=0.1)
    factors = train_without_gradient(model, model.optimizer)
    assert factors == {2: pytest.approx(0.99, rel=1e-5), 1: 1.0}
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    assert again.optimizer.global_clipnorm == 1.0
    factors = train_without_gradient(again, again.optimizer)
    assert factors == {2: pytest.approx(0.99, rel=1e-5), 1: 1.0}


def test_keras_forgets_what_it_was_told_to_spare():
    """The twin, and the reason why `MatrixAdamW` exists."""
    model = models.build_language_model(SETTINGS)
    optimizer = keras.optimizers.AdamW(0.1, weight_decay=0.1)
    optimizer.exclude_from_weight_decay(
        var_list=[variable for variable in model.trainable_variables if len(variable.shape) < 2]
    )
    again = keras.optimizers.deserialize(keras.optimizers.serialize(optimizer))
    assert train_without_gradient(model, optimizer)[1] == 1.0
    assert train_without_gradient(model, again)[1] == pytest.approx(0.99, rel=1e-5)


def read_stepwise(model, tokens, *, prompt_length, offset=0):
    """Logits of a prompt read in one piece and the rest read token by token."""
    cached = models.build_cached_model(model)
    batch_size = len(tokens)
    cache = models.make_empty_cache(cached, batch_size=batch_size)
    edges = [0, *range(prompt_length, tokens.shape[1] + 1)]
    pieces = []
    for start, end in itertools.pairwise(edges):
        position = [start + (offset if start else 0)] * batch_size
        logits, cache = read(cached, tokens[:, start:end], position, cache)
        pieces.append(logits)
    return np.concatenate(pieces, axis=1)


@pytest.mark.parametrize(("variant", "prompt_length"), list(zip(VARIANTS, (1, 8, 10), strict=True)))
def test_cached_steps_give_the_logits_of_the_whole(variant, prompt_length):
    model = build(**VARIANTS[variant])
    stepwise = read_stepwise(model, TOKENS, prompt_length=prompt_length)
    np.testing.assert_allclose(stepwise, predict(model), atol=5e-5)


def test_cached_steps_at_a_wrong_position_do_not():
    model, tokens = build(), TOKENS[:, :10]
    expected = predict(model, tokens)
    for offset in (-1, 1):
        stepwise = read_stepwise(model, tokens, prompt_length=8, offset=offset)
        np.testing.assert_allclose(stepwise[:, :8], expected[:, :8], atol=5e-5)
        assert np.abs(stepwise[:, 8:] - expected[:, 8:]).max() > 0.01


def test_texts_of_different_lengths_share_a_step():
    model = build()
    cached = models.build_cached_model(model)
    cache = models.make_empty_cache(cached, batch_size=2)
    # The second text has four tokens; what padding leaves behind is overwritten or unseen.
    padded = TOKENS[:, :7].copy()
    padded[1, 4:] = 0
    _, cache = read(cached, padded, [0, 0], cache)
    logits, _ = read(cached, np.stack([TOKENS[0, 7:8], TOKENS[1, 4:5]]), [7, 4], cache)
    expected = predict(model)[[0, 1], [7, 4]]
    np.testing.assert_allclose(logits[:, 0], expected, atol=5e-5)


@pytest.mark.parametrize("mode", ["int8", "int4"])
def test_cached_steps_of_a_quantized_model(mode):
    """A rounding of 1e-7 may move an activation to the next of 255 steps, so not all 1e-5."""
    model = quantize(build(), mode)
    stepwise = read_stepwise(model, TOKENS, prompt_length=9)
    difference = np.abs(stepwise - predict(model))
    assert np.median(difference) < 1e-5
    assert difference.max() < 0.3


def test_adapted_model_trains_only_adapters_and_steps_like_the_whole():
    model = build()
    before = predict(model)
    for layer in model.layers:
        if isinstance(layer, keras.layers.Dense):
            layer.enable_lora(2)
        else:
            layer.trainable = False
    np.testing.assert_allclose(predict(model), before, atol=1e-5)
    assert {variable.name for variable in model.trainable_variables} == {
        "lora_kernel_a",
        "lora_kernel_b",
    }
    model.compile(optimizer=keras.optimizers.Adam(0.1), loss=model.loss, run_eagerly=True)
    model.train_on_batch(TOKENS[:, :-1], TOKENS[:, 1:])
    adapted = predict(model)
    assert np.abs(adapted - before).max() > 0.1
    stepwise = read_stepwise(model, TOKENS, prompt_length=9)
    np.testing.assert_allclose(stepwise, adapted, atol=1e-4)


def test_cached_model_follows_new_values_and_leaves_the_model_as_it_was(tmp_path):
    model = build()
    names = [layer.name for layer in model.layers]
    cached = models.build_cached_model(model)
    assert {id(v) for v in cached.variables} == {id(v) for v in model.variables}
    model.set_weights([weight * 1.1 for weight in model.get_weights()])
    logits, _ = read(cached, TOKENS, [0, 0], models.make_empty_cache(cached, batch_size=2))
    np.testing.assert_allclose(logits, predict(model), atol=1e-4)
    assert [layer.name for layer in model.layers] == names
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras", compile=False)
    np.testing.assert_array_equal(predict(model), predict(again))


def test_mixed_precision_keeps_logits_in_float32():
    policy = keras.config.dtype_policy()
    whole = build()
    try:
        keras.config.set_dtype_policy("mixed_bfloat16")
        model = models.build_language_model(SETTINGS)
    finally:
        keras.config.set_dtype_policy(policy)
    model.set_weights(whole.get_weights())
    logits = predict(model)
    assert logits.dtype == np.float32
    assert model.get_layer("block_0_attention").compute_dtype == "bfloat16"
    difference = np.abs(logits - predict(whole))
    assert 1e-4 < difference.max() < 0.1 * np.abs(logits).max()


def test_settings_make_the_round_trip():
    settings = dataclasses.replace(SETTINGS, num_key_value_heads=2, dropout=0.1)
    assert models.LanguageModelSettings(**settings.to_dict()) == settings


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"vocabulary_size": 1}, "vocabulary_size"),
        ({"num_layers": 0}, "num_layers"),
        ({"width": 36}, "width"),
        ({"num_key_value_heads": 3}, "num_key_value_heads"),
        ({"num_key_value_heads": 0}, "num_key_value_heads"),
        ({"activation": "relu"}, "activation"),
        ({"normalization": "batch"}, "normalization"),
        ({"dropout": 1.0}, "dropout"),
        ({"context_length": 2.5}, "context_length"),
    ],
)
def test_settings_refuse(changes, name):
    with pytest.raises(InputError, match=rf"`{name}` .* Received: .* Fix: "):
        dataclasses.replace(SETTINGS, **changes)


def test_calls_refuse():
    model = build()
    with pytest.raises(InputError, match="`weight_decay`"):
        models.build_language_model(SETTINGS, weight_decay=-1)
    with pytest.raises(InputError, match="`global_clip_norm`"):
        models.build_language_model(SETTINGS, global_clip_norm=-1)
    with pytest.raises(InputError, match="`model` must be a functional model with `RotaryAtt"):
        models.build_cached_model(models.build_image_classifier("none"))
    with pytest.raises(InputError, match="`batch_size`"):
        models.make_empty_cache(models.build_cached_model(model), batch_size=0)
    with pytest.raises(RuntimeError, match="at most `context_length`, 12, at a time"):
        model(np.zeros((1, 13), np.int32))
