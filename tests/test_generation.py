"""Drawing against hand-worked supports and chi-squared; the cache against no cache."""

import functools
import gc
import warnings
import weakref

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from bigmodel_utils import generation, models
from bigmodel_utils._checks import InputError
from bigmodel_utils.generation import SamplingSettings, make_distribution, sample_token

# Token 3 has half of the probability, 1 a quarter, 0 and 4 an eighth each, 2 none to speak of.
LOGITS = np.log([2, 4, 1e-9, 8, 2])

CONTEXT_LENGTH = 48

logit_arrays = hnp.arrays(np.float32, st.integers(1, 12), elements=st.floats(-30, 30, width=32))
sampling_settings = st.builds(
    SamplingSettings,
    temperature=st.floats(0, 5),
    top_k=st.none() | st.integers(1, 15),
    top_p=st.none() | st.floats(0, 1),
)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, [1 / 8, 1 / 4, 0, 1 / 2, 1 / 8]),
        ({"temperature": 0.5}, [1 / 22, 4 / 22, 0, 16 / 22, 1 / 22]),
        ({"temperature": 0}, [0, 0, 0, 1, 0]),
        ({"temperature": 1e-300}, [0, 0, 0, 1, 0]),
        ({"top_k": 1}, [0, 0, 0, 1, 0]),
        ({"top_k": 2}, [0, 1 / 3, 0, 2 / 3, 0]),
        ({"top_k": 3}, [1 / 7, 2 / 7, 0, 4 / 7, 0]),  # of the equal 0 and 4 the first
        ({"top_k": 99}, [1 / 8, 1 / 4, 0, 1 / 2, 1 / 8]),
        ({"top_p": 0}, [0, 0, 0, 1, 0]),
        ({"top_p": 0.49}, [0, 0, 0, 1, 0]),
        ({"top_p": 0.51}, [0, 1 / 3, 0, 2 / 3, 0]),
        ({"top_p": 0.8}, [1 / 7, 2 / 7, 0, 4 / 7, 0]),
        ({"top_p": 1}, [1 / 8, 1 / 4, 0, 1 / 2, 1 / 8]),
        # Among the three that are left, the first two have 6/7.
        ({"top_k": 3, "top_p": 0.8}, [0, 1 / 3, 0, 2 / 3, 0]),
        # The temperature comes first: 16/22 alone is enough.
        ({"temperature": 0.5, "top_p": 0.7}, [0, 0, 0, 1, 0]),
    ],
)
def test_distribution_by_hand(changes, expected):
    found = make_distribution(LOGITS, SamplingSettings(**changes))
    np.testing.assert_allclose(found, expected, atol=1e-9)
    assert np.array_equal(found > 1e-8, np.asarray(expected) > 0)


def test_a_share_that_is_reached_exactly_is_enough():
    settings = SamplingSettings(top_p=0.5)
    assert make_distribution(np.zeros(4), settings).tolist() == [0.5, 0.5, 0, 0]


def check_distribution(function, logits, settings):
    """What holds for any logits: a distribution, in the logits' order, on a support that fits."""
    found = function(logits, settings)
    assert found.sum() == pytest.approx(1)
    assert found.min() >= 0
    assert found[np.argmax(logits)] > 0
    order = np.argsort(-logits, kind="stable")
    assert np.all(np.diff(found[order]) <= 1e-12)
    if settings.top_k is not None:
        assert np.count_nonzero(found) <= settings.top_k
    if settings.top_p is not None and settings.temperature > 0:
        plain = SamplingSettings(temperature=settings.temperature, top_k=settings.top_k)
        whole = make_distribution(logits, plain)
        support = np.flatnonzero(found)
        assert whole[support].sum() >= settings.top_p - 1e-9
        without_last = [token for token in order if found[token] > 0][:-1]
        assert not without_last or whole[without_last].sum() < settings.top_p + 1e-9


@given(logit_arrays, sampling_settings)
def test_distribution_of_any_logits(logits, settings):
    check_distribution(make_distribution, logits, settings)


@pytest.mark.parametrize(
    "broken",
    [
        lambda logits, settings: make_distribution(logits, SamplingSettings()),
        lambda logits, settings: make_distribution(-logits, settings),
        lambda logits, settings: make_distribution(logits, SamplingSettings(temperature=0)),
    ],
)
def test_broken_distributions_fail_the_same_property(broken):
    with pytest.raises(AssertionError):
        check_distribution(broken, LOGITS, SamplingSettings(top_k=3, top_p=0.7))


