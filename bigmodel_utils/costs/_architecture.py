"""The shape of a transformer, and the list of weights that it implies."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from math import prod
from typing import Any, NamedTuple

from .._checks import InputError, check_choice, check_integer

ACTIVATIONS = ("swiglu", "geglu", "gelu", "relu")
NORMALIZATIONS = ("rms", "layer")
GATED_ACTIVATIONS = ("swiglu", "geglu")


@dataclass(frozen=True)
class Experts:
    """Feed-forward layers of which a router picks a few for each token.

    Attributes:
        num_experts: experts among which the router picks.
        num_active: experts that it picks for a token.
        width: numbers per token inside one expert.
        num_shared: experts of the same width that every token passes.
        num_dense_layers: first layers that have one dense feed-forward layer instead.
        has_router_bias: the router adds a learned number per expert before it picks.

    References:
        Shazeer et al., Outrageously Large Neural Networks (2017); Dai et al., DeepSeekMoE
        (2024) for shared experts.
    """

    num_experts: int
    num_active: int
    width: int
    num_shared: int = 0
    num_dense_layers: int = 0
    has_router_bias: bool = False

    def __post_init__(self) -> None:
        for name in ("num_experts", "num_active", "width"):
            check_integer(name, getattr(self, name), at_least=1)
        for name in ("num_shared", "num_dense_layers"):
            check_integer(name, getattr(self, name), at_least=0)
        if self.num_active > self.num_experts:
            raise InputError(
                "num_active",
                f"must be at most `num_experts`, {self.num_experts}",
                self.num_active,
                "a token cannot pass more experts than there are",
            )


@dataclass(frozen=True)
class LatentAttention:
    """Attention whose keys and values are rebuilt from one short vector per token.

    Attributes:
        query_rank: numbers in the vector that queries are rebuilt from; 0 for none.
        key_value_rank: numbers in the vector that keys and values are rebuilt from.
        rotary_width: numbers per head that carry the position; the keys' are shared by all
            heads, and are cached beside the vector.
        value_width: numbers per head in a value.

    References:
        DeepSeek-AI, DeepSeek-V2 (2024), section 2.1.
    """

    query_rank: int
    key_value_rank: int
    rotary_width: int
    value_width: int

    def __post_init__(self) -> None:
        check_integer("query_rank", self.query_rank, at_least=0)
        for name in ("key_value_rank", "rotary_width", "value_width"):
            check_integer(name, getattr(self, name), at_least=1)


@dataclass(frozen=True)
class Architecture:
    """The shape of a decoder-only transformer: all that its costs depend on.

    The names are those of `bigmodel_utils.models.LanguageModelSettings`, and
    `Architecture.from_settings` takes one.

    Attributes:
        vocabulary_size: number of different tokens.
        num_layers: number of blocks.
        width: numbers per token in the residual stream.
        num_heads: attention heads.
        feedforward_width: numbers per token inside a dense feed-forward layer.
        num_key_value_heads: heads of keys and values; as many as `num_heads` by default.
        head_width: numbers per head in a query and a key, the rotary part of latent
            attention not included; `width / num_heads` by default.
        activation: `"swiglu"` or `"geglu"`, which need three matrices, or `"gelu"` or
            `"relu"`, which need two.
        normalization: `"rms"` has a scale, `"layer"` also a shift.
        num_norms_per_layer: 2; 1 where attention and feed-forward run side by side, 4 where
            their outputs are normalized too.
        has_query_key_norm: queries and keys are normalized, with one scale of `head_width`
            each for all heads of a layer.
        has_biases: every matrix of a block has a bias.
        is_tied: the embedding's matrix also makes the logits.
        num_positions: learned position vectors; 0 where positions need no weights.
        has_relative_positions: a matrix per layer projects relative positions
            (Transformer-XL).
        window: tokens that a windowed layer looks back at, itself included.
        num_windowed_layers: layers that look back at a window instead of at everything.
        experts: settings of the experts, if there are any.
        latent: settings of latent attention, if that is what it is.

    Raises:
        InputError: if a size is below 1, the heads do not divide, or a choice is unknown.

    Example:
        >>> shape = Architecture(
        ...     vocabulary_size=50,
        ...     num_layers=1,
        ...     width=8,
        ...     num_heads=2,
        ...     feedforward_width=16,
        ... )
        >>> shape.query_width, shape.kv_heads
        (4, 2)

    References:
        Vaswani et al., Attention Is All You Need (2017); Shazeer, GLU Variants Improve
        Transformer (2020); Ainslie et al., GQA (2023); Dai et al., Transformer-XL (2019).
    """

    vocabulary_size: int
    num_layers: int
    width: int
    num_heads: int
    feedforward_width: int
    num_key_value_heads: int | None = None
    head_width: int | None = None
    activation: str = "swiglu"
    normalization: str = "rms"
    num_norms_per_layer: int = 2
    has_query_key_norm: bool = False
    has_biases: bool = False
    is_tied: bool = False
    num_positions: int = 0
    has_relative_positions: bool = False
    window: int | None = None
    num_windowed_layers: int = 0
    experts: Experts | None = None
    latent: LatentAttention | None = None

    def __post_init__(self) -> None:
        sizes = ("vocabulary_size", "num_layers", "width", "num_heads", "feedforward_width")
        for name in (*sizes, "num_norms_per_layer"):
            check_integer(name, getattr(self, name), at_least=1)
        for name in ("num_key_value_heads", "head_width", "window"):
            if getattr(self, name) is not None:
                check_integer(name, getattr(self, name), at_least=1)
        check_integer("num_positions", self.num_positions, at_least=0)
        check_choice("activation", self.activation, ACTIVATIONS)
        check_choice("normalization", self.normalization, NORMALIZATIONS)
        least_windowed = 0 if self.window is None else 1
        most_windowed = 0 if self.window is None else self.num_layers
        check_integer(
            "num_windowed_layers",
            self.num_windowed_layers,
            at_least=least_windowed,
            at_most=most_windowed,
        )
        if self.head_width is None and self.width % self.num_heads:
            raise InputError(
                "width",
                f"must be a multiple of `num_heads`, {self.num_heads}",
                self.width,
                "or pass `head_width`",
            )
        if self.num_heads % self.kv_heads:
            raise InputError(
                "num_key_value_heads",
                f"must divide `num_heads`, {self.num_heads}",
                self.num_key_value_heads,
                "pass a divisor",
            )

    @classmethod
    def from_settings(cls, settings: Any) -> Architecture:
        """Takes the shape of a `bigmodel_utils.models.LanguageModelSettings`.

        Args:
            settings: an object with the fields of the same names; its embedding is tied, and
                its positions need no weights.

        Returns:
            The architecture of the model that `build_language_model` makes of it.
        """
        names = ["vocabulary_size", "num_layers", "width", "num_heads", "feedforward_width"]
        names += ["num_key_value_heads", "activation", "normalization"]
        return cls(**{name: getattr(settings, name) for name in names}, is_tied=True)

    @property
    def kv_heads(self) -> int:
        """Heads of keys and of values."""
        return self.num_key_value_heads or self.num_heads

    @property
    def query_width(self) -> int:
        """Numbers per head in a query, which its product with a key sums over."""
        own = self.head_width or self.width // self.num_heads
        return own + (self.latent.rotary_width if self.latent else 0)

    @property
    def value_width(self) -> int:
        """Numbers per head in a value."""
        return self.latent.value_width if self.latent else self.query_width

    @property
    def num_expert_layers(self) -> int:
        """Layers with experts."""
        if self.experts is None:
            return 0
        return max(0, self.num_layers - self.experts.num_dense_layers)

    def to_dict(self) -> dict[str, Any]:
        """Returns the fields as a plain dictionary."""
        return asdict(self)


class Weight(NamedTuple):
    """A kind of weight: `copies` arrays of one shape, of which a token meets `active`."""

    part: str
    name: str
    shape: tuple[int, ...]
    copies: int
    active: int

    @property
    def size(self) -> int:
        """Numbers in all copies together."""
        return prod(self.shape) * self.copies


def list_weights(architecture: Architecture) -> list[Weight]:
    """Lists every weight of a transformer: the one place that knows the equations.

    A matrix has the shape `(inputs, outputs)`. A tied output layer is listed with no copies,
    but a token meets its matrix once; an embedding is looked up, not multiplied.
    """
    width, vocabulary_size = architecture.width, architecture.vocabulary_size
    weights = [Weight("embedding", "tokens", (vocabulary_size, width), 1, 0)]
    if architecture.num_positions:
        shape = (architecture.num_positions, width)
        weights.append(Weight("embedding", "positions", shape, 1, 0))
    weights += _list_attention(architecture)
    weights += _list_feedforward(architecture)
    num_norms = architecture.num_norms_per_layer * architecture.num_layers
    weights += _list_norms(architecture, "normalization", "block", width, num_norms)
    weights += _list_norms(architecture, "normalization", "final", width, 1)
    copies = 0 if architecture.is_tied else 1
    weights.append(Weight("output", "logits", (width, vocabulary_size), copies, 1))
    return weights


def _list_attention(architecture: Architecture) -> Iterator[Weight]:
    layers, width, heads = architecture.num_layers, architecture.width, architecture.num_heads
    keys, values = architecture.query_width, architecture.value_width
    latent = architecture.latent
    if latent is None:
        yield from _list_matrix(architecture, "attention", "query", (width, heads * keys), layers)
        shape = (width, architecture.kv_heads * keys)
        for name in ("key", "value"):
            yield from _list_matrix(architecture, "attention", name, shape, layers)
    else:
        matrices = {
            "key_value_down": (width, latent.key_value_rank + latent.rotary_width),
            "key_value_up": (latent.key_value_rank, heads * (keys - latent.rotary_width + values)),
        }
        ranks = [latent.key_value_rank]
        if latent.query_rank:
            matrices["query_down"] = (width, latent.query_rank)
            matrices["query_up"] = (latent.query_rank, heads * keys)
            ranks.append(latent.query_rank)
        else:
            matrices["query"] = (width, heads * keys)
        for name, shape in matrices.items():
            yield from _list_matrix(architecture, "attention", name, shape, layers)
        for rank in ranks:
            yield from _list_norms(architecture, "attention", "latent", rank, layers)
    yield from _list_matrix(architecture, "attention", "output", (heads * values, width), layers)
    if architecture.has_query_key_norm:
        yield from _list_norms(architecture, "attention", "query_key", keys, 2 * layers)
    if architecture.has_relative_positions:
        yield Weight("attention", "relative_positions", (width, heads * keys), layers, 0)
        yield Weight("attention", "relative_biases", (heads * keys,), 2 * layers, 0)


def _list_feedforward(architecture: Architecture) -> Iterator[Weight]:
    experts, sparse = architecture.experts, architecture.num_expert_layers
    dense = architecture.num_layers - sparse
    if dense:
        width = architecture.feedforward_width
        yield from _list_mlp(architecture, "feedforward", width, dense, dense)
    if experts is None or not sparse:
        return
    shape = (architecture.width, experts.num_experts)
    yield Weight("router", "router", shape, sparse, sparse)
    if experts.has_router_bias:
        yield Weight("router", "router_bias", (experts.num_experts,), sparse, sparse)
    copies, active = sparse * experts.num_experts, sparse * experts.num_active
    yield from _list_mlp(architecture, "experts", experts.width, copies, active)
    if experts.num_shared:
        shared = sparse * experts.num_shared
        yield from _list_mlp(architecture, "shared_experts", experts.width, shared, shared)


def _list_mlp(
    architecture: Architecture, part: str, inner: int, copies: int, active: int
) -> Iterator[Weight]:
    names = ("gate", "up") if architecture.activation in GATED_ACTIVATIONS else ("up",)
    for name in names:
        shape = (architecture.width, inner)
        yield from _list_matrix(architecture, part, name, shape, copies, active)
    yield from _list_matrix(architecture, part, "down", (inner, architecture.width), copies, active)


def _list_matrix(
    architecture: Architecture,
    part: str,
    name: str,
    shape: tuple[int, int],
    copies: int,
    active: int | None = None,
) -> Iterator[Weight]:
    active = copies if active is None else active
    yield Weight(part, name, shape, copies, active)
    if architecture.has_biases:
        yield Weight(part, f"{name}_bias", shape[1:], copies, active)


def _list_norms(
    architecture: Architecture, part: str, name: str, width: int, copies: int
) -> Iterator[Weight]:
    yield Weight(part, f"{name}_scale", (width,), copies, copies)
    if architecture.normalization == "layer":
        yield Weight(part, f"{name}_shift", (width,), copies, copies)
