"""Generating text: how a next token is drawn, and a loop that reads each token once.

The prompt goes through the model in one piece, every later token alone; keys and values of
what was read stay on the device. Drawing is NumPy's, so that a seed gives the same choices
on every backend.
"""

from __future__ import annotations

import functools
import operator
import weakref
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ._checks import InputError, check_array, check_integer, check_real, import_extra
from .models import build_cached_model, make_empty_cache

SHORTEST_PIECE = 16
"""A prompt is padded to the next power of two from here on: few lengths, few compilations."""


@dataclass(frozen=True)
class SamplingSettings:
    """How the next token is drawn from a model's logits.

    Attributes:
        temperature: divides the logits; 0 always takes the most probable token.
        top_k: draw among this many most probable tokens; `None` for all.
        top_p: draw among the fewest most probable tokens that together have at least this
            probability, after `temperature` and `top_k`; `None` for all.

    Raises:
        InputError: if the temperature is negative, `top_k` below 1, or `top_p` not from 0 to 1.

    References:
        Fan et al., Hierarchical Neural Story Generation (2018) for `top_k`; Holtzman et al.,
        The Curious Case of Neural Text Degeneration (2020) for `top_p`.
    """

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None

    def __post_init__(self) -> None:
        check_real("temperature", self.temperature, at_least=0)
        if self.top_k is not None:
            check_integer("top_k", self.top_k, at_least=1)
        if self.top_p is not None:
            check_real("top_p", self.top_p, at_least=0, at_most=1)

    def to_dict(self) -> dict[str, Any]:
        """Returns the settings as a plain dictionary."""
        return asdict(self)


def make_distribution(logits: Any, settings: SamplingSettings) -> np.ndarray:
    """Makes the probabilities that the next token is drawn with.

    Args:
        logits: of one place, shape `(vocabulary_size,)`.
        settings: temperature and truncation.

    Returns:
        Probabilities in float64, shape `(vocabulary_size,)`, zero for tokens that cannot be
        drawn. Of equally probable tokens those of lower number stay.

    Raises:
        InputError: if the logits are not finite or of another shape.

    Example:
        >>> logits = np.log([0.5, 0.3, 0.2])
        >>> make_distribution(logits, SamplingSettings(top_k=2)).round(3).tolist()
        [0.625, 0.375, 0.0]
    """
    values = check_array("logits", logits, shape=(None,)).astype(np.float64)
    order = np.argsort(-values, kind="stable")
    if settings.temperature == 0:
        return np.asarray(np.eye(1, len(values), order[0])[0])
    with np.errstate(over="ignore", under="ignore"):  # a tiny temperature: minus infinity, zero
        weights = np.exp((values - values[order[0]]) / settings.temperature)
    weights[order[settings.top_k :] if settings.top_k else []] = 0
    if settings.top_p is not None:
        ranked = weights[order] / weights.sum()
        # A token stays while those before it have not reached the share; the first always does.
        has_enough = np.cumsum(ranked) - ranked >= settings.top_p
        weights[order[1:][has_enough[1:]]] = 0
    return np.asarray(weights / weights.sum())


def sample_token(logits: Any, settings: SamplingSettings, *, generator: np.random.Generator) -> int:
    """Draws one token.

    Args:
        logits: of one place, shape `(vocabulary_size,)`.
        settings: temperature and truncation.
        generator: gives one uniform number, also when nothing is left to chance, so that runs
            with other settings stay comparable.

    Returns:
        The token.

    Raises:
        InputError: if the logits are not finite or of another shape.

    Example:
        >>> generator = np.random.default_rng(0)
        >>> sample_token([0.1, 2.0, 0.3], SamplingSettings(temperature=0), generator=generator)
        1
    """
    edges = np.cumsum(make_distribution(logits, settings))
    # Times the last edge: it is 1 up to rounding. A token without probability has no width.
    return int(np.searchsorted(edges, generator.random() * edges[-1], side="right"))


def generate(
    model: Any,
    prompt_tokens: Sequence[int] | np.ndarray,
    *,
    num_tokens: int,
    sampling: SamplingSettings | None = None,
    seed: int = 0,
    stop_token: int | None = None,
) -> list[int]:
    """Continues a prompt; `stream` with all tokens at once.

    Args:
        model: as for `stream`.
        prompt_tokens: as for `stream`.
        num_tokens: most tokens to add.
        sampling: as for `stream`.
        seed: as for `stream`.
        stop_token: as for `stream`.

    Returns:
        The new tokens, without the prompt and the stop token.

    Raises:
        InputError: as `stream`.
    """
    return list(
        stream(
            model,
            prompt_tokens,
            num_tokens=num_tokens,
            sampling=sampling,
            seed=seed,
            stop_token=stop_token,
        )
    )


