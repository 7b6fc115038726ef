"""What this machine can do with this package: what `bigmodel doctor` prints."""

from __future__ import annotations

import os
import re
import statistics
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib import metadata, util
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import numpy as np

from ._checks import check_real
from ._report import Report, format_bytes, format_count, format_seconds
from .costs import PRECISIONS, Architecture, TrainingPlan, estimate_memory, estimate_training_flops
from .data._download import MIRROR_VARIABLE
from .hardware import (
    TIERS,
    Device,
    DeviceSpec,
    MachineReport,
    inspect_machine,
    recommend_precision,
)
from .hardware._machine import build_rich_table
from .recipes._closure import PACKAGE

# The reference language model, as `bigmodel_utils.artifacts` trains it; a test compares them.
# Stated here so that a machine without Keras gets its report too.
SHAPE = Architecture(
    vocabulary_size=2048,
    num_layers=4,
    width=160,
    num_heads=5,
    feedforward_width=432,
    is_tied=True,
)
PLAN = TrainingPlan(batch_size=32, sequence_length=128)
NUM_STEPS = 3208
UTILIZATION = 0.5
"""Share of the rate of products that a step is taken to reach. Measured for this model,
compiled by XLA, on a server's CPU that others used too: 0.53 on one core, 1.1 on two."""

_WORKLOAD = (
    f"training the reference language model: {NUM_STEPS} steps of {PLAN.batch_size} windows "
    f"of {PLAN.sequence_length} tokens"
)
_ASSUMPTIONS = (
    f"Estimates: matrix products at {UTILIZATION:.0%} of the rate that NumPy reached here in a "
    "moment, or that an accelerator's vendor states; nothing else takes time, which is too "
    "kind to accelerators, where a model this small waits for its launches. Memory is that of "
    "weights, optimizer and activations, without the runtime's own."
)
_MIRRORED_FILE = "mnist/mnist.npz"
TIMEOUT_SECONDS = 5.0


@dataclass(frozen=True)
class TierForecast:
    """What a tier's devices on this machine would need for the workload.

    Attributes:
        tier: `"cpu"`, `"gpu"` or `"full"`.
        devices: what would run it, in words.
        seconds: estimated time of all steps; `None` where no rate is known.
        memory_bytes: estimated memory on each device; `None` where there is no device.
        has_room: whether each device has that much; `None` where its memory is not known.
    """

    tier: str
    devices: str
    seconds: float | None = None
    memory_bytes: int | None = None
    has_room: bool | None = None

    def __str__(self) -> str:
        if self.memory_bytes is None:
            return self.devices
        seconds = "unknown time" if self.seconds is None else f"≈ {format_seconds(self.seconds)}"
        room = {True: "", False: ", more than there is", None: ", of an unknown memory"}
        memory = format_bytes(self.memory_bytes)
        return f"{seconds}, {memory}{room[self.has_room]}; on {self.devices}"


@dataclass(frozen=True)
class MissingExtra:
    """An extra of this package of which something is not installed.

    Attributes:
        name: name of the extra.
        libraries: what is missing, as pip calls it.
        command: the line that installs it.
    """

    name: str
    libraries: tuple[str, ...]
    command: str


@dataclass(frozen=True)
class MirrorCheck:
    """Whether the mirror of the data sets answers.

    Attributes:
        address: what was asked for; `None` if no mirror is set.
        is_reachable: whether it was served; `None` if nothing was asked.
        detail: the outcome in words.
    """

    address: str | None
    is_reachable: bool | None
    detail: str


@dataclass(frozen=True)
class ReadinessReport(Report):
    """A machine, what it would need for a stated workload, and what is not installed.

    Attributes:
        machine: devices, memory, versions, and the tier that fits.
        flops_per_second: float32 products that NumPy reached here.
        workload: what is forecast.
        forecasts: one per tier.
        assumptions: of the forecasts.
        missing_extras: what could be installed, and how.
        mirror: outcome of asking the mirror; `None` if it was not asked.
    """

    machine: MachineReport
    flops_per_second: float
    workload: str
    forecasts: tuple[TierForecast, ...]
    assumptions: str
    missing_extras: tuple[MissingExtra, ...]
    mirror: MirrorCheck | None = None

    def to_dict(self) -> dict[str, Any]:
        """Returns the fields as a plain dictionary, ready for JSON."""
        return super().to_dict() | {"machine": self.machine.to_dict()}

    def __rich__(self) -> Any:
        return build_rich_table(self._list_rows())

    def _list_rows(self) -> list[tuple[str, str]]:
        missing = [
            (f"Extra {extra.name}", f"lacks {', '.join(extra.libraries)}: {extra.command}")
            for extra in self.missing_extras
        ]
        return [
            *self.machine.list_rows(),
            ("Matrix products", f"{format_count(self.flops_per_second)} FLOP/s in float32"),
            ("Workload", self.workload),
            *((f"On tier {forecast.tier}", str(forecast)) for forecast in self.forecasts),
            ("Assumptions", self.assumptions),
            *(missing or [("Extras", "all are installed")]),
            *([("Mirror", self.mirror.detail)] if self.mirror else []),
        ]


