"""The instructions that decide how fast a CPU multiplies small integers."""

from __future__ import annotations

from pathlib import Path

CPU_FEATURES = ("avx2", "fma", "avx512f", "avx512_vnni", "avx_vnni", "amx_int8", "asimddp", "i8mm")
"""Vector units, and products of 8-bit integers: VNNI and AMX on x86, dot products on Arm."""


def list_cpu_features(*, source: str | Path = "/proc/cpuinfo") -> tuple[str, ...] | None:
    """Lists which of `CPU_FEATURES` this machine has.

    Args:
        source: the system's description of its processors.

    Returns:
        Names in the order of `CPU_FEATURES`; `None` where the system does not say, as outside
        Linux.

    Limits:
        What a virtual machine hides is not listed, and not used by libraries either.

    Example:
        >>> list_cpu_features(source="no-such-file") is None
        True

    References:
        Linux kernel documentation, x86 feature flags (/proc/cpuinfo), and Arm64 ELF hwcaps.
    """
    try:
        text = Path(source).read_text(encoding="utf-8")
    except OSError:
        return None
    flags = {
        flag
        for line in text.splitlines()
        if line.split(":")[0].strip() in ("flags", "Features")
        for flag in line.split(":", 1)[1].split()
    }
    return tuple(feature for feature in CPU_FEATURES if feature in flags)
