"""What vendors publish about their devices, and the names by which drivers report them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from .._checks import InputError, check_choice, check_real

KINDS = ("cpu", "gpu", "tpu")
DTYPES = ("float32", "tensorfloat32", "bfloat16", "float16", "float8", "int8")

_GIB = 2**30
_GIGA = 1e9
_TERA = 1e12


@dataclass(frozen=True)
class DeviceSpec:
    """Peak rates of a device: the ceilings of a roofline, not what a program reaches.

    Args:
        name: vendor and model.
        kind: "cpu", "gpu" or "tpu".
        memory_bytes: capacity, or `None` where it is not known.
        bandwidth_bytes_per_second: peak rate between the device and its own memory.
        peak_flops: operations per second by format, where a multiply–add counts as two.
            Dense: structured sparsity is not counted. Formats: "float32", "tensorfloat32",
            "bfloat16", "float16", "float8", "int8"; one that the device lacks, or that the
            source does not state, is left out.
        source: where the numbers come from: a publication, or "measured on this machine".

    Raises:
        InputError: if the kind or a format is not one of these, or a rate is not positive.

    Limits:
        A published peak assumes the boost clock; power and temperature often hold the
        device below it.

    Example:
        >>> spec = DeviceSpec("Mine", "gpu", 8 * 2**30, 2e11, {"float32": 1e13}, "my notes")
        >>> spec.peak_flops["float32"] / spec.bandwidth_bytes_per_second
        50.0
    """

    name: str
    kind: str
    memory_bytes: int | None
    bandwidth_bytes_per_second: float
    peak_flops: Mapping[str, float] = field(hash=False)
    source: str

    def __post_init__(self) -> None:
        check_choice("kind", self.kind, KINDS)
        rates = {"bandwidth_bytes_per_second": self.bandwidth_bytes_per_second}
        for dtype, rate in self.peak_flops.items():
            check_choice("peak_flops", dtype, DTYPES)
            rates[f"peak_flops[{dtype!r}]"] = rate
        for name, rate in rates.items():
            if check_real(name, rate) <= 0:
                raise InputError(name, "must be positive", rate, "leave out what is not known")

    def to_dict(self) -> dict[str, Any]:
        """Returns the fields as a plain dictionary."""
        return asdict(self)


def find_device_spec(name: str) -> DeviceSpec | None:
    """Finds the published rates of a device by the name that its driver reports.

    Args:
        name: such as "NVIDIA A100-SXM4-80GB", "Tesla T4" or "TPU v5 lite". Case, and whether
            words are joined by blanks, hyphens or underscores, does not matter.

    Returns:
        The specification, or `None` for a device that is not in `DEVICE_SPECS`.

    Limits:
        The whole name must match: a laptop variant, an NVL board or a slice of a GPU has
        other rates than the device whose name it extends, and is unknown.

    Example:
        >>> find_device_spec("NVIDIA H100 80GB HBM3").name
        'NVIDIA H100 SXM'
        >>> find_device_spec("NVIDIA H100 NVL") is None
        True
    """
    return _SPEC_OF_NAME.get(_normalise(name))


def _normalise(name: str) -> str:
    words = re.sub(r"[\s_-]+", " ", name).strip().lower()
    return re.sub(r"^(nvidia )?(tesla |geforce )?", "", words)


# Memory. Vendors write "GB" and mean 2**30 bytes: a driver reports 42.4e9 bytes for an
# "A100 40GB" (40 GiB are 42.9e9; the rest is reserved). Bandwidth is in units of 1e9.
#
# Tensor rates. The datasheets of the H100, the H200 and the L4 print them *with* 2:4
# structured sparsity, twice the dense rate; they are halved here, visibly. The sheets of the
# A100 and the RTX 4090 give both; the dense one is here. The T4 and the TPUs have none.

_H100_SHEET = (
    "NVIDIA, 'NVIDIA H100 Tensor Core GPU' datasheet, 2023, "
    "https://resources.nvidia.com/en-us-tensor-core/nvidia-tensor-core-gpu-datasheet"
)
_HOPPER_SXM_PEAK = {  # the sheets of the H100 SXM and the H200 SXM agree
    "float32": 67 * _TERA,
    "tensorfloat32": 989 / 2 * _TERA,
    "bfloat16": 1979 / 2 * _TERA,
    "float16": 1979 / 2 * _TERA,
    "float8": 3958 / 2 * _TERA,
    "int8": 3958 / 2 * _TERA,
}
_A100_SHEET = (
    "NVIDIA, 'NVIDIA A100 Tensor Core GPU' datasheet, 2021, https://www.nvidia.com/content/dam/"
    "en-zz/Solutions/Data-Center/a100/pdf/nvidia-a100-datasheet-us-nvidia-1758950-r4-web.pdf"
)
_A100_PEAK = {
    "float32": 19.5 * _TERA,
    "tensorfloat32": 156 * _TERA,
    "bfloat16": 312 * _TERA,
    "float16": 312 * _TERA,
    "int8": 624 * _TERA,
}

# Each specification with the names, besides its own, by which a driver or a framework
# reports the device.
_TABLE: tuple[tuple[DeviceSpec, tuple[str, ...]], ...] = (
    (
        DeviceSpec(
            name="NVIDIA H100 SXM",
            kind="gpu",
            memory_bytes=80 * _GIB,
            bandwidth_bytes_per_second=3350 * _GIGA,
            peak_flops=_HOPPER_SXM_PEAK,
            source=_H100_SHEET,
        ),
        ("NVIDIA H100 80GB HBM3",),
    ),
    (
        DeviceSpec(
            name="NVIDIA H100 PCIe",
            kind="gpu",
            memory_bytes=80 * _GIB,
            bandwidth_bytes_per_second=2000 * _GIGA,
            peak_flops={
                "float32": 51 * _TERA,
                "tensorfloat32": 756 / 2 * _TERA,
                "bfloat16": 1513 / 2 * _TERA,
                "float16": 1513 / 2 * _TERA,
                "float8": 3026 / 2 * _TERA,
                "int8": 3026 / 2 * _TERA,
            },
            source=_H100_SHEET,
        ),
        (),
    ),
    (
        DeviceSpec(
            name="NVIDIA H200 SXM",
            kind="gpu",
            memory_bytes=141 * _GIB,
            bandwidth_bytes_per_second=4800 * _GIGA,
            peak_flops=_HOPPER_SXM_PEAK,
            source=(
                "NVIDIA, 'NVIDIA H200 Tensor Core GPU' datasheet, 2023, "
                "https://nvdam.widen.net/s/nb5zzzsjdf/hpc-datasheet-sc23-h200-datasheet-3002446"
            ),
        ),
        ("NVIDIA H200",),  # the PCIe board calls itself "NVIDIA H200 NVL"
    ),
    (
        DeviceSpec(  # the SXM and the PCIe board publish the same rates
            name="NVIDIA A100 40GB",
            kind="gpu",
            memory_bytes=40 * _GIB,
            bandwidth_bytes_per_second=1555 * _GIGA,
            peak_flops=_A100_PEAK,
            source=_A100_SHEET,
        ),
        ("NVIDIA A100-SXM4-40GB", "NVIDIA A100-PCIE-40GB"),
    ),
    (
        DeviceSpec(
            name="NVIDIA A100 80GB SXM",
            kind="gpu",
            memory_bytes=80 * _GIB,
            bandwidth_bytes_per_second=2039 * _GIGA,
            peak_flops=_A100_PEAK,
            source=_A100_SHEET,
        ),
        ("NVIDIA A100-SXM4-80GB",),
    ),
    (
        DeviceSpec(
            name="NVIDIA A100 80GB PCIe",
            kind="gpu",
            memory_bytes=80 * _GIB,
            bandwidth_bytes_per_second=1935 * _GIGA,
            peak_flops=_A100_PEAK,
            source=_A100_SHEET,
        ),
        (),
    ),
    (
        DeviceSpec(
            name="NVIDIA L4",
            kind="gpu",
            memory_bytes=24 * _GIB,
            bandwidth_bytes_per_second=300 * _GIGA,
            peak_flops={
                "float32": 30.3 * _TERA,
                "tensorfloat32": 120 / 2 * _TERA,
                "bfloat16": 242 / 2 * _TERA,
                "float16": 242 / 2 * _TERA,
                "float8": 485 / 2 * _TERA,
                "int8": 485 / 2 * _TERA,
            },
            source=(
                "NVIDIA, 'NVIDIA L4 Tensor Core GPU' datasheet, 2023, "
                "https://resources.nvidia.com/en-us-data-center-overview/l4-gpu-datasheet"
            ),
        ),
        (),
    ),
    (
        DeviceSpec(
            name="NVIDIA T4",
            kind="gpu",
            memory_bytes=16 * _GIB,
            # 256 bits at 10 Gbit/s each. The T4 datasheet prints 300 GB/s.
            bandwidth_bytes_per_second=320 * _GIGA,
            peak_flops={  # Turing's tensor cores know neither tensorfloat32 nor bfloat16
                "float32": 8.1 * _TERA,
                "float16": 65 * _TERA,
                "int8": 130 * _TERA,
            },
            source=(
                "NVIDIA, 'NVIDIA Turing GPU Architecture' (WP-09183-001), 2018, table of the "
                "Tesla T4, https://images.nvidia.com/aem-dam/en-zz/Solutions/"
                "design-visualization/technologies/turing-architecture/"
                "NVIDIA-Turing-Architecture-Whitepaper.pdf"
            ),
        ),
        ("Tesla T4",),
    ),
    (
        DeviceSpec(
            name="NVIDIA GeForce RTX 4090",
            kind="gpu",
            memory_bytes=24 * _GIB,
            bandwidth_bytes_per_second=1008 * _GIGA,
            # float16 and float8 with sums in float32, as training keeps them: on GeForce,
            # half the rate of sums in float16.
            peak_flops={
                "float32": 82.6 * _TERA,
                "tensorfloat32": 82.6 * _TERA,
                "bfloat16": 165.2 * _TERA,
                "float16": 165.2 * _TERA,
                "float8": 330.3 * _TERA,
                "int8": 660.6 * _TERA,
            },
            source=(
                "NVIDIA, 'NVIDIA Ada GPU Architecture' whitepaper v2.1, 2023, Appendix A, "
                "https://images.nvidia.com/aem-dam/Solutions/geforce/ada/"
                "nvidia-ada-gpu-architecture.pdf"
            ),
        ),
        (),
    ),
    (
        DeviceSpec(
            name="Google TPU v5e",
            kind="tpu",
            memory_bytes=16 * _GIB,
            bandwidth_bytes_per_second=819 * _GIGA,
            peak_flops={"bfloat16": 197 * _TERA, "int8": 393 * _TERA},
            source=(
                "Google Cloud, 'TPU v5e' documentation, 2024, per chip, "
                "https://cloud.google.com/tpu/docs/v5e"
            ),
        ),
        ("TPU v5e", "TPU v5 lite"),
    ),
    (
        DeviceSpec(
            name="Google TPU v5p",
            kind="tpu",
            memory_bytes=95 * _GIB,
            bandwidth_bytes_per_second=2765 * _GIGA,
            peak_flops={"bfloat16": 459 * _TERA},
            source=(
                "Google Cloud, 'TPU v5p' documentation, 2024, per chip, "
                "https://cloud.google.com/tpu/docs/v5p"
            ),
        ),
        ("TPU v5p", "TPU v5"),
    ),
)

DEVICE_SPECS = tuple(spec for spec, _ in _TABLE)
_SPEC_OF_NAME = {
    _normalise(name): spec for spec, reported in _TABLE for name in (spec.name, *reported)
}