def inspect_readiness(*, asks_mirror: bool = False) -> ReadinessReport:
    """Describes this machine, forecasts a known workload on it, and lists what is missing.

    Args:
        asks_mirror: ask the mirror of the data sets for a file; the only use of the network.

    Returns:
        The report; `print` it with rich, or let a notebook show it.

    Raises:
        InputError: if BIGMODEL_TIER holds no tier.

    Limits:
        Times are estimates from one rate, see the assumptions; a measurement of a step is
        better. Versions of what is installed are not held against their ranges.

    Example:
        >>> [forecast.tier for forecast in inspect_readiness().forecasts]
        ['cpu', 'gpu', 'full']
    """
    machine = inspect_machine()
    rate = measure_product_rate()
    return ReadinessReport(
        machine=machine,
        flops_per_second=rate,
        workload=_WORKLOAD,
        forecasts=estimate_tiers(machine, flops_per_second=rate),
        assumptions=_ASSUMPTIONS,
        missing_extras=find_missing_extras(),
        mirror=check_mirror() if asks_mirror else None,
    )


def measure_product_rate(*, budget_seconds: float = 0.3) -> float:
    """Measures how many float32 operations per second NumPy reaches in matrix products.

    The product is one of the workload's: all tokens of a batch into a feed-forward layer.

    Args:
        budget_seconds: how long to repeat; the median counts, as other programs may run.

    Returns:
        Operations per second, a multiply–add counting as two.

    Raises:
        InputError: if the budget is negative or no number.

    Limits:
        What NumPy's BLAS reaches with the threads it is given, at this shape. For the best of
        larger ones, `hardware.measure_cpu_rates` takes longer.

    Example:
        >>> measure_product_rate(budget_seconds=0.01) > 1e6
        True
    """
    budget = check_real("budget_seconds", budget_seconds, at_least=0)
    rows, width, columns = PLAN.num_tokens, SHAPE.width, SHAPE.feedforward_width
    left = np.ones((rows, width), np.float32)
    right = np.ones((width, columns), np.float32)
    product = np.matmul(left, right)  # starts the threads
    seconds: list[float] = []
    while sum(seconds) <= budget:
        started = time.perf_counter()
        np.matmul(left, right, out=product)
        seconds.append(time.perf_counter() - started)
    return 2.0 * rows * width * columns / statistics.median(seconds)


def estimate_tiers(machine: MachineReport, *, flops_per_second: float) -> tuple[TierForecast, ...]:
    """Estimates time and memory of the workload on the devices of each tier.

    Tier cpu is this machine's CPU, gpu its largest accelerator, full all of its accelerators
    with the batch dealt out among them.

    Args:
        machine: the machine, from `inspect_machine`.
        flops_per_second: float32 products that its CPU reaches.

    Returns:
        One forecast per tier; one without numbers where the machine lacks the devices.

    Raises:
        InputError: if the rate is not positive.

    Limits:
        See the assumptions of the report.

    Example:
        >>> forecasts = estimate_tiers(inspect_machine(), flops_per_second=1e11)
        >>> 1000 < forecasts[0].seconds < 10_000
        True
    """
    cpu, *accelerators = machine.devices
    rates = {"float32": flops_per_second}
    spec = DeviceSpec(cpu.name, "cpu", machine.memory_bytes, 1.0, rates, "measured here")
    accelerators.sort(key=lambda device: device.memory_bytes or 0, reverse=True)
    groups: tuple[list[Device], ...] = (
        [replace(cpu, memory_bytes=machine.memory_bytes, spec=spec)],
        accelerators[:1],
        accelerators if len(accelerators) > 1 else [],
    )
    return tuple(_estimate_tier(t, group) for t, group in zip(TIERS, groups, strict=True))


def find_missing_extras() -> tuple[MissingExtra, ...]:
    """Finds the extras of this package of which something is not installed.

    Returns:
        One entry per extra, in the order in which the package declares them. Extras that only
        gather others are left out.

    Limits:
        Nothing is found where the package itself runs from a folder, not installed.

    Example:
        >>> all(extra.command.startswith("pip install") for extra in find_missing_extras())
        True
    """
    try:
        return _find_missing_extras(metadata.requires(PACKAGE) or [])
    except metadata.PackageNotFoundError:
        return ()


