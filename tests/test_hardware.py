"""Devices: published rates against the architecture, names, detection, tiers, the report."""

import json
import os
import subprocess
import sys
from datetime import UTC, datetime
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bigmodel_utils import hardware
from bigmodel_utils._checks import InputError
from bigmodel_utils.hardware import (
    DEVICE_SPECS,
    Device,
    DeviceSpec,
    detect_devices,
    find_device_spec,
    inspect_machine,
    measure_cpu_rates,
    recommend_precision,
    recommend_tier,
    resolve_tier,
)
from bigmodel_utils.hardware import _devices as devices_module
from bigmodel_utils.hardware import _machine as machine_module

GIB = 2**30

# The rates a second time, from the architecture: multiprocessors × operations of one per
# clock × boost clock in GHz. Per clock a multiprocessor does 2 operations on each of its
# float32 lanes (64 on the A100 and the T4, 128 on the others); its tensor cores do 4096
# dense float16 operations on Hopper, 2048 on the A100, 1024 on the T4 and the L4, and 512
# on GeForce Ada when the sums are float32. Hopper's tensor cores have a clock of their own.
# Sources: NVIDIA's whitepapers "H100 Tensor Core GPU Architecture" (2022), "A100 Tensor Core
# GPU Architecture" (2020), "Turing GPU Architecture" (2018), "Ada GPU Architecture" (2023).
ARCHITECTURE = [
    ("NVIDIA H100 SXM", "float32", 132, 256, 1.98),
    ("NVIDIA H100 SXM", "tensorfloat32", 132, 2048, 1.83),
    ("NVIDIA H100 SXM", "bfloat16", 132, 4096, 1.83),
    ("NVIDIA H100 SXM", "float16", 132, 4096, 1.83),
    ("NVIDIA H100 SXM", "float8", 132, 8192, 1.83),
    ("NVIDIA H100 SXM", "int8", 132, 8192, 1.83),
    ("NVIDIA H100 PCIe", "float32", 114, 256, 1.755),
    ("NVIDIA H100 PCIe", "tensorfloat32", 114, 2048, 1.62),
    ("NVIDIA H100 PCIe", "bfloat16", 114, 4096, 1.62),
    ("NVIDIA H100 PCIe", "float16", 114, 4096, 1.62),
    ("NVIDIA H100 PCIe", "float8", 114, 8192, 1.62),
    ("NVIDIA H100 PCIe", "int8", 114, 8192, 1.62),
    ("NVIDIA H200 SXM", "bfloat16", 132, 4096, 1.83),
    ("NVIDIA A100 40GB", "float32", 108, 128, 1.41),
    ("NVIDIA A100 40GB", "tensorfloat32", 108, 1024, 1.41),
    ("NVIDIA A100 40GB", "bfloat16", 108, 2048, 1.41),
    ("NVIDIA A100 80GB SXM", "float16", 108, 2048, 1.41),
    ("NVIDIA A100 80GB PCIe", "int8", 108, 4096, 1.41),
    ("NVIDIA T4", "float32", 40, 128, 1.59),
    ("NVIDIA T4", "float16", 40, 1024, 1.59),
    ("NVIDIA T4", "int8", 40, 2048, 1.59),
    ("NVIDIA L4", "float32", 58, 256, 2.04),
    ("NVIDIA L4", "tensorfloat32", 58, 512, 2.04),
    ("NVIDIA L4", "bfloat16", 58, 1024, 2.04),
    ("NVIDIA L4", "float16", 58, 1024, 2.04),
    ("NVIDIA L4", "float8", 58, 2048, 2.04),
    ("NVIDIA L4", "int8", 58, 2048, 2.04),
    ("NVIDIA GeForce RTX 4090", "float32", 128, 256, 2.52),
    ("NVIDIA GeForce RTX 4090", "tensorfloat32", 128, 256, 2.52),
    ("NVIDIA GeForce RTX 4090", "bfloat16", 128, 512, 2.52),
    ("NVIDIA GeForce RTX 4090", "float16", 128, 512, 2.52),
    ("NVIDIA GeForce RTX 4090", "float8", 128, 1024, 2.52),
    ("NVIDIA GeForce RTX 4090", "int8", 128, 2048, 2.52),
]

