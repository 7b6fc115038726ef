"""The devices of this machine: found through the backend, and measured where it is the CPU."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from .._checks import check_integer
from ._specs import DeviceSpec, find_device_spec

_MATRIX_SIZE = 1536  # 7 GFLOP: enough for a few cores to reach their pace, a tenth of a second
_COPY_BYTES = 2**28  # far beyond the caches of a desktop machine


@dataclass(frozen=True)
class Device:
    """A device of this machine; `None` stands for what is not known about it.

    Args:
        name: the name that the driver reports.
        kind: "cpu", "gpu" or "tpu".
        memory_bytes: its memory, in bytes.
        spec: its published peak rates.
    """

    name: str
    kind: str
    memory_bytes: int | None = None
    spec: DeviceSpec | None = None

    def to_dict(self) -> dict[str, Any]:
        """Returns the fields as a plain dictionary."""
        return asdict(self)


def detect_devices() -> tuple[Device, ...]:
    """Finds the CPU and the accelerators that the Keras backend in force can use.

    Returns:
        The CPU first, then the accelerators of this machine. Where Keras or its backend is
        missing, or there is no accelerator, the CPU alone.

    Limits:
        Loads Keras and its backend. Only TensorFlow and JAX are asked. A GPU's memory comes
        from its driver if nvidia-ml-py is installed, else from the published table.

    Example:
        >>> detect_devices()[0].kind
        'cpu'
    """
    return (describe_cpu(), *find_accelerators()[0])


def recommend_precision(device: Device) -> str:
    """Says which Keras dtype policy makes the best of a device without risk.

    Args:
        device: as `detect_devices` returns it.

    Returns:
        "mixed_bfloat16" where the published rates list bfloat16, "mixed_float16" where they
        list only float16, else "float32": CPUs mostly emulate the short formats and become
        slower, and an unknown device promises nothing.

    Example:
        >>> recommend_precision(Device("Tesla T4", "gpu", spec=find_device_spec("Tesla T4")))
        'mixed_float16'
        >>> recommend_precision(Device("Some CPU", "cpu"))
        'float32'
    """
    if device.kind != "cpu" and device.spec is not None:
        for dtype in ("bfloat16", "float16"):
            if dtype in device.spec.peak_flops:
                return f"mixed_{dtype}"
    return "float32"


def measure_cpu_rates(*, num_repeats: int = 5) -> DeviceSpec:
    """Measures what this CPU reaches in NumPy: float32 products and copies in memory.

    Args:
        num_repeats: times each is run, after one run that does not count; the best counts.

    Returns:
        A specification whose rates are measured. A product of `(n, n)` matrices counts
        `2 n³` operations; a copy counts the bytes read and the bytes written, as STREAM does.

    Raises:
        InputError: if `num_repeats` is below 1.

    Limits:
        What NumPy's BLAS reaches with the threads it is given, not the chip's peak. On a
        server with dozens of cores or a cache of hundreds of megabytes both rates mislead.

    Example:
        >>> measure_cpu_rates(num_repeats=1).peak_flops["float32"] > 0
        True

    References:
        McCalpin, "Memory Bandwidth and Machine Balance in Current High Performance
        Computers", IEEE TCCA Newsletter, 1995.
    """
    num_repeats = check_integer("num_repeats", num_repeats, at_least=1)
    generator = np.random.default_rng(0)
    shape = (_MATRIX_SIZE, _MATRIX_SIZE)
    left, right = (generator.random(shape, dtype=np.float32) for _ in range(2))
    product = np.empty_like(left)
    product_seconds = _time_best(lambda: np.matmul(left, right, out=product), num_repeats)

    source = np.ones(_COPY_BYTES // 8)
    target = np.empty_like(source)
    copy_seconds = _time_best(lambda: np.copyto(target, source), num_repeats)

    cpu = describe_cpu()
    return DeviceSpec(
        name=cpu.name,
        kind="cpu",
        memory_bytes=cpu.memory_bytes,
        bandwidth_bytes_per_second=2 * source.nbytes / copy_seconds,
        peak_flops={"float32": 2 * _MATRIX_SIZE**3 / product_seconds},
        source=f"measured on this machine, {datetime.now(tz=UTC).date().isoformat()}",
    )


def find_accelerators() -> tuple[tuple[Device, ...], str]:
    """Finds the accelerators and says in words how the search went; never raises."""
    try:
        import keras

        backend = keras.backend.backend()
    except Exception as error:  # no Keras, no backend, or one that cannot start
        return (), f"none: Keras cannot be loaded ({_shorten(error)})"
    if backend not in _LISTERS:
        return (), f"unknown: the backend {backend!r} is not asked"
    memory_of_name = _read_gpu_memory()
    try:
        listed = _LISTERS[backend]()
    except Exception as error:  # drivers and plug-ins fail in ways of their own
        return (), f"unknown: {backend} could not list its devices ({_shorten(error)})"
    if not listed:
        others = ", ".join(sorted(memory_of_name))
        unused = f", though the driver reports {others}" if others else ""
        return (), f"none: {backend} sees no GPU or TPU{unused}"
    devices = []
    for name, kind in listed:
        spec = find_device_spec(name)
        memory_bytes = memory_of_name.get(name, spec.memory_bytes if spec else None)
        devices.append(Device(name, kind, memory_bytes, spec))
    return tuple(devices), f"found through {backend}"


def measure_memory() -> tuple[int | None, int | None]:
    """Measures total and available memory in bytes; `None` where the system does not say."""
    try:
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # Windows has no sysconf
        total = None
    available = _read_field("/proc/meminfo", "MemAvailable")
    return total, int(available.split()[0]) * 1024 if available else None


def describe_cpu() -> Device:
    """Names the CPU, with the machine's memory as its own."""
    model = _read_field("/proc/cpuinfo", "model name")
    name = model or platform.processor() or platform.machine() or "unknown"
    return Device(name, "cpu", measure_memory()[0])