def compute_chi_squared(draw, expected, num_draws=10_000):
    generator = np.random.default_rng(0)
    counts = np.bincount([draw(generator) for _ in range(num_draws)], minlength=len(expected))
    is_possible = expected > 0
    assert counts[~is_possible].sum() == 0
    wanted = num_draws * expected[is_possible]
    return ((counts[is_possible] - wanted) ** 2 / wanted).sum()


def test_frequencies_are_those_of_softmax():
    logits = np.array([0.0, 1.0, -1.0, 0.5, 2.0])
    softmax = np.exp(logits) / np.exp(logits).sum()
    threshold = 18.5  # four degrees of freedom, p = 0.001

    def draw(temperature):
        settings = SamplingSettings(temperature=temperature)
        return lambda generator: sample_token(logits, settings, generator=generator)

    assert compute_chi_squared(draw(1.0), softmax) < threshold
    assert compute_chi_squared(draw(1.1), softmax) > threshold


def test_what_is_cut_off_is_never_drawn():
    settings = SamplingSettings(top_k=2)
    expected = np.array([0, 1 / 3, 0, 2 / 3, 0])
    draw = lambda generator: sample_token(LOGITS, settings, generator=generator)  # noqa: E731
    assert compute_chi_squared(draw, expected) < 10.9  # one degree of freedom, p = 0.001


class FixedGenerator:
    def __init__(self, value):
        self.value = value

    def random(self):
        return self.value


def test_ends_of_the_unit_interval_give_possible_tokens():
    """Tokens without probability stand first and last."""
    logits = [-1e4, 0.0, 0.0, -1e4]
    for value, token in [(0.0, 1), (0.5, 2), (np.nextafter(1, 0), 2)]:
        assert sample_token(logits, SamplingSettings(), generator=FixedGenerator(value)) == token


def build(**changes):
    """A model whose weights are large enough for the next token to depend on all before."""
    sizes = {
        "vocabulary_size": 61,
        "num_layers": 1,
        "width": 16,
        "num_heads": 4,
        "feedforward_width": 24,
        "context_length": CONTEXT_LENGTH,
    }
    model = models.build_language_model(models.LanguageModelSettings(**sizes | changes))
    generator = np.random.default_rng(1)
    model.set_weights(
        [weight + generator.normal(0, 0.2, weight.shape) for weight in model.get_weights()]
    )
    return model


@pytest.fixture(scope="module")
def model():
    return build()


GREEDY = SamplingSettings(temperature=0)


def choose_without_cache(model, prompt, text, sampling=GREEDY):
    """The choices after the prompt and after each token of the text, read again in one piece."""
    generator = np.random.default_rng(0)
    logits = np.asarray(model(np.array([[*prompt, *text]], np.int32)))[0, len(prompt) - 1 : -1]
    return [sample_token(row, sampling, generator=generator) for row in logits]


@pytest.mark.parametrize(("activation", "normalization"), [("swiglu", "rms"), ("gelu", "layer")])
def test_text_is_that_of_reading_everything_again(activation, normalization):
    model = build(activation=activation, normalization=normalization, num_key_value_heads=2)
    prompt = [7, 3, 3, 50, 12]
    for sampling in GREEDY, SamplingSettings():
        text = generation.generate(model, prompt, num_tokens=12, sampling=sampling)
        assert text == choose_without_cache(model, prompt, text, sampling)
    assert len(set(text)) > 3
    # The twin: what stands in the cache decides, and it is not the same for another prompt.
    assert text != choose_without_cache(model, [7, 3, 4, 50, 12], text, sampling)


@pytest.mark.parametrize("length", [1, 16, 17, 47])
def test_prompts_of_every_length(model, length):
    prompt = np.random.default_rng(length).integers(0, 61, length)
    text = generation.generate(model, prompt, num_tokens=1, sampling=GREEDY)
    assert text == choose_without_cache(model, prompt, text)


def test_seed_decides_and_texts_differ(model):
    def text(seed, **changes):
        sampling = SamplingSettings(**changes)
        return generation.generate(model, [1, 2], num_tokens=12, sampling=sampling, seed=seed)

    assert text(0) == text(0) == generation.generate(model, [1, 2], num_tokens=12)
    assert len({tuple(text(seed)) for seed in range(4)}) == 4
    assert text(0, temperature=0) == text(1, temperature=0) == text(1, top_k=1)
    assert all(0 <= token < 61 for token in text(0, temperature=100.0))