def stream(
    model: Any,
    prompt_tokens: Sequence[int] | np.ndarray,
    *,
    num_tokens: int,
    sampling: SamplingSettings | None = None,
    seed: int = 0,
    stop_token: int | None = None,
) -> Iterator[int]:
    """Continues a prompt, giving each token as soon as it is drawn.

    The first call for a model builds its cached form and compiles two steps, for the prompt
    and for one token; later calls reuse them until the model gets other variables, as from
    `quantize`. New values of the same variables are always seen.

    Args:
        model: of `bigmodel_utils.models.build_language_model`, also quantized or adapted.
        prompt_tokens: at least one token, shape `(num_prompt_tokens,)`.
        num_tokens: most tokens to add; prompt and new tokens must fit into the context.
        sampling: how tokens are drawn; plain sampling if left out.
        seed: of the draws. Equal seeds give equal texts where logits are equal.
        stop_token: ends the text when it is drawn, and is not given out.

    Returns:
        An iterator over at most `num_tokens` new tokens. Bad input raises before it is
        returned.

    Raises:
        InputError: if the prompt is empty, holds a token that is not in the vocabulary, or
            does not fit into the context with `num_tokens` more.

    Limits:
        One text at a time, on TensorFlow or JAX. Close logits may differ between devices by
        rounding and lead to another text.

    Example:
        >>> from bigmodel_utils.models import LanguageModelSettings, build_language_model
        >>> settings = LanguageModelSettings(
        ...     vocabulary_size=50,
        ...     num_layers=1,
        ...     width=8,
        ...     num_heads=2,
        ...     feedforward_width=16,
        ...     context_length=10,
        ... )
        >>> len(list(stream(build_language_model(settings), [1, 2, 3], num_tokens=7)))
        7
    """
    decoder = _find_decoder(model)
    prompt = _check_tokens("prompt_tokens", prompt_tokens, decoder)
    check_integer("num_tokens", num_tokens, at_least=1)
    if len(prompt) + num_tokens > decoder.context_length:
        raise InputError(
            "num_tokens",
            f"and the prompt must fit into the context of {decoder.context_length} tokens",
            f"{len(prompt)} tokens in the prompt and {num_tokens} more",
            "ask for fewer, or keep only the end of the prompt",
        )
    if stop_token is not None:
        check_integer("stop_token", stop_token, at_least=0)
    generator = np.random.default_rng(check_integer("seed", seed, at_least=0))
    settings = SamplingSettings() if sampling is None else sampling

    def draw() -> Iterator[int]:
        logits, cache = decoder.read(prompt.tolist(), 0, make_empty_cache(decoder.cached_model))
        for place in range(len(prompt), len(prompt) + num_tokens):
            token = sample_token(logits, settings, generator=generator)
            if token == stop_token:
                return
            yield token
            if place + 1 < len(prompt) + num_tokens:
                logits, cache = decoder.read([token], place, cache)

    return draw()


def measure_cache_difference(
    model: Any, tokens: Sequence[int] | np.ndarray, *, num_prompt_tokens: int = 1
) -> float:
    """Measures how far the logits of cached decoding lie from those of one whole pass.

    The tokens are read as `stream` reads them, the prompt in one piece and each later one
    alone, and then by the model itself, all at once.

    Args:
        model: as for `stream`.
        tokens: a text of at least two tokens, shape `(num_tokens,)`, that fits into the context.
        num_prompt_tokens: how many of them are read in one piece.

    Returns:
        The largest absolute difference of a logit, over the end of the prompt and all later
        places.

    Raises:
        InputError: if the text is too short, too long or not of the vocabulary, or if the
            prompt leaves none of it to be read alone.

    Limits:
        One text, one device, one precision. Rounding grows with the logits: look at their size
        too.

    Example:
        >>> from bigmodel_utils.models import LanguageModelSettings, build_language_model
        >>> settings = LanguageModelSettings(
        ...     vocabulary_size=50,
        ...     num_layers=1,
        ...     width=8,
        ...     num_heads=2,
        ...     feedforward_width=16,
        ...     context_length=10,
        ... )
        >>> measure_cache_difference(build_language_model(settings), [1, 2, 3, 4]) < 1e-5
        True
    """
    decoder = _find_decoder(model)
    text = _check_tokens("tokens", tokens, decoder)
    if not 2 <= len(text) <= decoder.context_length:
        raise InputError(
            "tokens",
            f"must be from 2 to {decoder.context_length}, the context of the model",
            f"{len(text)} tokens",
            "pass a longer text, or a part of this one",
        )
    check_integer("num_prompt_tokens", num_prompt_tokens, at_least=1, at_most=len(text) - 1)
    whole = np.asarray(model(text[None].astype(np.int32), training=False))[0]
    cache = make_empty_cache(decoder.cached_model)
    logits, cache = decoder.read(text[:num_prompt_tokens].tolist(), 0, cache)
    found = [logits]
    for place in range(num_prompt_tokens, len(text)):
        logits, cache = decoder.read(text[place : place + 1].tolist(), place, cache)
        found.append(logits)
    return float(np.abs(np.stack(found) - whole[num_prompt_tokens - 1 :]).max())