# Bandwidth from the bus: width in bits × gigabits per second and pin / 8.
BUSES = [
    ("NVIDIA H100 SXM", 5120, 5.2),
    ("NVIDIA H100 PCIe", 5120, 3.186),
    ("NVIDIA H200 SXM", 6144, 6.25),
    ("NVIDIA A100 40GB", 5120, 2.43),
    ("NVIDIA A100 80GB SXM", 5120, 3.186),
    ("NVIDIA A100 80GB PCIe", 5120, 3.024),
    ("NVIDIA T4", 256, 10),
    ("NVIDIA L4", 192, 12.5),
    ("NVIDIA GeForce RTX 4090", 384, 21),
]


@pytest.mark.parametrize(("name", "dtype", "num_processors", "per_clock", "ghz"), ARCHITECTURE)
def test_published_rate_is_that_of_the_architecture(name, dtype, num_processors, per_clock, ghz):
    published = find_device_spec(name).peak_flops[dtype]
    assert published == pytest.approx(num_processors * per_clock * ghz * 1e9, rel=0.02)


@pytest.mark.parametrize(("name", "bits", "gigabits_per_second"), BUSES)
def test_published_bandwidth_is_that_of_the_bus(name, bits, gigabits_per_second):
    published = find_device_spec(name).bandwidth_bytes_per_second
    assert published == pytest.approx(bits * gigabits_per_second / 8 * 1e9, rel=0.02)


def test_no_rate_counts_sparsity():
    # Twin of the two above: a rate that counts structured sparsity is far outside 2 %.
    _, _, num_processors, per_clock, ghz = ARCHITECTURE[2]
    dense = num_processors * per_clock * ghz * 1e9
    assert dense != pytest.approx(1979e12, rel=0.02)


def test_tpu_rates():
    # "TPU v5e" and "TPU v5p", Google Cloud documentation, 2024; a v5e pod of 256 chips is
    # said to do 100 PetaOps of int8 and 50.63 PFLOP/s of bfloat16.
    v5e, v5p = find_device_spec("TPU v5e"), find_device_spec("TPU v5p")
    assert 256 * v5e.peak_flops["bfloat16"] == pytest.approx(50.63e15, rel=0.01)
    assert 256 * v5e.peak_flops["int8"] == pytest.approx(100e15, rel=0.01)
    assert v5p.peak_flops == {"bfloat16": 459e12}
    assert (v5p.memory_bytes, v5p.bandwidth_bytes_per_second) == (95 * GIB, 2765e9)


@pytest.mark.parametrize(
    ("name", "reported_bytes"),
    [("NVIDIA A100 40GB", 42_405_855_232), ("NVIDIA H200 SXM", 143_771 * 2**20)],
)
def test_memory_is_what_a_driver_reports(name, reported_bytes):
    # A driver keeps a little back, never 7 %: the difference between 2**30 and 1e9.
    assert 0.97 < reported_bytes / find_device_spec(name).memory_bytes <= 1


def test_table_is_sound():
    names = [spec.name for spec in DEVICE_SPECS]
    assert len(set(names)) == len(names) == 11
    for spec in DEVICE_SPECS:
        assert find_device_spec(spec.name) is spec
        assert spec.source.split(",")[0] in ("NVIDIA", "Google Cloud")
        assert ", 20" in spec.source
        assert "https://" in spec.source
        assert json.loads(json.dumps(spec.to_dict())) == spec.to_dict()
        assert hash(spec) == hash(spec)
        if spec.kind == "gpu":  # a shorter format is never slower than a longer one
            rates = [spec.peak_flops[d] for d in ("float32", "float16", "int8")]
            assert rates == sorted(rates)