def _list_tensorflow() -> list[tuple[str, str]]:
    import tensorflow

    found = []
    for device in tensorflow.config.list_physical_devices():
        if device.device_type in ("GPU", "TPU"):
            details = tensorflow.config.experimental.get_device_details(device)
            found.append((details.get("device_name", "unknown"), device.device_type.lower()))
    return found


def _list_jax() -> list[tuple[str, str]]:
    import jax

    # Those of this process: on a pod, `jax.devices()` lists other machines' as well.
    found = [device for device in jax.local_devices() if device.platform != "cpu"]
    return [(device.device_kind, "tpu" if device.platform == "tpu" else "gpu") for device in found]


_LISTERS: dict[str, Callable[[], list[tuple[str, str]]]] = {
    "tensorflow": _list_tensorflow,
    "jax": _list_jax,
}


def _read_gpu_memory() -> dict[str, int]:
    """Memory in bytes by GPU name, from the NVIDIA driver; empty if it cannot be asked.

    By name and not by index, because the driver counts also the GPUs that
    CUDA_VISIBLE_DEVICES hides.
    """
    try:
        import pynvml

        pynvml.nvmlInit()
        try:
            handles = [
                pynvml.nvmlDeviceGetHandleByIndex(index)
                for index in range(pynvml.nvmlDeviceGetCount())
            ]
            return {
                pynvml.nvmlDeviceGetName(handle): int(pynvml.nvmlDeviceGetMemoryInfo(handle).total)
                for handle in handles
            }
        finally:
            pynvml.nvmlShutdown()
    except Exception:  # not installed, no driver, or a driver without this question
        return {}


def _read_field(path: str, name: str) -> str | None:
    """The first value of a `name: value` line in a file of the Linux kernel."""
    try:
        lines = Path(path).read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return None
    for line in lines:
        key, _, value = line.partition(":")
        if key.strip() == name:
            return value.strip() or None
    return None


def _time_best(run: Callable[[], object], num_repeats: int) -> float:
    seconds = []
    for _ in range(1 + num_repeats):
        started = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - started)
    return min(seconds[1:])


def _shorten(error: Exception) -> str:
    message = " ".join(f"{type(error).__name__}: {error}".split())
    return message if len(message) <= 160 else f"{message[:159]}…"
