"""Time: which of arithmetic, memory and network a step waits for, and how long."""

from __future__ import annotations

import math
from dataclasses import dataclass

from .._checks import InputError, check_choice, check_integer, check_real
from .._report import DTYPE_BYTES, Report, format_count, format_seconds
from ..hardware import DeviceSpec
from ._architecture import Architecture, list_weights
from ._flops import estimate_inference_flops, estimate_training_flops
from ._memory import count_kv_cache_bytes, count_weight_bytes, estimate_memory
from ._plan import Parallelism, TrainingPlan, check_fit


@dataclass(frozen=True)
class Cluster:
    """Devices and the wires between them.

    Attributes:
        device: peak rates of one device, as `bigmodel_utils.hardware.find_device_spec` gives.
        node_size: devices that share fast wires.
        node_bytes_per_second: bytes per second that a device sends to others of its node.
        network_bytes_per_second: bytes per second that a device sends to other nodes.
        utilization: share of the peak that matrix products reach, from 0 to 1. The default is
            the median of published runs on A100s; `fit_utilization` has those of others.

    Raises:
        InputError: if a rate is not positive.

    Limits:
        Vendors add up both directions of a wire; half of it is meant here.
    """

    device: DeviceSpec
    node_size: int = 8
    node_bytes_per_second: float = 450e9
    network_bytes_per_second: float = 50e9
    utilization: float = 0.45

    def __post_init__(self) -> None:
        check_integer("node_size", self.node_size, at_least=1)
        check_real("node_bytes_per_second", self.node_bytes_per_second, at_least=1)
        check_real("network_bytes_per_second", self.network_bytes_per_second, at_least=1)
        check_real("utilization", self.utilization, at_least=1e-6, at_most=1)

    def get_bytes_per_second(self, num_devices: int) -> float:
        """What a device sends within a group of this size: a node's wires if the group fits."""
        if num_devices <= self.node_size:
            return self.node_bytes_per_second
        return self.network_bytes_per_second

    def get_peak_flops(self, dtype: str) -> float:
        """Peak operations per second in a format.

        Raises:
            InputError: if the device's source states none.
        """
        check_choice("dtype", dtype, tuple(self.device.peak_flops))
        return self.device.peak_flops[dtype]


@dataclass(frozen=True)
class StepTime(Report):
    """Seconds that one step would take if only one thing held it up, and what does.

    Attributes:
        compute_seconds: matrix products at the utilization of the cluster.
        memory_seconds: moving weights, states, caches and activations.
        network_seconds: sending what devices share.
        bubble: share of the step, in addition, in which stages of a pipeline wait.
        num_tokens: tokens that the step trains on or writes.
        model_utilization: operations that the model needs over what the peaks allow ("MFU").
    """

    compute_seconds: float
    memory_seconds: float
    network_seconds: float
    bubble: float
    num_tokens: int
    model_utilization: float

    @property
    def seconds(self) -> float:
        """Seconds of the step, if all three overlap perfectly."""
        return max(self._bounds.values()) * (1 + self.bubble)

    @property
    def bound(self) -> str:
        """What the step waits for: "compute", "memory" or "network"."""
        return max(self._bounds, key=lambda name: self._bounds[name])

    @property
    def tokens_per_second(self) -> float:
        """Tokens per second of all devices together."""
        return self.num_tokens / self.seconds

    @property
    def _bounds(self) -> dict[str, float]:
        return {
            "compute": self.compute_seconds,
            "memory": self.memory_seconds,
            "network": self.network_seconds,
        }

    def _list_rows(self) -> list[tuple[str, str]]:
        rows = [(name, format_seconds(value)) for name, value in self._bounds.items()]
        return [
            *rows,
            ("waiting in the pipeline", f"{self.bubble:.1%}"),
            ("step", f"{format_seconds(self.seconds)}, bound by {self.bound}"),
            ("tokens per second", format_count(self.tokens_per_second)),
            ("model utilization", f"{self.model_utilization:.1%}"),
        ]


