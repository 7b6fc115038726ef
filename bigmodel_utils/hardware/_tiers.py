"""The tiers of the book: how much machine a run may ask for, and which fits this one."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from .._checks import check_choice
from ._devices import Device

TIERS = ("cpu", "gpu", "full")

# A "16 GB" card reports 14.8 to 16 GiB, an "8 GB" card can't hold what the gpu tier trains.
GPU_TIER_MEMORY_BYTES = 12 * 2**30


@dataclass(frozen=True)
class TierAdvice:
    """A tier, and the reason for it in one sentence."""

    tier: str
    reason: str

    def to_dict(self) -> dict[str, str]:
        """Returns the fields as a plain dictionary."""
        return asdict(self)


def resolve_tier(value: str | None = None) -> str:
    """Returns the tier in force.

    Args:
        value: "cpu", "gpu" or "full"; if left out, the environment variable BIGMODEL_TIER
            decides, and without it "cpu".

    Returns:
        The tier.

    Raises:
        InputError: if it is none of the three.

    Example:
        >>> resolve_tier("gpu")
        'gpu'
    """
    if value is None:
        value = os.environ.get("BIGMODEL_TIER") or "cpu"
    return check_choice("BIGMODEL_TIER", value, TIERS)


def recommend_tier(devices: Sequence[Device]) -> TierAdvice:
    """Says which tier fits a machine, and why.

    Args:
        devices: the devices of the machine, as `detect_devices` returns them.

    Returns:
        "full" for several accelerators with 12 GiB of memory or more each, "gpu" for one,
        else "cpu".

    Limits:
        Counts devices and memory, nothing else. An accelerator whose memory is not known
        does not count.

    Example:
        >>> recommend_tier([Device("Some CPU", "cpu")]).tier
        'cpu'
    """
    accelerators = [device for device in devices if device.kind != "cpu"]
    if not accelerators:
        return TierAdvice("cpu", "There is no accelerator that the backend can use.")
    needed = f"{GPU_TIER_MEMORY_BYTES / 2**30:.0f} GiB"
    fitting = [d for d in accelerators if (d.memory_bytes or 0) >= GPU_TIER_MEMORY_BYTES]
    if len(fitting) > 1:
        names = ", ".join(dict.fromkeys(device.name for device in fitting))
        reason = f"{len(fitting)} accelerators have {needed} of memory or more: {names}."
        return TierAdvice("full", reason)
    if fitting:
        return TierAdvice("gpu", f"{fitting[0].name} has {needed} of memory or more.")
    largest = max(accelerators, key=lambda device: device.memory_bytes or 0)
    if largest.memory_bytes is None:
        return TierAdvice("cpu", f"Tier gpu asks for {needed}; {largest.name} reports no memory.")
    memory = f"{largest.memory_bytes / 2**30:.1f} GiB"
    return TierAdvice("cpu", f"Tier gpu asks for {needed} of memory; {largest.name} has {memory}.")