class _Decoder:
    """The cached form of a model with its step compiled, and the variables that it holds."""

    def __init__(self, model: Any) -> None:
        self.variables = tuple(model.variables)
        self.cached_model = build_cached_model(model)
        self.context_length = int(self.cached_model.inputs[2].shape[1])
        self.vocabulary_size = int(self.cached_model.outputs[0].shape[-1])
        self._step = _compile_step(self.cached_model)

    def fits(self, model: Any) -> bool:
        """Whether the model still has the variables that the step was compiled with."""
        now = tuple(model.variables)
        return len(now) == len(self.variables) and all(map(operator.is_, now, self.variables))

    def read(
        self, tokens: Sequence[int], place: int, cache: list[Any]
    ) -> tuple[np.ndarray, list[Any]]:
        """Reads tokens from a place on; returns the logits after the last, and the cache."""
        length = len(tokens)
        if length > 1:
            length = min(self.context_length, max(SHORTEST_PIECE, 1 << (length - 1).bit_length()))
        # What padding leaves in the cache is overwritten before any token may see it.
        padded = np.zeros((1, length), np.int32)
        padded[0, : len(tokens)] = tokens
        last = np.asarray(len(tokens) - 1, np.int32)
        logits, cache = self._step(padded, np.asarray([place], np.int32), last, cache)
        return np.asarray(logits), cache


_DECODERS: weakref.WeakKeyDictionary[Any, _Decoder] = weakref.WeakKeyDictionary()


def _find_decoder(model: Any) -> _Decoder:
    decoder = _DECODERS.get(model)
    if decoder is None or not decoder.fits(model):
        decoder = _DECODERS[model] = _Decoder(model)
    return decoder


def _check_tokens(name: str, tokens: Any, decoder: _Decoder) -> np.ndarray:
    array = check_array(name, tokens, shape=(None,))
    if array.dtype.kind not in "iu" or array.min() < 0 or array.max() >= decoder.vocabulary_size:
        raise InputError(
            name,
            f"must hold integers from 0 to {decoder.vocabulary_size - 1}",
            f"{array.dtype} from {array.min()} to {array.max()}",
            "encode the text with the model's own tokenizer",
        )
    return array


def _compile_step(cached_model: Any) -> Callable[..., tuple[Any, list[Any]]]:
    """Returns a function of tokens, position, the last token's index and the cache."""
    import keras

    if keras.backend.backend() == "jax":
        return _compile_step_with_jax(cached_model)
    tf = import_extra("tensorflow", extra="tensorflow")

    @tf.function(jit_compile=True)  # type: ignore[untyped-decorator]
    def step(tokens: Any, position: Any, last: Any, cache: list[Any]) -> tuple[Any, list[Any]]:
        logits, *cache = cached_model([tokens, position, *cache], training=False)
        return logits[0, last], cache

    return step  # type: ignore[no-any-return]


def _compile_step_with_jax(cached_model: Any) -> Callable[..., tuple[Any, list[Any]]]:
    jax = import_extra("jax", extra="jax")

    # The old cache is given up, so that the new one can be written in its place.
    @functools.partial(jax.jit, donate_argnames="cache")
    def step(weights: Any, tokens: Any, position: Any, last: Any, cache: Any) -> Any:
        inputs = [tokens, position, *cache]
        (logits, *cache), _ = cached_model.stateless_call(*weights, inputs, training=False)
        return logits[0, last], cache

    def step_with_present_weights(*inputs: Any) -> tuple[Any, list[Any]]:
        weights = [
            [variable.value for variable in variables]
            for variables in (
                cached_model.trainable_variables,
                cached_model.non_trainable_variables,
            )
        ]
        logits, cache = step(weights, *inputs)
        return logits, cache

    return step_with_present_weights
