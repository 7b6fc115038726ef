"""Memory: what training and serving hold on each device."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction

from .._checks import check_choice, check_integer
from .._report import DTYPE_BYTES, Report, format_bytes
from ._architecture import Architecture, Weight, list_weights
from ._plan import STATES_PER_PARAMETER, Parallelism, TrainingPlan, check_fit

# Arrays as large as a feed-forward layer that its backward pass needs: what enters the
# activation, its parts that the derivative takes, what leaves it, and the product.
_KEPT_FEEDFORWARD = {"swiglu": 5, "geglu": 5, "gelu": 3, "relu": 1}
_KEPT_FUSED = {"swiglu": 3, "geglu": 3, "gelu": 2, "relu": 1}
_KEPT_SCORES = 3  # masked scores, their exponentials, the shares
# Arrays as large as the logits, in float32, while the loss is taken: logits, shifted
# logits, exponentials, the gradient. And as large as the last state, around them.
_KEPT_LOGITS, _KEPT_ENDS = 4, 4


@dataclass(frozen=True)
class MemoryReport(Report):
    """Bytes on the device that holds most.

    Attributes:
        weights: bytes of the weights that are multiplied.
        master_weights: bytes of the finer copy.
        gradients: bytes of the gradients of the weights.
        optimizer_states: bytes of what the optimizer keeps beside each parameter.
        gathered_weights: bytes of the block whose weights FSDP has fetched for the moment.
        activations: bytes that the forward pass keeps for the backward pass.
    """

    weights: int
    master_weights: int
    gradients: int
    optimizer_states: int
    gathered_weights: int
    activations: int

    @property
    def total(self) -> int:
        """Bytes of everything."""
        return sum(self.to_dict().values())

    def _list_rows(self) -> list[tuple[str, str]]:
        rows = {**self.to_dict(), "total": self.total}
        return [(name.replace("_", " "), format_bytes(value)) for name, value in rows.items()]


def estimate_memory(
    architecture: Architecture, plan: TrainingPlan, *, parallelism: Parallelism | None = None
) -> MemoryReport:
    r"""Estimates what one training step holds on the fullest device.

    Weights, gradients and states of the optimizer are exact: so many numbers, so many bytes
    each. With `n` parameters, ZeRO keeps `n`, `n/d`, … of them on each of `d` devices.
    Activations are the arrays that the backward pass needs, for a width `d`, feed-forward
    layers of `f` numbers and `h` heads over `s` tokens: per token and layer
    :math:`4d + 2q + 2k + v + a + cf + 3hs`, where `q`, `k`, `v` and `a` are the widths of all
    heads' queries, keys, values and outputs, and `c` is 5 for gated activations. Fused kernels
    keep :math:`4d + q + k + v + a + cf` with a `c` of 3.

    Args:
        architecture: the shape.
        plan: batch, formats, optimizer, recomputation.
        parallelism: how devices share the work; one device by default.

    Returns:
        Bytes by kind.

    Raises:
        InputError: if heads or the batch cannot be shared out evenly, or there are more stages
            than layers.

    Limits:
        Unfused activations are within a few percent of XLA's own account for a thousand tokens
        and more, and above it for small shapes, where it recomputes cheap arrays. Dropout would
        add a mask per place. Fragmentation, buffers of the network
        and the runtime's own memory come on top. Experts count their active share, and are
        not spread over devices. The pipeline runs one forward, one backward, so that its
        first stage holds as many microbatches as there are stages.

    Example:
        >>> shape = Architecture(
        ...     vocabulary_size=50,
        ...     num_layers=1,
        ...     width=8,
        ...     num_heads=2,
        ...     feedforward_width=16,
        ... )
        >>> memory = estimate_memory(shape, TrainingPlan(batch_size=2, sequence_length=10))
        >>> memory.optimizer_states == 2 * memory.weights
        True

    References:
        Rajbhandari et al., ZeRO (2020), figure 1; Korthikanti et al., Reducing Activation
        Recomputation in Large Transformer Models (2022), section 4: its 34 bytes per token and
        unit of width are these 32 of fused kernels and two masks of dropout.
    """
    shared = parallelism or Parallelism()
    microbatch = check_fit(architecture, plan, parallelism=shared)
    ends = {"first"} if shared.pipeline == 1 else {"first", "last"}
    reports = [_estimate_stage(architecture, plan, shared, end, microbatch) for end in ends]
    return max(reports, key=lambda report: report.total)


def count_kv_cache_bytes(
    architecture: Architecture,
    *,
    sequence_length: int,
    batch_size: int = 1,
    dtype: str = "bfloat16",
) -> int:
    """Counts the bytes of the cached keys and values of all layers, exactly.

    Per token and layer: a key and a value for each of their heads, or with latent attention
    one short vector and one rotary key. A windowed layer keeps its window.

    Args:
        architecture: the shape.
        sequence_length: tokens that are cached of each sequence.
        batch_size: sequences.
        dtype: format of the cache, such as `"bfloat16"` or `"int8"`.

    Returns:
        Bytes.

    Raises:
        InputError: if a number is below 1 or the format is unknown.

    Limits:
        Without the scales of a quantized cache, and without pages that are half full.

    Example:
        >>> shape = Architecture(
        ...     vocabulary_size=128_256,
        ...     num_layers=80,
        ...     width=8192,
        ...     num_heads=64,
        ...     feedforward_width=28_672,
        ...     num_key_value_heads=8,
        ... )
        >>> count_kv_cache_bytes(shape, sequence_length=1)  # Llama 3 70B, per token
        327680

    References:
        Shazeer, Fast Transformer Decoding (2019); Pope et al., Efficiently Scaling
        Transformer Inference (2022), section 3.3; DeepSeek-AI, DeepSeek-V2 (2024), table 1.
    """
    length = check_integer("sequence_length", sequence_length, at_least=1)
    batch = check_integer("batch_size", batch_size, at_least=1)
    check_choice("dtype", dtype, DTYPE_BYTES)
    per_token = architecture.kv_heads * (architecture.query_width + architecture.value_width)
    if architecture.latent is not None:
        per_token = architecture.latent.key_value_rank + architecture.latent.rotary_width
    windowed = architecture.num_windowed_layers
    places = (architecture.num_layers - windowed) * length
    places += windowed * min(length, architecture.window or length)
    return math.ceil(batch * places * per_token * DTYPE_BYTES[dtype])


def count_weight_bytes(architecture: Architecture, *, dtype: str = "bfloat16") -> int:
    """Counts the bytes of all weights in one format, exactly.

    Args:
        architecture: the shape.
        dtype: the format, such as `"bfloat16"` or `"int4"`.

    Returns:
        Bytes.

    Raises:
        InputError: if the format is unknown.

    Limits:
        Without the scales of a quantized format, which add 2 to 13 % to `"int4"`.

    Example:
        >>> shape = Architecture(
        ...     vocabulary_size=50,
        ...     num_layers=1,
        ...     width=8,
        ...     num_heads=2,
        ...     feedforward_width=16,
        ... )
        >>> count_weight_bytes(shape, dtype="float32")
        5856
    """
    check_choice("dtype", dtype, DTYPE_BYTES)
    return math.ceil(sum(weight.size for weight in list_weights(architecture)) * DTYPE_BYTES[dtype])


def count_checkpoint_bytes(architecture: Architecture, plan: TrainingPlan) -> int:
    """Counts the bytes of a checkpoint that training can go on from, exactly.

    It holds the weights, or in their place the finer copy if there is one, and the states of
    the optimizer.

    Args:
        architecture: the shape.
        plan: optimizer and formats.

    Returns:
        Bytes.

    Limits:
        Without names, shapes and the place in the data: kilobytes.

    Example:
        >>> shape = Architecture(
        ...     vocabulary_size=50,
        ...     num_layers=1,
        ...     width=8,
        ...     num_heads=2,
        ...     feedforward_width=16,
        ... )
        >>> plan = TrainingPlan(batch_size=2, sequence_length=10)
        >>> count_checkpoint_bytes(shape, plan) == 3 * 5856
        True
    """
    kept = plan.precision.master_weights or plan.precision.weights
    weights = [(weight, Fraction(1)) for weight in list_weights(architecture)]
    size = DTYPE_BYTES[kept] * sum(weight.size for weight, _ in weights)
    states = DTYPE_BYTES[plan.precision.optimizer_states] * _count_states(weights, plan.optimizer)
    return math.ceil(size + states)


def _estimate_stage(
    architecture: Architecture,
    plan: TrainingPlan,
    parallelism: Parallelism,
    end: str,
    microbatch: int,
) -> MemoryReport:
    shares = _list_shares(architecture, parallelism, end)
    numbers = _sum_sizes(weight.size * share for weight, share in shares)
    states = _count_states(shares, plan.optimizer)
    precision = plan.precision

    def store(count: int, dtype: str | None, from_stage: int) -> int:
        if dtype is None:
            return 0
        split = parallelism.data if parallelism.zero_stage >= from_stage else 1
        return math.ceil(math.ceil(count / split) * DTYPE_BYTES[dtype])

    gathered = 0.0
    if parallelism.zero_stage == 3:
        blocks = (w.size * share for w, share in shares if w.part not in ("embedding", "output"))
        layers = _count_stage_layers(architecture, parallelism)
        gathered = float(sum(blocks)) / layers * DTYPE_BYTES[precision.weights]
    return MemoryReport(
        weights=store(numbers, precision.weights, 3),
        master_weights=store(numbers, precision.master_weights, 1),
        gradients=store(numbers, precision.gradients, 2),
        optimizer_states=store(states, precision.optimizer_states, 1),
        gathered_weights=math.ceil(gathered),
        activations=_estimate_activations(architecture, plan, parallelism, end, microbatch),
    )


def _list_shares(
    architecture: Architecture, parallelism: Parallelism, end: str
) -> list[tuple[Weight, Fraction]]:
    """What one device of a stage holds: each weight as a tensor group splits it, and its share."""
    stages, shares = parallelism.pipeline, []
    is_last = end == "last" or stages == 1
    for weight in list_weights(architecture):
        share = Fraction(_count_stage_layers(architecture, parallelism), architecture.num_layers)
        if weight.part == "embedding":
            share = Fraction(end == "first")
        elif weight.name.startswith("final") or weight.part == "output":
            share = Fraction(is_last)
        copies = weight.copies
        if weight.part == "output" and stages > 1:
            copies = 1  # even if it is tied: the embedding lies on another device
        shape = weight.shape
        if _is_split(weight):
            shape = (*shape[:-1], math.ceil(shape[-1] / parallelism.tensor))
        shares.append((weight._replace(shape=shape, copies=copies), share))
    return shares


def _is_split(weight: Weight) -> bool:
    """Whether a tensor group splits it: matrices, and the biases of those split by columns."""
    if len(weight.shape) == 2:
        return weight.part != "router" and weight.name != "positions"
    return weight.name.endswith("_bias") and weight.name not in ("output_bias", "down_bias")


def _count_states(shares: list[tuple[Weight, Fraction]], optimizer: str) -> int:
    if optimizer == "adafactor":  # rows and columns of a matrix in place of its numbers
        return _sum_sizes(weight.copies * sum(weight.shape) * share for weight, share in shares)
    per_number = STATES_PER_PARAMETER[optimizer]
    return per_number * _sum_sizes(weight.size * share for weight, share in shares)


def _count_stage_layers(architecture: Architecture, parallelism: Parallelism) -> int:
    """Layers of the fullest stage."""
    return -(-architecture.num_layers // parallelism.pipeline)


def _sum_sizes(sizes: Iterable[Fraction]) -> int:
    return sum(math.ceil(size) for size in sizes)


def _estimate_activations(
    architecture: Architecture,
    plan: TrainingPlan,
    parallelism: Parallelism,
    end: str,
    microbatch: int,
) -> int:
    tokens = microbatch * plan.sequence_length
    size = DTYPE_BYTES[plan.precision.activations]
    tensor = parallelism.tensor
    whole = tensor if parallelism.is_sequence_parallel else 1
    layers = _count_stage_layers(architecture, parallelism)
    in_flight = 1.0
    if parallelism.pipeline > 1 and end == "first":
        stages, chunks = parallelism.pipeline, parallelism.num_chunks
        most = stages * (1 + (stages - 1) / (stages * chunks)) if chunks > 1 else stages
        in_flight = min(most, parallelism.num_microbatches)
    width = architecture.width / whole
    scores = 0.0
    if not plan.is_fused:
        scores = _KEPT_SCORES * architecture.num_heads * plan.sequence_length / tensor
    block = _count_block(architecture, is_fused=plan.is_fused) / tensor
    block += _count_replicated(architecture, is_fused=plan.is_fused) / whole
    kept = {"none": block + scores, "selective": block, "full": width}[plan.recomputation]
    working = {"none": 0.0, "selective": scores, "full": block + scores}[plan.recomputation]
    numbers = kept * layers * in_flight + working + _KEPT_ENDS * width
    total = tokens * size * numbers
    if end == "last" or parallelism.pipeline == 1:
        vocabulary = architecture.vocabulary_size / tensor
        total += tokens * DTYPE_BYTES["float32"] * _KEPT_LOGITS * vocabulary
    return math.ceil(total)


def _count_replicated(architecture: Architecture, *, is_fused: bool) -> int:
    """Numbers per token that a tensor group does not split: inputs and outputs of norms."""
    is_centred = architecture.normalization == "layer" and not is_fused
    extra = 1 if is_centred else 0
    return (2 + extra) * 2 * architecture.width


def _count_block(architecture: Architecture, *, is_fused: bool) -> float:
    """Numbers per token that attention and the feed-forward layer of one block keep."""
    queries = architecture.num_heads * architecture.query_width
    keys = architecture.kv_heads * architecture.query_width
    values = architecture.kv_heads * architecture.value_width
    mixed = architecture.num_heads * architecture.value_width
    is_turned = not architecture.num_positions and not is_fused
    turned = queries + keys if is_turned else 0  # by the rotary embedding
    inner: float = architecture.feedforward_width
    sparse = architecture.num_expert_layers
    if architecture.experts is not None and sparse:
        passed = architecture.experts.num_active + architecture.experts.num_shared
        dense = architecture.num_layers - sparse
        inner = (dense * inner + sparse * passed * architecture.experts.width) / (
            architecture.num_layers
        )
    kept = _KEPT_FUSED if is_fused else _KEPT_FEEDFORWARD
    return queries + keys + values + turned + mixed + kept[architecture.activation] * inner
