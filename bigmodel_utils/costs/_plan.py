"""How a model is trained: batch, formats, optimizer, and how devices share the work."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from .._checks import InputError, check_choice, check_integer
from .._report import DTYPE_BYTES
from ._architecture import Architecture
from ._flops import RECOMPUTATIONS

STATES_PER_PARAMETER: Mapping[str, int] = {
    "sgd": 0,
    "momentum": 1,
    "adagrad": 1,
    "rmsprop": 1,
    "lion": 1,
    "adam": 2,
    "adamw": 2,
}
"""Numbers that an optimizer keeps beside each parameter, by its kind."""

OPTIMIZERS = (*STATES_PER_PARAMETER, "adafactor")


@dataclass(frozen=True)
class Precision:
    """The formats in which training keeps its numbers.

    Attributes:
        weights: those that are multiplied.
        gradients: of the weights.
        optimizer_states: such as Adam's two means.
        activations: what the forward pass keeps for the backward pass.
        master_weights: a second, finer copy that the optimizer changes; `None` for none.

    References:
        Micikevicius et al., Mixed Precision Training (2018), section 3.1; Rajbhandari et al.,
        ZeRO (2020), section 3.1, for the sixteen bytes per parameter.
    """

    weights: str = "float32"
    gradients: str = "float32"
    optimizer_states: str = "float32"
    activations: str = "float32"
    master_weights: str | None = None

    def __post_init__(self) -> None:
        for name, dtype in asdict(self).items():
            if dtype is not None:
                check_choice(name, dtype, DTYPE_BYTES)


PRECISIONS: Mapping[str, Precision] = {
    "float32": Precision(),
    # Keras' policy: variables stay in float32 and are rounded where they are used.
    "keras_mixed": Precision(activations="bfloat16"),
    # That of ZeRO and Megatron: 2 + 2 + 4 + 4 + 4 = 16 bytes per parameter with Adam.
    "mixed": Precision("bfloat16", "bfloat16", "float32", "bfloat16", "float32"),
}


@dataclass(frozen=True)
class Parallelism:
    """How devices share a model and its batch.

    Attributes:
        data: groups of devices that train on different sequences.
        tensor: devices that split every matrix between them.
        pipeline: stages of consecutive layers.
        zero_stage: what the `data` groups split instead of copying. 0: nothing; 1: the states
            of the optimizer; 2: gradients too; 3: weights too, which is FSDP.
        num_microbatches: parts of a group's batch that pass the pipeline one after another.
        num_chunks: parts into which each stage's layers are cut, to be passed in turn; more
            parts wait less and send more.
        is_sequence_parallel: the devices of a tensor group split the tokens where they do not
            split matrices.

    Raises:
        InputError: if a number is out of its range.

    Example:
        >>> Parallelism(data=4, tensor=8, pipeline=16).num_devices
        512

    References:
        Shoeybi et al., Megatron-LM (2019), for `tensor`; Narayanan et al., Efficient
        Large-Scale Language Model Training on GPU Clusters (2021), for `pipeline`;
        Rajbhandari et al., ZeRO (2020); Korthikanti et al., Reducing Activation Recomputation
        in Large Transformer Models (2022), for `is_sequence_parallel`.
    """

    data: int = 1
    tensor: int = 1
    pipeline: int = 1
    zero_stage: int = 0
    num_microbatches: int = 1
    num_chunks: int = 1
    is_sequence_parallel: bool = False

    def __post_init__(self) -> None:
        for name in ("data", "tensor", "pipeline", "num_microbatches", "num_chunks"):
            check_integer(name, getattr(self, name), at_least=1)
        check_integer("zero_stage", self.zero_stage, at_least=0, at_most=3)

    @property
    def num_devices(self) -> int:
        """All devices."""
        return self.data * self.tensor * self.pipeline


@dataclass(frozen=True)
class TrainingPlan:
    """What training needs to know besides the architecture.

    Attributes:
        batch_size: sequences per step, over all devices.
        sequence_length: tokens of each.
        optimizer: one of `OPTIMIZERS`.
        precision: the formats.
        recomputation: `"none"`, `"selective"` or `"full"`, see `estimate_training_flops`.
        is_fused: attention and elementwise operations run as fused kernels, which never store
            scores, turned queries, or what the derivative of an activation can recompute.

    Raises:
        InputError: if a number is below 1 or a choice is unknown.

    Example:
        >>> TrainingPlan(batch_size=8, sequence_length=128).num_tokens
        1024

    References:
        Dao et al., FlashAttention (2022), section 3.1.
    """

    batch_size: int
    sequence_length: int
    optimizer: str = "adamw"
    precision: Precision = field(default_factory=Precision)
    recomputation: str = "none"
    is_fused: bool = False

    def __post_init__(self) -> None:
        check_integer("batch_size", self.batch_size, at_least=1)
        check_integer("sequence_length", self.sequence_length, at_least=1)
        check_choice("optimizer", self.optimizer, OPTIMIZERS)
        check_choice("recomputation", self.recomputation, RECOMPUTATIONS)

    @property
    def num_tokens(self) -> int:
        """Tokens per step."""
        return self.batch_size * self.sequence_length

    def to_dict(self) -> dict[str, Any]:
        """Returns the fields as a plain dictionary."""
        return asdict(self)


def check_fit(architecture: Architecture, plan: TrainingPlan, *, parallelism: Parallelism) -> int:
    """Returns the sequences of one microbatch, if the shapes divide.

    Raises:
        InputError: if heads or the batch cannot be shared out evenly, or there are more stages
            than layers.
    """
    shares = [
        (architecture.num_heads, "heads"),
        (architecture.kv_heads, "heads of keys and values"),
        (architecture.feedforward_width, "numbers inside a feed-forward layer"),
    ]
    tensor = parallelism.tensor
    for whole, what in shares:
        if whole % tensor:
            raise InputError("tensor", f"must divide the {what}, {whole}", tensor, "pass a divisor")
    check_integer("pipeline", parallelism.pipeline, at_most=architecture.num_layers)
    parts = parallelism.data * parallelism.num_microbatches
    if plan.batch_size % parts:
        raise InputError(
            "batch_size",
            f"must be a multiple of `data` × `num_microbatches`, {parts}",
            plan.batch_size,
            "change one of the three",
        )
    return plan.batch_size // parts