def estimate_step_time(
    architecture: Architecture,
    plan: TrainingPlan,
    *,
    cluster: Cluster,
    parallelism: Parallelism | None = None,
    attention_pairs: str = "all",
) -> StepTime:
    r"""Estimates the time of a training step by a roofline over arithmetic, memory, network.

    Arithmetic: operations, with recomputation, over peak × utilization. Memory: weights are
    read once per pass and microbatch, gradients and states are read and written, activations
    are written and read. Network: a tensor group of `t` sums its results four times per
    layer, at :math:`2(t-1)/t` of their bytes by a ring; `d` data groups sum gradients at
    :math:`2(d-1)/d`, FSDP at :math:`3(d-1)/d` of the weights. A pipeline of `p` stages and
    `m` microbatches waits for :math:`(p-1)/m` of its work, less with stages cut into chunks.

    Args:
        architecture: the shape.
        plan: batch, formats, recomputation.
        cluster: devices, wires, utilization.
        parallelism: how devices share the work; one device by default.
        attention_pairs: `"all"` or `"seen"`, see `estimate_forward_flops`.

    Returns:
        The three times and which is longest.

    Raises:
        InputError: if shapes do not divide, or the device has no rate for the format of the
            activations.

    Limits:
        A lower bound but for the utilization: perfect overlap, no latency, no congestion, no
        failures, no reading of data. The utilization of published runs holds their waiting and
        sending already: beside a pipeline's bubble, state that of the products alone.

    Example:
        >>> from bigmodel_utils.hardware import find_device_spec
        >>> shape = Architecture(
        ...     vocabulary_size=50,
        ...     num_layers=1,
        ...     width=8,
        ...     num_heads=2,
        ...     feedforward_width=16,
        ... )
        >>> cluster = Cluster(find_device_spec("NVIDIA A100-SXM4-80GB"))
        >>> plan = TrainingPlan(batch_size=2, sequence_length=10)
        >>> estimate_step_time(shape, plan, cluster=cluster).bound
        'memory'

    References:
        Williams et al., Roofline (2009); Patarasuk and Yuan, Bandwidth Optimal All-reduce
        Algorithms (2009); Narayanan et al., Efficient Large-Scale Language Model Training on
        GPU Clusters (2021), section 2.2; Rajbhandari et al., ZeRO (2020), section 7.
    """
    shared = parallelism or Parallelism()
    check_fit(architecture, plan, parallelism=shared)
    flops = estimate_training_flops(
        architecture,
        num_tokens=plan.num_tokens,
        sequence_length=plan.sequence_length,
        recomputation=plan.recomputation,
        attention_pairs=attention_pairs,
    )
    peak = cluster.get_peak_flops(plan.precision.activations) * shared.num_devices
    compute = flops.total / (peak * cluster.utilization)
    memory = _count_moved_bytes(architecture, plan, shared)
    network = _estimate_network(architecture, plan, shared, cluster)
    memory /= cluster.device.bandwidth_bytes_per_second
    bubble = (shared.pipeline - 1) / (shared.num_microbatches * shared.num_chunks)
    seconds = max(compute, memory, network) * (1 + bubble)
    utilization = flops.model_flops / (peak * seconds)
    return StepTime(compute, memory, network, bubble, plan.num_tokens, utilization)


def estimate_token_time(
    architecture: Architecture,
    *,
    context_length: int,
    cluster: Cluster,
    batch_size: int = 1,
    num_devices: int = 1,
    dtype: str = "bfloat16",
) -> StepTime:
    """Estimates the time of writing one token per sequence, by a roofline.

    Every weight that a token meets, and every sequence's cache, is read once: for small
    batches reading takes longer than the products. Of the experts, as many are read as the
    batch can touch. Devices split every matrix, and sum twice per layer.

    Args:
        architecture: the shape.
        context_length: tokens that are cached of each sequence.
        cluster: devices, wires, utilization.
        batch_size: sequences that write side by side.
        num_devices: devices of the tensor group.
        dtype: format of weights, cache and products.

    Returns:
        The three times and which is longest.

    Raises:
        InputError: if a number is below 1, or the device has no rate for the format.

    Limits:
        A lower bound: peak bandwidth, perfect overlap, no latency, which is what holds up
        small models.

    Example:
        >>> from bigmodel_utils.hardware import find_device_spec
        >>> shape = Architecture(
        ...     vocabulary_size=128_256,
        ...     num_layers=32,
        ...     width=4096,
        ...     num_heads=32,
        ...     feedforward_width=14_336,
        ...     num_key_value_heads=8,
        ... )
        >>> cluster = Cluster(find_device_spec("NVIDIA H100 80GB HBM3"))
        >>> estimate_token_time(shape, context_length=1000, cluster=cluster).bound
        'memory'

    References:
        Pope et al., Efficiently Scaling Transformer Inference (2022), section 3.
    """
    length = check_integer("context_length", context_length, at_least=1)
    batch = check_integer("batch_size", batch_size, at_least=1)
    devices = check_integer("num_devices", num_devices, at_least=1)
    peak = cluster.get_peak_flops(dtype) * devices
    flops = estimate_inference_flops(
        architecture, prompt_length=length, num_new_tokens=2, batch_size=batch
    ).decode
    moved = _count_read_bytes(architecture, batch, dtype) + count_kv_cache_bytes(
        architecture, sequence_length=length + 1, batch_size=batch, dtype=dtype
    )
    sums = 2 * architecture.num_layers * _count_ring(devices)
    sent = sums * batch * architecture.width * DTYPE_BYTES[dtype]
    compute = flops / (peak * cluster.utilization)
    memory = moved / (devices * cluster.device.bandwidth_bytes_per_second)
    network = sent / cluster.get_bytes_per_second(devices)
    utilization = flops / (peak * max(compute, memory, network))
    return StepTime(compute, memory, network, 0.0, batch, utilization)


