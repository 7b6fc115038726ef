"""Rotary causal attention without weights, and the cache that it makes possible."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import layers, ops

from .._checks import InputError, check_integer

ROTARY_BASE = 10_000
"""Base of the wavelengths of the rotary embedding (Su et al., 2021, section 3.2.2)."""


@keras.saving.register_keras_serializable(package="bigmodel_utils")
class RotaryAttention(layers.Layer):  # type: ignore[misc]
    r"""Causal attention of tokens whose queries and keys are turned by their places.

    Has no weights: it takes queries, keys and values that a `Dense` layer projected side by
    side. Place `t` turns the pair `(u_i, u_{i + d/2})` of a head's `d` numbers by the angle
    :math:`t \cdot 10000^{-2i/d}`, so that the product of a query and a key depends on their
    distance alone. The turned head then mixes the values at places up to its own,
    :math:`\mathrm{softmax}(q K^T / \sqrt{d})\, V`.

    Args:
        num_heads: heads of the queries.
        num_key_value_heads: heads of the keys, and of the values; a divisor of `num_heads`.
        context_length: number of places.
        **kwargs: of `keras.layers.Layer`, such as `name`.

    Example:
        >>> attention = RotaryAttention(4, 2, context_length=10)
        >>> attention(np.ones((1, 10, (4 + 2 + 2) * 6), "float32")).shape == (1, 10, 4 * 6)
        True

    References:
        Vaswani et al., Attention Is All You Need (2017), equation 1; Su et al., RoFormer
        (2021), equation 34, with halves in place of neighbors as pairs, which only renames
        the numbers; Ainslie et al., GQA (2023).
    """

    def __init__(
        self, num_heads: int, num_key_value_heads: int, *, context_length: int, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.num_heads = num_heads
        self.num_key_value_heads = num_key_value_heads
        self.context_length = context_length

    def build(self, shape: tuple[int | None, ...]) -> None:
        """Tabulates the turns; called by Keras with the shape of the projections."""
        num_heads = self.num_heads + 2 * self.num_key_value_heads
        self.head_width = int(shape[-1] or 0) // num_heads
        frequencies = ROTARY_BASE ** (-np.arange(0, self.head_width, 2) / self.head_width)
        angles = np.outer(np.arange(self.context_length), frequencies)[:, None]
        self._turns = np.cos(angles), np.sin(angles)
        self.built = True

    @property
    def cache_shape(self) -> tuple[int, ...]:
        """Shape of the cache of one text: places, keys and values, heads, numbers per head."""
        return (self.context_length, 2, self.num_key_value_heads, self.head_width)

    def call(self, projections: Any, *, position: Any = None, cache: Any = None) -> Any:
        """Mixes the values that each token may see.

        Args:
            projections: queries, keys and values side by side, of shape
                `(batch, time, (num_heads + 2 · num_key_value_heads) · head_width)`.
            position: place of the first token in each text, shape `(batch,)`; with `cache`.
            cache: keys and values of earlier places, shape `(batch, *cache_shape)`.

        Returns:
            Shape `(batch, time, num_heads · head_width)`; with a cache also the new cache.

        Raises:
            InputError: if there are more tokens than places; Keras passes its message on as a
                `RuntimeError`.
        """
        time = ops.shape(projections)[1]
        if isinstance(time, int) and time > self.context_length:
            raise InputError(
                "tokens",
                f"must be at most `context_length`, {self.context_length}, at a time",
                time,
                "cut the text into windows",
            )
        num_keys = self.num_key_value_heads
        heads = ops.reshape(projections, (-1, time, self.num_heads + 2 * num_keys, self.head_width))
        turns = [ops.convert_to_tensor(turn, dtype=self.compute_dtype) for turn in self._turns]
        if cache is None:
            query, key, value = self._turn(heads, *(turn[:time] for turn in turns))
            return self._mix(query, key, value, is_causal=True)
        places = ops.expand_dims(position, 1) + ops.arange(time, dtype="int32")
        here = (ops.take(turn, places, axis=0) for turn in turns)
        query, key, value = self._turn(heads, *here)
        cache = _write(cache, ops.stack([key, value], axis=2), places)
        is_seen = ops.arange(self.context_length) <= places[:, None, :, None]
        return self._mix(query, *ops.unstack(cache, axis=2), mask=is_seen), cache

    def _turn(self, heads: Any, cosine: Any, sine: Any) -> tuple[Any, Any, Any]:
        """Splits projections into queries, keys and values, the first two turned."""
        num_keys = self.num_key_value_heads
        first, second = ops.split(heads[:, :, :-num_keys], 2, axis=-1)
        turned = ops.concatenate(
            [first * cosine - second * sine, second * cosine + first * sine], axis=-1
        )
        return turned[:, :, :-num_keys], turned[:, :, -num_keys:], heads[:, :, -num_keys:]

    def _mix(self, query: Any, key: Any, value: Any, **mask: Any) -> Any:
        if self.num_key_value_heads == 1:
            # Keras 3.15 shares one head among several on JAX, but not on TensorFlow.
            key, value = (ops.repeat(array, self.num_heads, axis=2) for array in (key, value))
        mixed = ops.dot_product_attention(query, key, value, **mask)
        return ops.reshape(mixed, (-1, ops.shape(mixed)[1], self.num_heads * self.head_width))

    def compute_output_spec(
        self,
        projections: Any,
        *,
        position: Any = None,  # noqa: ARG002
        cache: Any = None,
    ) -> Any:
        """Returns shapes and types of the outputs; called by Keras."""
        shape = (*projections.shape[:-1], self.num_heads * self.head_width)
        mixed = keras.KerasTensor(shape, self.compute_dtype)
        return mixed if cache is None else (mixed, keras.KerasTensor(cache.shape, cache.dtype))

    def get_config(self) -> dict[str, Any]:
        """Returns what `from_config` needs."""
        names = ("num_heads", "num_key_value_heads", "context_length")
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}


def build_cached_model(model: Any) -> Any:
    """Builds the form of a language model that reads a few tokens after a cache of the others.

    Keys and values of earlier tokens do not depend on later ones, so they are kept: a step
    costs one token's work where the model alone would repeat all of it. The cached form runs
    the model's own layers, in their present state: quantized, adapted or pruned ones too.

    Args:
        model: a functional model with `RotaryAttention`, such as `build_language_model`'s or
            one loaded from its file.

    Returns:
        A `keras.Model` from the list `[tokens, position, *cache]` to `[logits, *cache]`.
        Tokens are int32 of shape `(batch, time)`; `position`, int32 of shape `(batch,)`, is
        the place of the first of them in its text; the cache has, for each attention layer,
        an array of shape `(batch, context_length, 2, num_key_value_heads, head_width)`, keys
        before values (`make_empty_cache` gives the first). Logits are those of the tokens.

    Raises:
        InputError: if the model has no `RotaryAttention`.

    Limits:
        Build it again after `quantize` or `enable_lora`, which exchange variables. A position
        is trusted: beyond `context_length` TensorFlow raises on the CPU, and other devices drop
        the token silently. Call it with arrays of one kind, or by `predict_on_batch`.

    Example:
        >>> tokens = keras.Input((None,), dtype="int32")
        >>> attention = RotaryAttention(2, 2, context_length=10)
        >>> model = keras.Model(tokens, attention(layers.Embedding(50, (2 + 2 + 2) * 4)(tokens)))
        >>> [array.shape for array in build_cached_model(model).inputs]
        [(None, None), (None,), (None, 10, 2, 2, 4)]

    References:
        Shazeer, Fast Transformer Decoding: One Write-Head is All You Need (2019), section 2.4.
    """
    attentions = [layer for layer in model.layers if isinstance(layer, RotaryAttention)]
    if not attentions:
        raise InputError(
            "model",
            "must be a functional model with `RotaryAttention` layers",
            f"layers of {sorted({type(layer).__name__ for layer in model.layers})}",
            "pass a model of `build_language_model`",
        )
    position = keras.Input((), dtype="int32", name="position")
    cache = {
        layer.name: keras.Input(
            layer.cache_shape, dtype=layer.compute_dtype, name=f"{layer.name}_cache"
        )
        for layer in attentions
    }
    updated = {}

    def copy_attention(layer: Any) -> Any:
        # A copy, which loses nothing as there are no weights: Keras cannot hold one layer that
        # returns one array here and two there.
        is_attention = isinstance(layer, RotaryAttention)
        return RotaryAttention.from_config(layer.get_config()) if is_attention else layer

    def call(layer: Any, *inputs: Any, **options: Any) -> Any:
        if not isinstance(layer, RotaryAttention):
            return layer(*inputs, **options)
        mixed, updated[layer.name] = layer(*inputs, position=position, cache=cache[layer.name])
        return mixed

    # All inputs belong to the model that is walked, or its outputs would hang in the air.
    walked = keras.Model([*model.inputs, position, *cache.values()], model.outputs)
    clone = keras.models.clone_model(
        walked, input_tensors=walked.inputs, clone_function=copy_attention, call_function=call
    )
    outputs = [*clone.outputs, *(updated[name] for name in cache)]
    return keras.Model(walked.inputs, outputs, name=f"cached_{model.name}")


def make_empty_cache(cached_model: Any, *, batch_size: int = 1) -> list[Any]:
    """Makes the cache that a text begins with.

    Args:
        cached_model: a model of `build_cached_model`.
        batch_size: number of texts that are generated side by side.

    Returns:
        Arrays of zeros on the device, one per attention layer, each of shape
        `(batch_size, context_length, 2, num_key_value_heads, head_width)`.

    Raises:
        InputError: if `batch_size` is below 1.
    """
    check_integer("batch_size", batch_size, at_least=1)
    return [
        ops.zeros((batch_size, *array.shape[1:]), dtype=array.dtype)
        for array in cached_model.inputs[2:]
    ]


def _write(cache: Any, news: Any, places: Any) -> Any:
    """Puts keys and values `(batch, time, …)` into the cache at places `(batch, time)`."""
    texts = ops.broadcast_to(ops.arange(ops.shape(places)[0])[:, None], ops.shape(places))
    indices = ops.reshape(ops.stack([texts, places], axis=-1), (-1, 2))
    return ops.scatter_update(cache, indices, ops.reshape(news, (-1, *cache.shape[2:])))
