"""Operations of an architecture: forward, backward, the quadratic part, recomputation."""

from __future__ import annotations

from dataclasses import dataclass

from .._checks import check_choice, check_integer
from .._report import Report, format_count
from ._architecture import GATED_ACTIVATIONS, Architecture, list_weights
from ._parameters import count_parameters

RECOMPUTATIONS = ("none", "selective", "full")
ATTENTION_PAIRS = ("all", "seen")

# Operations per number, as a compiler counts them: an addition, a product, a root and an
# exponential are one each.
_NORM_FLOPS = {"rms": 4, "layer": 7}
_ACTIVATION_FLOPS = {"swiglu": 5, "geglu": 9, "gelu": 8, "relu": 1}
_SOFTMAX_FLOPS = 6  # scale, mask, subtract the largest, exponential, sum, divide
_ROTARY_FLOPS = 3  # two products and a sum


@dataclass(frozen=True)
class ForwardFlops(Report):
    """Operations of one forward pass; a multiplication and its addition are two.

    Attributes:
        parts: operations of the products with weights, by part of the architecture.
        attention: operations of the products of queries with keys and of the shares with
            values, which grow with the square of the length.
        elementwise: an estimate of all else: normalization, softmax, activations.
        num_tokens: tokens that were read.
    """

    parts: dict[str, int]
    attention: int
    elementwise: int
    num_tokens: int

    @property
    def matrix_products(self) -> int:
        """Operations of all matrix products, exact."""
        return sum(self.parts.values()) + self.attention

    @property
    def total(self) -> int:
        """All operations."""
        return self.matrix_products + self.elementwise

    def _list_rows(self) -> list[tuple[str, str]]:
        rows = {**self.parts, "attention's products": self.attention}
        rows |= {"elementwise": self.elementwise, "total": self.total}
        return [
            (label, f"{format_count(value)} ({value / self.total:.1%})")
            for label, value in rows.items()
        ]


@dataclass(frozen=True)
class TrainingFlops(Report):
    """Operations of training; those of the optimizer, a few per parameter, left out.

    Attributes:
        forward: matrix products of the forward pass.
        backward: those of the backward pass: the gradient of each product is two products.
        recomputation: those done a second time to save memory.
        attention: the part of the three that is attention's quadratic part.
        six_nd: the usual estimate, 6 × active parameters × tokens.
    """

    forward: int
    backward: int
    recomputation: int
    attention: int
    six_nd: int

    @property
    def model_flops(self) -> int:
        """What the model needs: forward and backward; utilization "MFU" is measured by it."""
        return self.forward + self.backward

    @property
    def total(self) -> int:
        """What the device does: with recomputation; utilization "HFU" is measured by it."""
        return self.model_flops + self.recomputation

    def _list_rows(self) -> list[tuple[str, str]]:
        rows = [
            ("forward", self.forward),
            ("backward", self.backward),
            ("recomputation", self.recomputation),
            ("total", self.total),
            ("of it attention's quadratic part", self.attention),
        ]
        shares = [(label, f"{format_count(n)} ({n / self.total:.1%})") for label, n in rows]
        error = self.six_nd / self.model_flops - 1
        return [*shares, ("6ND says", f"{format_count(self.six_nd)} ({error:+.1%})")]


@dataclass(frozen=True)
class InferenceFlops(Report):
    """Operations of reading a prompt and of writing after it, token by token, with a cache."""

    prefill: int
    decode: int
    num_new_tokens: int

    @property
    def total(self) -> int:
        """Both together."""
        return self.prefill + self.decode

    @property
    def per_new_token(self) -> float:
        """Mean of the written tokens."""
        return self.decode / max(1, self.num_new_tokens)

    def _list_rows(self) -> list[tuple[str, str]]:
        return [
            ("prompt", format_count(self.prefill)),
            ("new tokens", format_count(self.decode)),
            ("mean per new token", format_count(self.per_new_token)),
        ]