def find_smallest_cluster(
    architecture: Architecture, *, device: DeviceSpec, dtype: str = "bfloat16"
) -> int:
    """Finds how few devices hold the weights of a model, without room for anything else.

    Args:
        architecture: the shape.
        device: with a known memory.
        dtype: format of the weights.

    Returns:
        The number of devices.

    Raises:
        InputError: if the device's memory is not known.

    Limits:
        Serving needs the cache and training sixteen bytes per parameter on top.

    Example:
        >>> from bigmodel_utils.hardware import find_device_spec
        >>> shape = Architecture(
        ...     vocabulary_size=128_256,
        ...     num_layers=80,
        ...     width=8192,
        ...     num_heads=64,
        ...     feedforward_width=28_672,
        ...     num_key_value_heads=8,
        ... )
        >>> find_smallest_cluster(shape, device=find_device_spec("NVIDIA H100 80GB HBM3"))
        2
    """
    if device.memory_bytes is None:
        raise InputError("device", "must have a known memory", device.name, "state its memory")
    return -(-count_weight_bytes(architecture, dtype=dtype) // device.memory_bytes)


def _count_moved_bytes(
    architecture: Architecture, plan: TrainingPlan, parallelism: Parallelism
) -> float:
    """Bytes between the fullest device and its memory in one step."""
    held = estimate_memory(architecture, plan, parallelism=parallelism)
    passes = 2 if plan.recomputation == "none" else 3
    weights = held.weights
    if parallelism.zero_stage == 3:  # what is gathered is read, not what is held
        weights *= parallelism.data
    repeated = parallelism.num_microbatches * (passes * weights + 2 * held.gradients)
    kept = 2 * held.activations * parallelism.num_microbatches
    in_flight = min(parallelism.pipeline, parallelism.num_microbatches)
    return repeated + kept / in_flight + 2 * (held.optimizer_states + held.master_weights)


def _estimate_network(
    architecture: Architecture, plan: TrainingPlan, parallelism: Parallelism, cluster: Cluster
) -> float:
    """Seconds that the busiest device sends in one step."""
    data, tensor, stages = parallelism.data, parallelism.tensor, parallelism.pipeline
    size = DTYPE_BYTES[plan.precision.activations]
    state = plan.num_tokens / data * architecture.width * size
    sums = 4 if plan.recomputation != "full" else 6
    layers = math.ceil(architecture.num_layers / stages)
    sent = sums * layers * _count_ring(tensor) * state
    seconds = sent / cluster.get_bytes_per_second(tensor)

    numbers = sum(weight.size for weight in list_weights(architecture)) / (tensor * stages)
    if parallelism.zero_stage == 3:
        sent = 1.5 * _count_ring(data) * numbers * DTYPE_BYTES[plan.precision.weights]
        sent *= parallelism.num_microbatches
    else:
        sent = _count_ring(data) * numbers * DTYPE_BYTES[plan.precision.gradients]
    seconds += sent / cluster.get_bytes_per_second(data * tensor)
    if stages > 1:
        sent = 2 * state / tensor * parallelism.num_chunks
        seconds += sent / cluster.get_bytes_per_second(parallelism.num_devices)
    return float(seconds)


def _count_ring(num_devices: int) -> float:
    """Times its own bytes that a device sends when all sum an array in a ring."""
    return 2 * (num_devices - 1) / num_devices


def _count_read_bytes(architecture: Architecture, batch_size: int, dtype: str) -> float:
    """Bytes of the weights that a batch of tokens meets."""
    numbers = 0.0
    for weight in list_weights(architecture):
        if weight.part == "experts" and architecture.experts is not None:
            missed = 1 - architecture.experts.num_active / architecture.experts.num_experts
            numbers += weight.size * (1 - missed**batch_size)
        elif weight.part == "embedding":
            numbers += batch_size * architecture.width
        elif weight.part == "output":
            numbers += architecture.width * architecture.vocabulary_size
        else:
            numbers += weight.size
    return numbers * DTYPE_BYTES[dtype]