REPORTED = {
    "NVIDIA H100 80GB HBM3": "NVIDIA H100 SXM",
    "NVIDIA H100 PCIe": "NVIDIA H100 PCIe",
    "NVIDIA H200": "NVIDIA H200 SXM",
    "NVIDIA A100-SXM4-40GB": "NVIDIA A100 40GB",
    "A100-SXM4-40GB": "NVIDIA A100 40GB",
    "NVIDIA A100-PCIE-40GB": "NVIDIA A100 40GB",
    "NVIDIA A100-SXM4-80GB": "NVIDIA A100 80GB SXM",
    "NVIDIA A100 80GB PCIe": "NVIDIA A100 80GB PCIe",
    "NVIDIA L4": "NVIDIA L4",
    "Tesla T4": "NVIDIA T4",
    "NVIDIA GeForce RTX 4090": "NVIDIA GeForce RTX 4090",
    "  nvidia  geforce rtx_4090 ": "NVIDIA GeForce RTX 4090",
    "TPU v5 lite": "Google TPU v5e",
    "TPU v5e": "Google TPU v5e",
    "TPU v5p": "Google TPU v5p",
    "TPU v5": "Google TPU v5p",  # as JAX calls it
}


@pytest.mark.parametrize(("reported", "name"), REPORTED.items())
def test_reported_name_is_found(reported, name):
    assert find_device_spec(reported).name == name


@pytest.mark.parametrize(
    "name",
    [
        "NVIDIA GeForce RTX 4090 Laptop GPU",
        "NVIDIA GeForce RTX 4090 D",
        "NVIDIA GeForce RTX 4080",
        "NVIDIA H100 NVL",
        "NVIDIA H100",
        "NVIDIA H200 NVL",
        "NVIDIA GH200 480GB",
        "NVIDIA H800",
        "NVIDIA A10",
        "NVIDIA A100",
        "NVIDIA A100-SXM4-40GB MIG 1g.5gb",
        "NVIDIA A800-SXM4-80GB",
        "NVIDIA L40",
        "NVIDIA L40S",
        "Tesla T40",
        "NVIDIA T400",
        "Tesla V100-SXM2-16GB",
        "TPU v4",
        "TPU v5 lite pod",
        "TPU v6 lite",
        "AMD Instinct MI300X",
        "NVIDIA",
        "unknown",
        "",
    ],
)
def test_near_miss_is_unknown(name):
    assert find_device_spec(name) is None


# Names put together from the words of real ones: most are no device, some are.
WORDS = ["NVIDIA", "Tesla", "GeForce", "Google", "RTX", "4090", "H100", "H200", "A100", "L4"]
WORDS += ["L40", "T4", "TPU", "v5", "v5e", "v5p", "lite", "SXM", "SXM4", "PCIe", "NVL", "40GB"]
WORDS += ["80GB", "HBM3", "Laptop", "GPU", "D", "MIG"]
PLAUSIBLE = st.lists(st.sampled_from(WORDS), max_size=5).map(" ".join)
KNOWN = [*REPORTED, *(spec.name for spec in DEVICE_SPECS)]


def list_words(name):
    """Words of a name without those that only name the vendor or the product line."""
    words = name.lower().replace("-", " ").replace("_", " ").split()
    return [word for word in words if word not in ("nvidia", "tesla", "geforce")]


def check_only_known_words_match(find):
    known = {tuple(list_words(name)) for name in KNOWN}

    @settings(max_examples=300, deadline=None, database=None)
    @given(st.one_of(st.text(), PLAUSIBLE))
    def check(name):
        if find(name) is not None:
            assert tuple(list_words(name)) in known

    check()


def check_longer_name_is_unknown(find):
    @settings(max_examples=200, deadline=None, database=None)
    @given(st.sampled_from(KNOWN), st.from_regex(r"[A-Za-z0-9]{1,12}", fullmatch=True))
    def check(name, word):
        # "NVIDIA A100 80GB" + "SXM" and the like are other names of the table.
        if list_words(f"{name} {word}") not in [list_words(known) for known in KNOWN]:
            assert find(f"{name} {word}") is None

    check()