def estimate_forward_flops(
    architecture: Architecture,
    *,
    sequence_length: int,
    batch_size: int = 1,
    attention_pairs: str = "all",
) -> ForwardFlops:
    r"""Estimates the operations of one forward pass; matrix products exactly.

    A token's product with a matrix of `n` numbers is `2n` operations. A sequence of `s`
    tokens adds, in each layer with `h` heads, the products of `p` pairs of a query and a key
    of `w` numbers, and of as many shares with values of `v` numbers: :math:`2ph(w + v)`.

    Args:
        architecture: the shape.
        sequence_length: tokens `s` of each sequence.
        batch_size: sequences.
        attention_pairs: which pairs are multiplied. `"all"`: :math:`p = s^2`, as programs do
            that compute a matrix of scores and mask it. `"seen"`: those that causal and
            windowed attention let through, :math:`s(s + 1)/2` without a window, as programs
            do that skip the rest.

    Returns:
        The operations, by part.

    Raises:
        InputError: if a length is below 1 or a choice is unknown.

    Limits:
        The elementwise part is a rough count, right to a factor of two; its share falls as
        the width grows.

    Example:
        >>> shape = Architecture(
        ...     vocabulary_size=50,
        ...     num_layers=1,
        ...     width=8,
        ...     num_heads=2,
        ...     feedforward_width=16,
        ... )
        >>> flops = estimate_forward_flops(shape, sequence_length=10)
        >>> flops.matrix_products == 2 * 10 * (4 * 8 * 8 + 3 * 8 * 16 + 8 * 50) + 4 * 10**2 * 8
        True

    References:
        Narayanan et al., Efficient Large-Scale Language Model Training on GPU Clusters
        (2021), appendix; Hoffmann et al., Training Compute-Optimal Large Language Models
        (2022), appendix F.
    """
    length = check_integer("sequence_length", sequence_length, at_least=1)
    check_integer("batch_size", batch_size, at_least=1)
    check_choice("attention_pairs", attention_pairs, ATTENTION_PAIRS)
    num_tokens = length * batch_size
    parts = {part: numbers * 2 * num_tokens for part, numbers in sum_matrices(architecture).items()}
    pairs = batch_size * count_pairs(architecture, length, attention_pairs=attention_pairs)
    per_pair = 2 * architecture.num_heads * (architecture.query_width + architecture.value_width)
    elementwise = num_tokens * _count_elementwise(architecture)
    elementwise += _SOFTMAX_FLOPS * architecture.num_heads * pairs
    return ForwardFlops(parts, pairs * per_pair, elementwise, num_tokens)


def estimate_training_flops(
    architecture: Architecture,
    *,
    num_tokens: int,
    sequence_length: int,
    recomputation: str = "none",
    attention_pairs: str = "all",
) -> TrainingFlops:
    r"""Estimates the operations of training on a number of tokens.

    The backward pass is twice the forward pass: of each product `XW` it needs the gradients
    of both factors. Recomputation repeats a part of the forward pass: `"full"` that of every
    block, `"selective"` attention's quadratic part alone.

    `six_nd` is the usual estimate, :math:`6 N D`, with all active parameters `N` and `D`
    tokens. It is too low by attention's quadratic part, which it leaves out (about `s / 6d`
    of the whole for sequences of `s` tokens and a width `d`); too high by an embedding that
    is looked up and not multiplied, which is most of a small model; and it knows nothing of
    recomputation.

    Args:
        architecture: the shape.
        num_tokens: tokens `D` that are trained on.
        sequence_length: tokens `s` of each sequence.
        recomputation: `"none"`, `"selective"` or `"full"`.
        attention_pairs: `"all"` or `"seen"`, see `estimate_forward_flops`.

    Returns:
        The operations, by pass.

    Raises:
        InputError: if a number is below 1 or a choice is unknown.

    Limits:
        Matrix products only. Papers differ in what they count: most count all pairs, Llama 3
        about half of them. The tokens count as sequences of full length.

    Example:
        >>> shape = Architecture(
        ...     vocabulary_size=51200,
        ...     num_layers=96,
        ...     width=12288,
        ...     num_heads=96,
        ...     feedforward_width=49152,
        ...     activation="gelu",
        ...     normalization="layer",
        ...     has_biases=True,
        ...     is_tied=True,
        ...     num_positions=2048,
        ... )
        >>> flops = estimate_training_flops(shape, num_tokens=300_000_000_000, sequence_length=2048)
        >>> f"{flops.model_flops:.3g} {flops.six_nd:.3g}"
        '3.23e+23 3.14e+23'

    References:
        Kaplan et al., Scaling Laws for Neural Language Models (2020), section 2.1, for 6ND;
        Chowdhery et al., PaLM (2022), appendix B, for utilization; Korthikanti et al.,
        Reducing Activation Recomputation in Large Transformer Models (2022), section 5.
    """
    count = check_integer("num_tokens", num_tokens, at_least=1)
    check_choice("recomputation", recomputation, RECOMPUTATIONS)
    one = estimate_forward_flops(
        architecture, sequence_length=sequence_length, attention_pairs=attention_pairs
    )
    repeated = {
        "none": 0,
        "selective": one.attention,
        "full": one.matrix_products - one.parts["output"],
    }[recomputation]
    passes = 3 if recomputation == "none" else 4

    def scale(flops: int) -> int:
        return flops * count // sequence_length

    return TrainingFlops(
        forward=scale(one.matrix_products),
        backward=scale(2 * one.matrix_products),
        recomputation=scale(repeated),
        attention=scale(passes * one.attention),
        six_nd=6 * count_parameters(architecture).active * count,
    )