def check_mirror(*, timeout_seconds: float = TIMEOUT_SECONDS) -> MirrorCheck:
    """Asks the mirror of the data sets whether it serves a file, without fetching it.

    Args:
        timeout_seconds: how long to wait for the answer, names and connections included.

    Returns:
        The outcome; no failure of the network raises.

    Raises:
        InputError: if the time is negative or no number.

    Limits:
        Asks for one file. Whether its content is right is checked when it is fetched.

    Example:
        >>> check_mirror().is_reachable is None or check_mirror().address is not None
        True
    """
    timeout = check_real("timeout_seconds", timeout_seconds, at_least=0)
    base = os.environ.get(MIRROR_VARIABLE)
    if not base:
        return MirrorCheck(None, None, f"none is set in {MIRROR_VARIABLE}: publishers serve files")
    address = f"{base.rstrip('/')}/{_MIRRORED_FILE}"
    answers: list[MirrorCheck] = []
    # Looking up a name has no time limit of its own: wait for the thread, not for the call.
    thread = threading.Thread(target=lambda: answers.append(_ask(address, timeout)), daemon=True)
    thread.start()
    thread.join(timeout)
    if not answers:
        return MirrorCheck(address, False, f"{address}: no answer within {timeout:g} seconds")
    return answers[0]


def _estimate_tier(tier: str, devices: Sequence[Device]) -> TierForecast:
    if not devices:
        lacking = {"gpu": "no accelerator here", "full": "fewer than two accelerators here"}
        return TierForecast(tier, lacking[tier])
    first = devices[0]
    policy = recommend_precision(first)
    dtype = policy.removeprefix("mixed_")
    precision = PRECISIONS["float32" if policy == "float32" else "keras_mixed"]
    # As many as divide the batch.
    num_devices = max(n for n in range(1, len(devices) + 1) if PLAN.batch_size % n == 0)
    share = replace(PLAN, batch_size=PLAN.batch_size // num_devices, precision=precision)
    flops = estimate_training_flops(
        SHAPE,
        num_tokens=share.num_tokens,
        sequence_length=share.sequence_length,
        attention_pairs="all",
    ).total
    rate = None if first.spec is None else first.spec.peak_flops.get(dtype)
    memory_bytes = estimate_memory(SHAPE, share).total
    known = [device.memory_bytes for device in devices[:num_devices]]
    return TierForecast(
        tier,
        first.name if num_devices == 1 else f"{num_devices} × {first.name}",
        None if rate is None else NUM_STEPS * flops / (rate * UTILIZATION),
        memory_bytes,
        None if None in known else min(filter(None, known)) >= memory_bytes,
    )


def _find_missing_extras(requirements: Sequence[str]) -> tuple[MissingExtra, ...]:
    """Reads requirements with their markers, such as `shap>=0.48; extra == "explain"`."""
    missing: dict[str, list[str]] = {}
    gathering = set()
    for line in requirements:
        requirement, _, marker = line.partition(";")
        extra = re.search(r"""extra == ['"]([\w-]+)['"]""", marker)
        name = re.match(r"[\w.-]+", requirement)
        platform = re.search(r"""sys_platform == ['"](\w+)['"]""", marker)
        if extra is None or name is None or (platform and platform.group(1) != sys.platform):
            continue
        if _normalize(name.group()) == _normalize(PACKAGE):
            gathering.add(extra.group(1))
        elif not _is_installed(name.group()):
            missing.setdefault(extra.group(1), []).append(name.group())
    return tuple(
        MissingExtra(extra, tuple(names), f'pip install "{PACKAGE}[{extra}]"')
        for extra, names in missing.items()
        if extra not in gathering
    )


def _is_installed(name: str) -> bool:
    try:
        metadata.distribution(name)
    except metadata.PackageNotFoundError:  # or under another name, as in tensorflow-cpu
        return util.find_spec(_normalize(name).replace("-", "_")) is not None
    return True


def _normalize(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _ask(address: str, timeout: float) -> MirrorCheck:
    try:
        request = Request(address, method="HEAD")  # noqa: S310  # the user's own setting
        with urlopen(request, timeout=timeout):  # noqa: S310
            return MirrorCheck(address, True, f"{address} is reachable")
    except HTTPError as error:
        error.close()
        reason = f"the server answers, but with status {error.code}"
    except Exception as error:  # an address that is none, a name that is unknown, a refusal
        reason = " ".join(str(error).strip("<>").split()) or type(error).__name__
    return MirrorCheck(address, False, f"{address} is not reachable: {reason}")