def find_by_part(name):
    """What a careless look-up does: the first device whose name occurs in it."""
    return next((s for s in DEVICE_SPECS if " ".join(list_words(s.name)) in name.lower()), None)


@pytest.mark.parametrize("check", [check_only_known_words_match, check_longer_name_is_unknown])
def test_no_other_name_matches(check):
    check(find_device_spec)
    with pytest.raises(AssertionError):
        check(find_by_part)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "npu"}, "`kind` must be one of"),
        ({"peak_flops": {"bf16": 1e12}}, "`peak_flops` must be one of 'float32'"),
        ({"peak_flops": {"int8": 0.0}}, r"`peak_flops\['int8'\]` must be positive"),
        ({"bandwidth_bytes_per_second": -1.0}, "`bandwidth_bytes_per_second` must be positive"),
        ({"bandwidth_bytes_per_second": float("nan")}, "must be a finite number"),
    ],
)
def test_wrong_spec_is_refused(change, message):
    fields = {
        "name": "Mine",
        "kind": "gpu",
        "memory_bytes": GIB,
        "bandwidth_bytes_per_second": 1e11,
        "peak_flops": {"float32": 1e12},
        "source": "notes",
    }
    DeviceSpec(**fields)
    with pytest.raises(InputError, match=message):
        DeviceSpec(**fields | change)


# Backends: stand-ins with the few functions that are asked.


def make_module(name, **attributes):
    module = ModuleType(name)
    vars(module).update(attributes)
    return module


def use_backend(monkeypatch, backend):
    keras = make_module("keras", backend=SimpleNamespace(backend=lambda: backend))
    monkeypatch.setitem(sys.modules, "keras", keras)
    monkeypatch.setitem(sys.modules, "pynvml", None)


def use_tensorflow(monkeypatch, *devices):
    """TensorFlow that sees devices given as (type, name), beside the CPU."""
    use_backend(monkeypatch, "tensorflow")
    seen = [SimpleNamespace(device_type=kind, details=name) for kind, name in devices]
    config = SimpleNamespace(
        list_physical_devices=lambda: [SimpleNamespace(device_type="CPU"), *seen],
        experimental=SimpleNamespace(
            get_device_details=lambda d: {"device_name": d.details} if d.details else {}
        ),
    )
    monkeypatch.setitem(sys.modules, "tensorflow", make_module("tensorflow", config=config))


def use_jax(monkeypatch, *devices):
    """JAX that sees devices given as (platform, kind)."""
    use_backend(monkeypatch, "jax")
    seen = [SimpleNamespace(platform=platform, device_kind=kind) for platform, kind in devices]
    monkeypatch.setitem(sys.modules, "jax", make_module("jax", local_devices=lambda: seen))


def use_driver(monkeypatch, memory_of_name):
    """An NVIDIA driver that reports these GPUs; returns what was called last."""
    called = []
    monkeypatch.setitem(
        sys.modules,
        "pynvml",
        make_module(
            "pynvml",
            nvmlInit=lambda: called.append("init"),
            nvmlShutdown=lambda: called.append("shutdown"),
            nvmlDeviceGetCount=lambda: len(memory_of_name),
            nvmlDeviceGetHandleByIndex=lambda index: list(memory_of_name)[index],
            nvmlDeviceGetName=lambda handle: handle,
            nvmlDeviceGetMemoryInfo=lambda handle: SimpleNamespace(total=memory_of_name[handle]),
        ),
    )
    return called


def test_tensorflow_is_asked(monkeypatch):
    use_tensorflow(monkeypatch, ("GPU", "Tesla T4"), ("GPU", ""), ("TPU", "TPU v5 lite"))
    cpu, known, unknown, tpu = detect_devices()
    assert cpu.kind == "cpu"
    assert known == Device("Tesla T4", "gpu", 16 * GIB, find_device_spec("T4"))
    assert unknown == Device("unknown", "gpu", None, None)
    assert (tpu.kind, tpu.spec.name) == ("tpu", "Google TPU v5e")


