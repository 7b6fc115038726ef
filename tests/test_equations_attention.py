"""The equations of the attention page, as they stand there, against Keras for any shape."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from bigmodel_utils import generation, models
from bigmodel_utils._checks import InputError
from tools import notebooks

PAGE = notebooks.ROOT / "chapters" / "03_algorithms" / "attention.ipynb"
TOLERANCE = 1e-5

few_examples = settings(max_examples=8, deadline=None)
seeds = st.integers(0, 2**32 - 1)


EQUATIONS = notebooks.load_definitions(PAGE, np=np, tf=tf)
attend, attend_backwards, attend_heads, attend_turned, read, turn, weigh = (
    EQUATIONS[name]
    for name in (
        *("attend", "attend_backwards", "attend_heads", "attend_turned"),
        *("read", "turn", "weigh"),
    )
)
differentiate, measure_error, run_layer = (
    EQUATIONS[name] for name in ("differentiate", "measure_error", "run_layer")
)


def draw(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape)


def check_agreement(layer, equation, arrays, weights=()):
    """Forward and gradient of `equation(*arrays)`; Keras keeps the last ones as weights."""
    inputs = arrays[: len(arrays) - len(weights)]
    expected = equation(*arrays)
    upstream = draw(0, *expected.shape)
    output, gradients = run_layer(layer, inputs, upstream, weights)
    slopes = differentiate(lambda *moved: (equation(*moved) * upstream).sum(), arrays)
    assert measure_error([output], [expected]) <= TOLERANCE
    assert measure_error(gradients, slopes) <= TOLERANCE


def keras_attend(q, k, v):
    add_axes = [array[None, :, None] for array in (q, k, v)]
    return keras.ops.dot_product_attention(*add_axes, is_causal=True)[0, :, 0]


@few_examples
@given(seeds, st.integers(1, 6), st.integers(1, 6))
def test_scaled_dot_product(seed, num_tokens, width):
    arrays = list(draw(seed, 3, num_tokens, width))
    check_agreement(keras_attend, lambda *moved: attend(*moved)[1], arrays)


def attend_not_divided(q, k, v):
    return attend(q * np.sqrt(q.shape[-1]), k, v)[1]


def attend_over_queries(q, k, v):
    return weigh(EQUATIONS["score"](q, k).T).T @ v


def attend_everywhere(q, k, v):
    return weigh(q @ k.T / np.sqrt(q.shape[-1])) @ v


@pytest.mark.parametrize("broken", [attend_not_divided, attend_over_queries, attend_everywhere])
def test_a_broken_equation_does_not_agree(broken):
    with pytest.raises(AssertionError):
        check_agreement(keras_attend, broken, list(draw(0, 3, 5, 4)))


@given(seeds, st.integers(1, 6), st.integers(1, 6))
def test_gradient_by_hand(seed, num_tokens, width):
    q, k, v, upstream = draw(seed, 4, num_tokens, width)
    by_hand = attend_backwards(q, k, v, upstream)
    slopes = differentiate(lambda *moved: (attend(*moved)[1] * upstream).sum(), [q, k, v])
    assert measure_error(by_hand, slopes) <= 1e-12


def test_a_gradient_that_forgets_the_sum_is_wrong():
    """The twin: without the second term of the softmax's derivative."""
    q, k, v, upstream = draw(0, 4, 5, 3)
    a, _ = attend(q, k, v)
    by_product = a * (upstream @ v.T) / np.sqrt(3)
    forgetful = by_product @ k, by_product.T @ q, a.T @ upstream
    assert measure_error(forgetful, attend_backwards(q, k, v, upstream)) > 0.1


def build_heads(seed, num_tokens, head_width, num_groups, num_shared):
    """Keras' layer with random kernels, a call of it for one text, and all arrays."""
    width, num_heads = 2 * head_width, num_groups * num_shared
    layer = keras.layers.GroupQueryAttention(head_width, num_heads, num_groups, use_bias=False)
    layer.build((1, num_tokens, width), (1, num_tokens, width))
    generator = np.random.default_rng(seed)
    kernels = [generator.normal(size=weight.shape) / 2 for weight in layer.weights]
    layer.set_weights(kernels)
    x = generator.normal(size=(num_tokens, width))
    return layer, lambda x: layer(x[None], x[None], use_causal_mask=True)[0], [x, *kernels]


