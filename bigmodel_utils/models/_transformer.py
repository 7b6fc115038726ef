"""A decoder-only transformer, made of standard layers around one layer without weights.

Every weight belongs to a `Dense`, `ReversibleEmbedding` or normalization layer of Keras, so
saving, quantizing, adapting and pruning the model are what they are for these layers. What
Keras lacks, rotary causal attention, is a layer with nothing to save but three integers.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import keras
from keras import layers

from .._checks import InputError, check_choice, check_integer, check_real
from ._attention import RotaryAttention

ACTIVATIONS = ("swiglu", "gelu")
NORMALIZATIONS = ("rms", "layer")

INITIAL_DEVIATION = 0.02
"""Standard deviation of the initial weights (Radford et al., 2019, and their code)."""


@dataclass(frozen=True)
class LanguageModelSettings:
    """The architecture of a decoder-only transformer.

    Attributes:
        vocabulary_size: number of different tokens.
        num_layers: number of blocks, each of attention and a feed-forward layer.
        width: numbers per token in the residual stream.
        num_heads: attention heads; they divide `width` into parts of even size.
        feedforward_width: numbers per token inside a feed-forward layer.
        context_length: most tokens that the model can look at.
        num_key_value_heads: heads of keys and values, a divisor of `num_heads`, which is also
            the default; fewer heads share keys and values and shrink the cache.
        activation: `"swiglu"`, or `"gelu"` in its approximation by the hyperbolic tangent.
        normalization: `"rms"` divides by the root mean square, `"layer"` also centers.
        dropout: share of the numbers dropped in training, after the embedding and before each
            addition to the residual stream.

    Raises:
        InputError: if a size is below 1, the heads do not divide as said, or a choice is
            unknown.

    Example:
        >>> settings = LanguageModelSettings(
        ...     vocabulary_size=512,
        ...     num_layers=2,
        ...     width=64,
        ...     num_heads=4,
        ...     feedforward_width=128,
        ...     context_length=32,
        ... )
        >>> settings.head_width
        16
    """

    vocabulary_size: int
    num_layers: int
    width: int
    num_heads: int
    feedforward_width: int
    context_length: int
    num_key_value_heads: int | None = None
    activation: str = "swiglu"
    normalization: str = "rms"
    dropout: float = 0.0

    def __post_init__(self) -> None:
        check_integer("vocabulary_size", self.vocabulary_size, at_least=2)
        for name in ("num_layers", "width", "num_heads", "feedforward_width", "context_length"):
            check_integer(name, getattr(self, name), at_least=1)
        if self.width % (2 * self.num_heads):
            raise InputError(
                "width",
                f"must be a multiple of twice `num_heads`, {2 * self.num_heads}",
                self.width,
                "the rotary embedding turns pairs of numbers: give each head an even part",
            )
        if self.num_key_value_heads is not None:
            check_integer("num_key_value_heads", self.num_key_value_heads, at_least=1)
            if self.num_heads % self.num_key_value_heads:
                raise InputError(
                    "num_key_value_heads",
                    f"must divide `num_heads`, {self.num_heads}",
                    self.num_key_value_heads,
                    "pass a divisor",
                )
        check_choice("activation", self.activation, ACTIVATIONS)
        check_choice("normalization", self.normalization, NORMALIZATIONS)
        check_real("dropout", self.dropout, at_least=0, at_most=0.99)

    @property
    def head_width(self) -> int:
        """Numbers per token in one attention head."""
        return self.width // self.num_heads

    def to_dict(self) -> dict[str, Any]:
        """Returns the settings as a plain dictionary; `LanguageModelSettings(**it)` is equal."""
        return asdict(self)


def build_language_model(
    settings: LanguageModelSettings,
    *,
    learning_rate: Any = 1e-3,
    weight_decay: float = 0.1,
    global_clip_norm: float | None = 1.0,
) -> Any:
    r"""Builds and compiles a decoder-only transformer.

    Each block adds to the residual stream `x` first `attention(normalize(x))`, then
    `feedforward(normalize(x))`. SwiGLU's feed-forward layer is
    `(silu(x W_gate) · x W_up) W_down`. The embedding's matrix also turns the final state into
    logits. Weights begin as normal numbers of deviation 0.02, those that write to the
    residual stream divided by :math:`\sqrt{2 \cdot \text{num\_layers}}`. No layer has a bias,
    except that `"layer"` normalization learns a shift.

    Args:
        settings: the architecture.
        learning_rate: a number, or a `keras.optimizers.schedules.LearningRateSchedule`.
        weight_decay: of the matrices, by `MatrixAdamW`.
        global_clip_norm: gradients are shortened together to this norm; `None` leaves them.

    Returns:
        A compiled functional `keras.Model` from int32 tokens of shape `(batch, time)`,
        `time ≤ context_length`, to float32 logits of shape `(batch, time, vocabulary_size)`.
        It trains on the tokens shifted by one (see `bigmodel_utils.data.pack_tokens`). Layers
        are named by place: `"embedding"`, `"block_0_attention_qkv"`, `"block_0_attention"`,
        `"block_0_attention_output"`, `"block_0_feedforward_gate"`, `"…_up"`, `"…_down"`,
        `"final_normalization"`, `"logits"`.

    Raises:
        InputError: if `weight_decay` or `global_clip_norm` is negative.

    Limits:
        Padding is not masked: train on packed windows. The embedding is always tied. A saved
        file loads where `bigmodel_utils.models` has been imported. Exported to LiteRT with a
        free length it needs TensorFlow's own operations; with an `input_signature` of fixed
        length it does not.

    Example:
        >>> settings = LanguageModelSettings(
        ...     vocabulary_size=50,
        ...     num_layers=1,
        ...     width=8,
        ...     num_heads=2,
        ...     feedforward_width=16,
        ...     context_length=10,
        ... )
        >>> model = build_language_model(settings)
        >>> model.count_params() == 50 * 8 + (4 * 8 * 8 + 3 * 8 * 16) + 3 * 8
        True

    References:
        Vaswani et al., Attention Is All You Need (2017); Su et al., RoFormer (2021); Zhang and
        Sennrich, Root Mean Square Layer Normalization (2019); Shazeer, GLU Variants Improve
        Transformer (2020); Press and Wolf, Using the Output Embedding to Improve Language
        Models (2017); Ainslie et al., GQA (2023) for shared heads. Initialization: Radford et
        al., Language Models are Unsupervised Multitask Learners (2019). Optimizer's defaults:
        Brown et al., Language Models are Few-Shot Learners (2020), appendix B.
    """
    check_real("weight_decay", weight_decay, at_least=0)
    if global_clip_norm is not None:
        check_real("global_clip_norm", global_clip_norm, at_least=0)
    tokens = keras.Input((None,), dtype="int32", name="tokens")
    embedding = layers.ReversibleEmbedding(
        settings.vocabulary_size,
        settings.width,
        embeddings_initializer=keras.initializers.RandomNormal(stddev=INITIAL_DEVIATION),
        # Under mixed precision a logit of 10 in bfloat16 would be off by 0.03.
        reverse_dtype="float32",
        name="embedding",
    )
    flow = _drop(embedding(tokens), settings, "embedding")
    for block in range(settings.num_layers):
        for add_part in (_attend, _feed_forward):
            flow = add_part(flow, settings, f"block_{block}")
    state = _normalize(flow, settings, "final")
    logits = layers.Activation("linear", dtype="float32", name="logits")(
        embedding(state, reverse=True)
    )
    model = keras.Model(tokens, logits, name="language_model")
    model.compile(
        optimizer=MatrixAdamW(
            learning_rate,
            weight_decay=weight_decay,
            beta_2=0.95,
            epsilon=1e-8,
            global_clipnorm=global_clip_norm,
        ),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    return model


@keras.saving.register_keras_serializable(package="bigmodel_utils")
class MatrixAdamW(keras.optimizers.AdamW):  # type: ignore[misc]
    """AdamW whose weight decay spares vectors: the scales and shifts of normalization.

    Keras' `exclude_from_weight_decay` does the same but is not saved: a model loaded to go on
    training would decay everything.

    References:
        Loshchilov and Hutter, Decoupled Weight Decay Regularization (2019).
    """

    def build(self, variables: list[Any]) -> None:
        """Excludes the vectors and makes the moments; called by Keras."""
        if not self.built:
            vectors = [variable for variable in variables if len(variable.shape) < 2]
            self.exclude_from_weight_decay(var_list=vectors)
        super().build(variables)


@keras.saving.register_keras_serializable(package="bigmodel_utils")  # type: ignore[untyped-decorator]
def approximate_gelu(x: Any) -> Any:
    """GELU by the hyperbolic tangent, which every runtime has; off by at most 5e-4.

    References:
        Hendrycks and Gimpel, Gaussian Error Linear Units (2016), section 2.
    """
    return keras.activations.gelu(x, approximate=True)


def _attend(flow: Any, settings: LanguageModelSettings, block: str) -> Any:
    num_keys = settings.num_key_value_heads or settings.num_heads
    projected = _project(
        _normalize(flow, settings, f"{block}_attention"),
        (settings.num_heads + 2 * num_keys) * settings.head_width,
        name=f"{block}_attention_qkv",
    )
    mixed = RotaryAttention(
        settings.num_heads,
        num_keys,
        context_length=settings.context_length,
        name=f"{block}_attention",
    )(projected)
    return _add(flow, mixed, settings, f"{block}_attention", "output")


def _feed_forward(flow: Any, settings: LanguageModelSettings, block: str) -> Any:
    name, width = f"{block}_feedforward", settings.feedforward_width
    state = _normalize(flow, settings, name)
    if settings.activation == "swiglu":
        gate = _project(state, width, name=f"{name}_gate", activation="silu")
        up = _project(state, width, name=f"{name}_up")
        hidden = layers.Multiply(name=f"{name}_product")([gate, up])
    else:
        hidden = _project(state, width, name=f"{name}_up", activation=approximate_gelu)
    return _add(flow, hidden, settings, name, "down")


def _add(flow: Any, hidden: Any, settings: LanguageModelSettings, part: str, verb: str) -> Any:
    """Adds to the residual stream; smaller initial weights keep its variance over the depth."""
    scale = 1 / math.sqrt(2 * settings.num_layers)
    written = _project(hidden, settings.width, name=f"{part}_{verb}", scale=scale)
    return layers.Add(name=f"{part}_residual")([flow, _drop(written, settings, part)])


def _project(flow: Any, width: int, *, name: str, scale: float = 1, **options: Any) -> Any:
    initializer = keras.initializers.RandomNormal(stddev=INITIAL_DEVIATION * scale)
    return layers.Dense(
        width, use_bias=False, kernel_initializer=initializer, name=name, **options
    )(flow)


def _normalize(flow: Any, settings: LanguageModelSettings, part: str) -> Any:
    is_rms = settings.normalization == "rms"
    layer = layers.RMSNormalization if is_rms else layers.LayerNormalization
    # Keras' 1e-3 for the latter would outweigh the variance of the first states, 0.02².
    return layer(epsilon=1e-6, name=f"{part}_normalization")(flow)


def _drop(flow: Any, settings: LanguageModelSettings, part: str) -> Any:
    if settings.dropout == 0:
        return flow
    return layers.Dropout(settings.dropout, name=f"{part}_dropout")(flow)