def test_jax_is_asked(monkeypatch):
    use_jax(
        monkeypatch, ("cpu", "cpu"), ("gpu", "NVIDIA H100 80GB HBM3"), ("tpu", "TPU v5"),
        ("rocm", "AMD Instinct MI300X"),
    )  # fmt: skip
    found = [(d.kind, d.spec and d.spec.name) for d in detect_devices()]
    assert found == [
        ("cpu", None), ("gpu", "NVIDIA H100 SXM"), ("tpu", "Google TPU v5p"), ("gpu", None),
    ]  # fmt: skip


def test_driver_knows_the_memory(monkeypatch):
    use_jax(monkeypatch, ("gpu", "NVIDIA L4"), ("gpu", "NVIDIA L40"), ("gpu", "NVIDIA A10"))
    called = use_driver(monkeypatch, {"NVIDIA L40": 48 * GIB, "NVIDIA L4": 23 * GIB})
    memory = {device.name: device.memory_bytes for device in detect_devices()[1:]}
    assert memory == {"NVIDIA L4": 23 * GIB, "NVIDIA L40": 48 * GIB, "NVIDIA A10": None}
    assert called == ["init", "shutdown"]


def test_broken_driver_is_no_error(monkeypatch):
    def fail():
        raise RuntimeError("NVML Shared Library Not Found")

    use_jax(monkeypatch, ("gpu", "NVIDIA L4"))
    monkeypatch.setitem(sys.modules, "pynvml", make_module("pynvml", nvmlInit=fail))
    assert detect_devices()[1].memory_bytes == 24 * GIB


def test_missing_keras_leaves_the_cpu(monkeypatch):
    monkeypatch.setitem(sys.modules, "keras", None)
    assert [device.kind for device in detect_devices()] == ["cpu"]
    assert "Keras cannot be loaded (ModuleNotFoundError" in inspect_machine().accelerators


@pytest.mark.parametrize("backend", ["tensorflow", "jax"])
def test_missing_backend_leaves_the_cpu(monkeypatch, backend):
    use_backend(monkeypatch, backend)
    monkeypatch.setitem(sys.modules, backend, None)
    assert [device.kind for device in detect_devices()] == ["cpu"]
    assert f"unknown: {backend} could not list" in inspect_machine().accelerators


def test_other_backend_is_not_asked(monkeypatch):
    use_backend(monkeypatch, "torch")
    assert len(detect_devices()) == 1
    assert inspect_machine().accelerators == "unknown: the backend 'torch' is not asked"


def test_failing_backend_leaves_the_cpu(monkeypatch):
    def fail():
        raise RuntimeError("no\n devices " + "x" * 500)

    use_backend(monkeypatch, "jax")
    monkeypatch.setitem(sys.modules, "jax", make_module("jax", local_devices=fail))
    report = inspect_machine()
    assert len(report.devices) == 1
    assert "(RuntimeError: no devices xxx" in report.accelerators
    assert len(report.accelerators) < 220


def test_gpu_that_the_backend_does_not_use_is_named(monkeypatch):
    use_tensorflow(monkeypatch)
    use_driver(monkeypatch, {"NVIDIA L4": 24 * GIB})
    expected = "none: tensorflow sees no GPU or TPU, though the driver reports NVIDIA L4"
    assert inspect_machine().accelerators == expected


def test_precision():
    def recommend(name, kind="gpu"):
        return recommend_precision(Device(name, kind, spec=find_device_spec(name)))

    assert recommend("Tesla T4") == "mixed_float16"
    assert recommend("NVIDIA L40") == "float32"  # unknown
    assert recommend("AMD EPYC", "cpu") == "float32"
    assert recommend("TPU v5 lite", "tpu") == "mixed_bfloat16"
    others = [spec for spec in DEVICE_SPECS if spec.name != "NVIDIA T4"]
    assert {recommend(spec.name, spec.kind) for spec in others} == {"mixed_bfloat16"}
    # A CPU stays at float32 even where a source lists bfloat16 for it.
    spec = DeviceSpec("CPU", "cpu", None, 1e11, {"bfloat16": 1e12}, "notes")
    assert recommend_precision(Device("CPU", "cpu", spec=spec)) == "float32"