def estimate_inference_flops(
    architecture: Architecture, *, prompt_length: int, num_new_tokens: int, batch_size: int = 1
) -> InferenceFlops:
    """Estimates the operations of reading a prompt and writing after it with a cache.

    Each written token is multiplied with every active matrix once, and attends to all tokens
    before it. Latent attention reads its cache without rebuilding keys and values: a query
    is turned into the space of the short vectors, whose products cost more and whose reading
    costs less.

    Args:
        architecture: the shape.
        prompt_length: tokens of the prompt, which are read in one pass.
        num_new_tokens: tokens that are written, one pass each but for the first, which the
            prompt's pass gives.
        batch_size: sequences.

    Returns:
        The operations of both phases: matrix products only.

    Raises:
        InputError: if a number is out of its range.

    Limits:
        Counts the pairs that attention sees, and the logits of the prompt's last token only.

    Example:
        >>> shape = Architecture(
        ...     vocabulary_size=50,
        ...     num_layers=1,
        ...     width=8,
        ...     num_heads=2,
        ...     feedforward_width=16,
        ... )
        >>> flops = estimate_inference_flops(shape, prompt_length=10, num_new_tokens=2)
        >>> flops.decode == 2 * (4 * 8 * 8 + 3 * 8 * 16 + 8 * 50) + 4 * 11 * 8
        True

    References:
        Pope et al., Efficiently Scaling Transformer Inference (2022), section 2; DeepSeek-AI,
        DeepSeek-V2 (2024), appendix C, for latent attention.
    """
    prompt = check_integer("prompt_length", prompt_length, at_least=1)
    new = check_integer("num_new_tokens", num_new_tokens, at_least=1)
    check_integer("batch_size", batch_size, at_least=1)
    matrices = sum_matrices(architecture)
    read = estimate_forward_flops(architecture, sequence_length=prompt, attention_pairs="seen")
    logits = 2 * matrices["output"]
    prefill = read.matrix_products - (prompt - 1) * logits

    pairs = count_pairs(architecture, prompt + new - 1, attention_pairs="seen")
    pairs -= count_pairs(architecture, prompt, attention_pairs="seen")
    per_pair = architecture.query_width + architecture.value_width
    if architecture.latent is not None:
        per_pair = 2 * architecture.latent.key_value_rank + architecture.latent.rotary_width
    decode = (new - 1) * 2 * sum(matrices.values())
    decode += 2 * pairs * architecture.num_heads * per_pair
    return InferenceFlops(batch_size * prefill, batch_size * decode, batch_size * (new - 1))


def sum_matrices(architecture: Architecture) -> dict[str, int]:
    """Numbers in the matrices that one token is multiplied with, by part."""
    sums: dict[str, int] = {}
    for weight in list_weights(architecture):
        if len(weight.shape) == 2 and weight.active:
            numbers = weight.shape[0] * weight.shape[1] * weight.active
            sums[weight.part] = sums.get(weight.part, 0) + numbers
    return sums


def count_pairs(architecture: Architecture, length: int, *, attention_pairs: str) -> int:
    """Pairs of a query and a key in one sequence, summed over the layers."""
    if attention_pairs == "all":
        return architecture.num_layers * length**2
    window = min(architecture.window or length, length)
    everything = length * (length + 1) // 2
    windowed = window * (window + 1) // 2 + (length - window) * window
    num_windowed = architecture.num_windowed_layers
    return (architecture.num_layers - num_windowed) * everything + num_windowed * windowed


def _count_elementwise(architecture: Architecture) -> int:
    """Operations per token that are no products with matrices, without softmax."""
    layers, width = architecture.num_layers, architecture.width
    heads = architecture.num_heads + architecture.kv_heads
    norms = (architecture.num_norms_per_layer * layers + 1) * width
    inner = (layers - architecture.num_expert_layers) * architecture.feedforward_width
    if architecture.experts is not None:
        passed = architecture.experts.num_active + architecture.experts.num_shared
        inner += architecture.num_expert_layers * passed * architecture.experts.width
    flops = _NORM_FLOPS[architecture.normalization] * norms + 2 * layers * width
    flops += _ACTIVATION_FLOPS[architecture.activation] * inner
    if architecture.has_biases:
        gates = 2 if architecture.activation in GATED_ACTIVATIONS else 1
        flops += layers * (2 * width + heads * architecture.query_width) + gates * inner
    if architecture.num_positions:
        return flops + width
    return flops + _ROTARY_FLOPS * layers * heads * architecture.query_width
