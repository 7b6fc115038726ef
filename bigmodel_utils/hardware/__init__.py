"""Devices: what they can do at best, which are here, and what that allows.

Rates come from the vendor's published tables or from a measurement on this machine, and each
says which. A device that is not in the table is unknown, never guessed.
"""

from ._devices import Device, detect_devices, measure_cpu_rates, recommend_precision
from ._features import CPU_FEATURES, list_cpu_features
from ._machine import MachineReport, inspect_machine
from ._specs import DEVICE_SPECS, DeviceSpec, find_device_spec
from ._tiers import TIERS, TierAdvice, recommend_tier, resolve_tier

__all__ = [
    "CPU_FEATURES",
    "DEVICE_SPECS",
    "TIERS",
    "Device",
    "DeviceSpec",
    "MachineReport",
    "TierAdvice",
    "detect_devices",
    "find_device_spec",
    "inspect_machine",
    "list_cpu_features",
    "measure_cpu_rates",
    "recommend_precision",
    "recommend_tier",
    "resolve_tier",
]