def test_cpu_rates_are_plausible():
    spec, cpu = measure_cpu_rates(), devices_module.describe_cpu()
    assert spec.kind == "cpu"
    assert set(spec.peak_flops) == {"float32"}
    assert 1e9 < spec.peak_flops["float32"] < 1e15
    assert 1e8 < spec.bandwidth_bytes_per_second < 1e13
    assert spec.source.startswith("measured on this machine, 20")
    assert datetime.now(tz=UTC).date().isoformat()[:7] in spec.source
    assert (spec.name, spec.memory_bytes) == (cpu.name, cpu.memory_bytes)


def test_cpu_rates_count_what_they_say(monkeypatch):
    # A clock by which each run takes 2 s, but one 1 s and the first, which does not count,
    # half a second: the best is 1 s, and the rates are the counts themselves.
    seconds = iter([0.5, 2, 1, 2, 0.5, 2, 2, 1])
    ticks = (tick for duration in seconds for tick in (0.0, duration))
    monkeypatch.setattr(devices_module, "time", SimpleNamespace(perf_counter=lambda: next(ticks)))
    monkeypatch.setattr(devices_module, "_MATRIX_SIZE", 8)
    monkeypatch.setattr(devices_module, "_COPY_BYTES", 1024)
    spec = measure_cpu_rates(num_repeats=3)
    assert spec.peak_flops["float32"] == 2 * 8**3
    assert spec.bandwidth_bytes_per_second == 1024 + 1024  # read and written


@pytest.mark.parametrize("num_repeats", [0, 1.5, True])
def test_wrong_repeats_are_refused(num_repeats):
    with pytest.raises(InputError, match="`num_repeats` must be an integer"):
        measure_cpu_rates(num_repeats=num_repeats)


def test_tier_comes_from_the_environment(monkeypatch):
    monkeypatch.delenv("BIGMODEL_TIER", raising=False)
    assert resolve_tier() == "cpu"
    monkeypatch.setenv("BIGMODEL_TIER", "")
    assert resolve_tier() == "cpu"
    monkeypatch.setenv("BIGMODEL_TIER", "full")
    assert resolve_tier() == "full"
    assert resolve_tier("gpu") == "gpu"


@pytest.mark.parametrize("value", ["GPU", "tpu", " cpu"])
def test_unknown_tier_is_refused(monkeypatch, value):
    message = "`BIGMODEL_TIER` must be one of 'cpu', 'gpu', 'full'"
    with pytest.raises(InputError, match=message):
        resolve_tier(value)
    monkeypatch.setenv("BIGMODEL_TIER", value)
    for function in (resolve_tier, inspect_machine):
        with pytest.raises(InputError, match=message):
            function()


@pytest.mark.parametrize(
    ("memory_gib", "tier", "reason"),
    [
        ([], "cpu", "no accelerator"),
        ([None], "cpu", "GPU 0 reports no memory"),
        ([None, 8], "cpu", "asks for 12 GiB of memory; GPU 1 has 8.0 GiB"),
        ([11.99], "cpu", "GPU 0 has 12.0 GiB"),
        ([12], "gpu", "GPU 0 has 12 GiB of memory or more"),
        ([8, 80], "gpu", "GPU 1 has"),
        ([80, 80], "full", "2 accelerators have 12 GiB of memory or more: GPU 0, GPU 1"),
        ([16, 4, 16], "full", "2 accelerators"),
    ],
)
def test_advised_tier(memory_gib, tier, reason):
    devices = [Device("CPU", "cpu", 999 * GIB)]
    devices += [
        Device(f"GPU {index}", "gpu", None if gib is None else int(gib * GIB))
        for index, gib in enumerate(memory_gib)
    ]
    advice = recommend_tier(devices)
    assert advice.tier == tier
    assert reason in advice.reason
    assert advice.to_dict() == {"tier": tier, "reason": advice.reason}