def test_stop_token_ends_the_text_and_is_kept_back(model):
    whole = generation.generate(model, [1, 2], num_tokens=12, seed=3)
    stop = whole[6]
    text = generation.generate(model, [1, 2], num_tokens=12, seed=3, stop_token=stop)
    assert text == whole[: whole.index(stop)]


def test_tokens_come_one_by_one(model, monkeypatch):
    lengths = []
    read = generation._Decoder.read

    def counted(self, tokens, place, cache):
        lengths.append(len(tokens))
        return read(self, tokens, place, cache)

    monkeypatch.setattr(generation._Decoder, "read", counted)
    tokens = generation.stream(model, [1, 2, 3], num_tokens=4)
    assert lengths == []
    next(tokens)
    assert lengths == [3]
    next(tokens)
    assert lengths == [3, 1]
    assert len(list(tokens)) == 2
    assert lengths == [3, 1, 1, 1]  # the last token is given out unread


def test_steps_are_traced_once(monkeypatch):
    traced = []
    call = models.RotaryAttention.call

    @functools.wraps(call)  # Keras reads the signature
    def counted(*args, **kwargs):
        traced.append(1)
        return call(*args, **kwargs)

    monkeypatch.setattr(models.RotaryAttention, "call", counted)
    model = build()
    generation.generate(model, [1, 2, 3], num_tokens=3)
    assert len(traced) == 2  # one for prompts of up to 16 tokens, one for a single token
    generation.generate(model, [4, 5, 6, 7], num_tokens=10, seed=5)
    assert len(traced) == 2


def test_new_values_and_new_variables_are_seen():
    model, prompt = build(), [7]
    before = generation.generate(model, prompt, num_tokens=10, sampling=GREEDY)
    first = generation._find_decoder(model)
    weights = model.get_weights()
    model.set_weights([weight[::-1] for weight in weights])
    assert generation._find_decoder(model) is first
    text = generation.generate(model, prompt, num_tokens=10, sampling=GREEDY)
    assert text == choose_without_cache(model, prompt, text)
    assert text != before
    gc.freeze()  # Keras collects garbage for each matrix
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.quantize("int4")
    gc.unfreeze()
    assert generation._find_decoder(model) is not first
    text = generation.generate(model, prompt, num_tokens=10, sampling=GREEDY)
    # The first alone: rounded activations may part texts where two logits all but meet.
    assert text[:1] == choose_without_cache(model, prompt, text)[:1]


def test_a_model_that_is_gone_takes_its_steps_along():
    model = build()
    generation.generate(model, [1], num_tokens=2)
    gone, decoder = weakref.ref(model), weakref.ref(generation._DECODERS[model])
    del model
    gc.collect()
    assert gone() is None
    assert decoder() is None


@pytest.mark.parametrize(
    ("prompt", "changes", "name"),
    [
        ([], {}, "prompt_tokens"),
        ([[1, 2]], {}, "prompt_tokens"),
        ([1, 61], {}, "prompt_tokens"),
        ([-1], {}, "prompt_tokens"),
        ([1.5], {}, "prompt_tokens"),
        ([1], {"num_tokens": 0}, "num_tokens"),
        ([1, 2], {"num_tokens": 47}, "num_tokens"),
        ([1], {"stop_token": -1}, "stop_token"),
        ([1], {"seed": -1}, "seed"),
    ],
)
def test_bad_input_is_refused_before_the_first_token(model, prompt, changes, name):
    with pytest.raises(InputError, match=rf"`{name}` .* Received: .* Fix: "):
        generation.stream(model, prompt, **{"num_tokens": 3} | changes)


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"temperature": -0.1}, "temperature"),
        ({"top_k": 0}, "top_k"),
        ({"top_p": 1.1}, "top_p"),
        ({"top_p": float("nan")}, "top_p"),
    ],
)
def test_settings_refuse(changes, name):
    with pytest.raises(InputError, match=rf"`{name}` .* Received: .* Fix: "):
        SamplingSettings(**changes)


@pytest.mark.parametrize("logits", [[], [[1.0, 2.0]], [1.0, float("nan")], [1.0, float("inf")]])
def test_logits_that_give_no_distribution_are_refused(logits):
    with pytest.raises(InputError, match="`logits` must"):
        sample_token(logits, SamplingSettings(), generator=np.random.default_rng(0))


def test_settings_as_a_dictionary():
    settings = SamplingSettings(temperature=0.7, top_p=0.9)
    assert SamplingSettings(**settings.to_dict()) == settings