@few_examples
@given(seeds, st.integers(2, 4), st.integers(1, 3), st.integers(1, 3), st.integers(1, 2))
def test_heads_and_shared_heads(seed, num_tokens, head_width, num_groups, num_shared):
    layer, call, arrays = build_heads(seed, num_tokens, head_width, num_groups, num_shared)
    check_agreement(call, attend_heads, arrays, layer.weights)


def test_heads_that_share_the_wrong_keys_do_not_agree():
    layer, call, arrays = build_heads(0, 4, 2, 2, 2)

    def interleaved(x, to_query, to_key, to_value, to_output):
        return attend_heads(x, to_query, to_key[:, ::-1], to_value, to_output)

    with pytest.raises(AssertionError):
        check_agreement(call, interleaved, arrays, layer.weights)


@few_examples
@given(seeds, st.integers(2, 5), st.integers(1, 3), st.integers(1, 2), st.integers(1, 2))
def test_rotary_layer(seed, num_tokens, half_width, num_groups, num_shared):
    num_heads = num_groups * num_shared
    layer = models.RotaryAttention(num_heads, num_groups, context_length=num_tokens)
    side_by_side = draw(seed, num_tokens, (num_heads + 2 * num_groups) * 2 * half_width)
    check_agreement(
        lambda x: layer(x[None])[0],
        lambda x: attend_turned(x, num_heads, num_groups)[1],
        [side_by_side],
    )


def test_turning_queries_alone_does_not_agree():
    layer = models.RotaryAttention(2, 2, context_length=4)
    x = draw(0, 4, 6 * 4)

    def half_turned(x):
        parts = x.reshape(4, 6, 4).swapaxes(0, 1)
        _, mixed = attend(turn(parts[:2], np.arange(4)), parts[2:4], parts[4:])
        return mixed.swapaxes(0, 1).reshape(4, -1)

    with pytest.raises(AssertionError):
        check_agreement(lambda x: layer(x[None])[0], half_turned, [x])


def check_distance_alone(rotate, seed, place, other_place, shift):
    one, other = draw(seed, 2, 1, 8)
    here = rotate(one, [place]) @ rotate(other, [other_place]).T
    there = rotate(one, [place + shift]) @ rotate(other, [other_place + shift]).T
    np.testing.assert_allclose(here, there, atol=1e-9 * (1 + np.abs(here).item()))


places = st.integers(0, 5000)


@given(seeds, places, places, places)
def test_a_product_depends_on_the_distance_alone(seed, place, other_place, shift):
    check_distance_alone(turn, seed, place, other_place, shift)


def test_places_that_are_added_do_not_keep_the_product():
    """The twin: an embedding added to the vector, as in the first transformer."""

    def add_place(u, places):
        return u + turn(np.ones_like(u), places)

    with pytest.raises(AssertionError):
        check_distance_alone(add_place, 0, 3, 5, 7)


def build_model(seed, num_layers, num_groups, num_shared):
    num_heads = num_groups * num_shared
    shape = models.LanguageModelSettings(
        vocabulary_size=7,
        num_layers=num_layers,
        width=4 * num_heads,
        num_heads=num_heads,
        num_key_value_heads=num_groups,
        feedforward_width=6,
        context_length=4,
    )
    model = models.build_language_model(shape)
    generator = np.random.default_rng(seed)
    model.set_weights([generator.normal(size=weight.shape) / 2 for weight in model.weights])
    weights = {weight.path: np.asarray(weight, np.float64) for weight in model.weights}
    return model, shape, weights, generator.integers(0, 7, 4)


def check_model(model, shape, weights, tokens):
    def equation(*arrays):
        return read(dict(zip(weights, arrays, strict=True)), tokens, shape)[0]

    check_agreement(lambda: model(tokens[None])[0], equation, [*weights.values()], model.weights)


