"""A report of this machine: the first half of what `bigmodel doctor` prints."""

from __future__ import annotations

import html
import os
import platform
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from ._devices import Device, describe_cpu, find_accelerators, measure_memory
from ._tiers import TierAdvice, recommend_tier, resolve_tier

# What is imported by one name may be installed under several.
_DISTRIBUTIONS = {
    "bigmodel_utils": ("bigmodel_utils",),
    "keras": ("keras",),
    "tensorflow": ("tensorflow", "tensorflow-cpu", "tf-nightly"),
    "jax": ("jax",),
    "numpy": ("numpy",),
}


@dataclass(frozen=True)
class MachineReport:
    """A machine: its software, memory and devices, and the tier that fits it.

    Args:
        platform: operating system and architecture.
        python: version of Python.
        versions: version by library, "not installed" where it is missing.
        num_cores: logical cores that this process may use.
        memory_bytes: memory of the machine; `None` where the system does not say.
        available_memory_bytes: what can be had without swapping; `None` likewise.
        devices: the CPU, then the accelerators.
        accelerators: how the search for accelerators went, in words.
        tier: the tier in force.
        advice: the tier that fits, and why.
    """

    platform: str
    python: str
    versions: dict[str, str]
    num_cores: int
    memory_bytes: int | None
    available_memory_bytes: int | None
    devices: tuple[Device, ...]
    accelerators: str
    tier: str
    advice: TierAdvice

    def to_dict(self) -> dict[str, Any]:
        """Returns the fields as a plain dictionary, ready for JSON."""
        return {**asdict(self), "devices": [device.to_dict() for device in self.devices]}

    def __rich__(self) -> Any:
        return build_rich_table(self.list_rows())

    def _repr_html_(self) -> str:
        rows = "".join(
            f'<tr><th scope="row">{html.escape(label)}</th><td>{html.escape(value)}</td></tr>'
            for label, value in self.list_rows()
        )
        return f"<table>{rows}</table>"

    def list_rows(self) -> list[tuple[str, str]]:
        """Labels and values, as they are shown."""
        total = _format_bytes(self.memory_bytes)
        available = _format_bytes(self.available_memory_bytes)
        advised = f"{self.advice.tier}. {self.advice.reason}"
        return [
            ("Platform", self.platform),
            ("Python", self.python),
            *self.versions.items(),
            ("Cores", str(self.num_cores)),
            ("Memory", f"{total}, available: {available}"),
            *((device.kind.upper(), _describe(device)) for device in self.devices),
            ("Accelerators", self.accelerators),
            ("Tier in force", self.tier),
            ("Tier that fits", advised),
        ]


def inspect_machine() -> MachineReport:
    """Describes this machine; works with no GPU, no backend and no Keras.

    Returns:
        The report. `print` it with rich, or let a notebook show it.

    Raises:
        InputError: if BIGMODEL_TIER holds no tier.

    Limits:
        Memory is that of the machine: a container's own limit is not read.

    Example:
        >>> inspect_machine().to_dict()["devices"][0]["kind"]
        'cpu'
    """
    tier = resolve_tier()
    accelerators, search = find_accelerators()
    devices = (describe_cpu(), *accelerators)
    memory_bytes, available_memory_bytes = measure_memory()
    return MachineReport(
        platform=f"{platform.system()} {platform.release()} {platform.machine()}",
        python=platform.python_version(),
        versions={name: _find_version(names) for name, names in _DISTRIBUTIONS.items()},
        num_cores=_count_cores(),
        memory_bytes=memory_bytes,
        available_memory_bytes=available_memory_bytes,
        devices=devices,
        accelerators=search,
        tier=tier,
        advice=recommend_tier(devices),
    )


def build_rich_table(rows: Iterable[tuple[str, str]]) -> Any:
    """Builds a table of labels and values that rich prints at the width of the terminal."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for label, value in rows:
        table.add_row(Text(label), Text(value))  # names may hold what looks like markup
    return table


def _find_version(distributions: tuple[str, ...]) -> str:
    for distribution in distributions:
        try:
            return version(distribution)
        except PackageNotFoundError:
            continue
    return "not installed"


def _count_cores() -> int:
    if hasattr(os, "sched_getaffinity"):  # Linux: a container may be given only some
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _format_bytes(value: int | None) -> str:
    return "unknown" if value is None else f"{value / 2**30:.1f} GiB"


def _describe(device: Device) -> str:
    if device.spec is None:
        hint = " until measured: measure_cpu_rates()" if device.kind == "cpu" else ""
        rates = f"peak rates unknown{hint}"
    else:
        flops = (f"{dtype} {rate / 1e12:.4g}" for dtype, rate in device.spec.peak_flops.items())
        bandwidth = device.spec.bandwidth_bytes_per_second / 1e9
        rates = f"TFLOP/s at most: {', '.join(flops)}; memory {bandwidth:.4g} GB/s at most"
    memory = "" if device.kind == "cpu" else f", {_format_bytes(device.memory_bytes)}"
    return f"{device.name}{memory}; {rates}"