def render(report, width=200):
    from rich.console import Console

    console = Console(width=width, no_color=True)
    with console.capture() as capture:
        console.print(report)
    return capture.get()


def test_report_without_a_gpu(monkeypatch):
    monkeypatch.delenv("BIGMODEL_TIER", raising=False)
    use_tensorflow(monkeypatch)
    report = inspect_machine()
    assert (report.tier, report.advice.tier) == ("cpu", "cpu")
    assert report.num_cores >= 1
    assert report.versions["numpy"] == np.__version__
    content = report.to_dict()
    assert json.loads(json.dumps(content)) == content
    assert content["devices"][0]["spec"] is None
    text = render(report)
    for part in (
        "Platform",
        "tensorflow sees no GPU or TPU",
        "peak rates unknown",
        "no accelerator",
    ):
        assert part in text
    assert all(len(line) <= 60 for line in render(report, width=60).splitlines())


def test_report_with_gpus(monkeypatch):
    monkeypatch.setenv("BIGMODEL_TIER", "gpu")
    use_jax(monkeypatch, ("gpu", "NVIDIA H100 80GB HBM3"), ("gpu", "Other [bold]<GPU>"))
    report = inspect_machine()
    assert report.tier == "gpu"
    assert report.advice.tier == "gpu"
    text = render(report)
    assert "NVIDIA H100 80GB HBM3, 80.0 GiB; TFLOP/s at most: float32 67," in text
    assert "bfloat16 989.5" in text
    assert "3350 GB/s" in text
    assert "Other [bold]<GPU>, unknown; peak rates unknown" in text
    page = report._repr_html_()
    assert "Other [bold]&lt;GPU&gt;" in page
    assert page.count("<tr>") == page.count('<th scope="row">') == page.count("</tr>")
    assert json.loads(json.dumps(report.to_dict()))["devices"][1]["spec"]["kind"] == "gpu"


def test_report_where_the_system_says_little(monkeypatch):
    # As on Windows: no sysconf, no /proc, no affinity; and nothing installed.
    def raise_missing(name):
        raise machine_module.PackageNotFoundError(name)

    monkeypatch.delattr(os, "sysconf")
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(devices_module, "_read_field", lambda path, name: None)
    monkeypatch.setattr(devices_module.platform, "processor", lambda: "")
    monkeypatch.setattr(machine_module, "version", raise_missing)
    monkeypatch.setitem(sys.modules, "keras", None)
    report = inspect_machine()
    assert (report.memory_bytes, report.available_memory_bytes) == (None, None)
    assert report.devices[0].name  # the architecture, at least
    assert {report.versions[n] for n in ("keras", "tensorflow", "jax")} == {"not installed"}
    assert "unknown, available: unknown" in render(report)


def test_memory_is_consistent():
    total, available = devices_module.measure_memory()
    if total is not None and available is not None:
        assert 0 < available <= total


def test_kernel_file_is_read(tmp_path):
    path = tmp_path / "cpuinfo"
    path.write_text("processor\t: 0\nmodel name\t: Fast: CPU @ 3 GHz\nmodel name\t: other\n")
    assert devices_module._read_field(str(path), "model name") == "Fast: CPU @ 3 GHz"
    assert devices_module._read_field(str(path), "model") is None
    assert devices_module._read_field(str(tmp_path / "none"), "model name") is None


def test_import_loads_no_backend():
    code = (
        "import sys; import bigmodel_utils.hardware as hardware\n"
        "hardware.find_device_spec('Tesla T4'), hardware.resolve_tier('cpu')\n"
        "heavy = 'keras', 'tensorflow', 'jax', 'rich', 'pynvml'\n"
        "print('loaded', *(n for n in heavy if n in sys.modules))"
    )
    result = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
    assert result.stdout.split() == [b"loaded"]


def test_everything_public_is_exported():
    assert set(hardware.__all__) <= set(dir(hardware))
    assert sorted(hardware.__all__, key=str.lower) == sorted(set(hardware.__all__), key=str.lower)