@settings(max_examples=4, deadline=None)
@given(seeds, st.integers(1, 2), st.integers(1, 2), st.integers(1, 2))
def test_whole_model(seed, num_layers, num_groups, num_shared):
    check_model(*build_model(seed, num_layers, num_groups, num_shared))


def test_a_model_with_one_weight_changed_does_not_agree():
    model, shape, weights, tokens = build_model(0, 1, 1, 2)
    weights["block_0_feedforward_gate/kernel"][0, 0] += 0.1
    with pytest.raises(AssertionError):
        check_model(model, shape, weights, tokens)


def test_changed_shares_are_mixed():
    """The shares themselves put in place of the shares change nothing; others do."""
    _, shape, weights, tokens = build_model(0, 2, 1, 2)
    logits, _ = read(weights, tokens, shape)
    same, _ = read(weights, tokens, shape, lambda number, a: a)
    np.testing.assert_allclose(same, logits, rtol=1e-12)
    other, _ = read(weights, tokens, shape, lambda number, a: a[:, :, ::-1])
    assert np.abs(other - logits).max() > 1e-3


@given(seeds, st.integers(1, 12), st.integers(1, 5), st.integers(1, 13))
def test_block_by_block_is_the_same(seed, num_tokens, width, size):
    q, k, v = 5 * draw(seed, 3, num_tokens, width)
    found = EQUATIONS["attend_blockwise"](q, k, v, size)
    np.testing.assert_allclose(found, attend(q, k, v)[1], atol=1e-10)


def test_blocks_that_are_not_rescaled_are_not_the_same():
    q, k, v = 5 * draw(0, 3, 9, 4)
    parts = [np.exp(q @ k[i : i + 3].T / 2 - (q @ k[i : i + 3].T / 2).max()) for i in (0, 3, 6)]
    total = sum(part.sum(axis=1, keepdims=True) for part in parts)
    found = sum(part @ v[i : i + 3] for part, i in zip(parts, (0, 3, 6), strict=True)) / total
    assert np.abs(found - attend_everywhere(q, k, v)).max() > 0.01


# The cache: as long as the model is causal, reading token by token is reading at once.


@settings(max_examples=3, deadline=None)
@given(seeds, st.integers(1, 3))
def test_cache_gives_the_logits_of_the_whole_pass(seed, num_prompt_tokens):
    model, _, _, tokens = build_model(seed, 1, 1, 2)
    difference = generation.measure_cache_difference(
        model, tokens, num_prompt_tokens=num_prompt_tokens
    )
    assert difference < 1e-4


@pytest.mark.parametrize("broken", ["one place late", "forgotten"])
def test_a_broken_cache_is_found(broken, monkeypatch):
    model, _, _, tokens = build_model(0, 1, 1, 2)
    right = generation._Decoder.read

    def wrong(self, tokens, place, cache):
        if broken == "one place late":
            return right(self, tokens, min(place + (place > 0), 3), cache)
        return right(self, tokens, place, [array * 0 for array in cache])

    monkeypatch.setattr(generation._Decoder, "read", wrong)
    assert generation.measure_cache_difference(model, tokens, num_prompt_tokens=2) > 1e-2


@pytest.mark.parametrize(
    ("tokens", "changes", "name"),
    [
        ([1], {}, "tokens"),
        ([1] * 5, {}, "tokens"),
        ([1, 7], {}, "tokens"),
        ([[1, 2]], {}, "tokens"),
        ([1, 2], {"num_prompt_tokens": 0}, "num_prompt_tokens"),
        ([1, 2], {"num_prompt_tokens": 2}, "num_prompt_tokens"),
    ],
)
def test_bad_input_is_refused(tokens, changes, name):
    model, *_ = build_model(0, 1, 1, 2)
    with pytest.raises(InputError, match=rf"`{name}` .* Received: .* Fix: "):
        generation.measure_cache_difference(model, tokens, **changes)
