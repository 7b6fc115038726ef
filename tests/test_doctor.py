"""The doctor's forecasts, what it finds missing, and how it asks for the mirror."""

import json
import math
import socket
import threading
import time
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from types import SimpleNamespace

import pytest

from bigmodel_utils import doctor, hardware
from bigmodel_utils._checks import InputError
from bigmodel_utils.doctor import (
    check_mirror,
    estimate_tiers,
    find_missing_extras,
    inspect_readiness,
    measure_product_rate,
)
from bigmodel_utils.hardware import Device, find_device_spec, inspect_machine


@pytest.fixture(scope="module")
def machine():
    """This machine, with no accelerator that it may have."""
    here = inspect_machine()
    return replace(here, memory_bytes=8 * 2**30, devices=(Device("Some CPU", "cpu", 8 * 2**30),))


def add(machine, *names):
    specs = [find_device_spec(name) for name in names]
    devices = [Device(n, "gpu", s and s.memory_bytes, s) for n, s in zip(names, specs, strict=True)]
    return replace(machine, devices=(*machine.devices, *devices))


# The workload


def test_workload_is_the_reference_model():
    from bigmodel_utils.artifacts import _language
    from bigmodel_utils.costs import Architecture, count_parameters

    settings = _language.SETTINGS
    for name in ("vocabulary_size", "num_layers", "width", "num_heads", "feedforward_width"):
        assert getattr(doctor.SHAPE, name) == getattr(settings, name), name
    assert isinstance(doctor.SHAPE, Architecture)
    assert count_parameters(doctor.SHAPE).total == 1_568_160  # of its provenance
    assert doctor.PLAN.batch_size == _language.BATCH_SIZE
    assert doctor.PLAN.sequence_length == settings.context_length


@pytest.mark.slow
def test_steps_are_those_of_the_shipped_training():
    import tokenizers

    from bigmodel_utils.artifacts import _language, _reference

    folder = _reference.SHIPPED / "language_model"
    stored = json.loads((folder / _reference.PROVENANCE).read_text(encoding="utf-8"))
    if stored["versions"]["python"] != inspect_machine().python:
        pytest.skip("the corpus is another Python's")
    tokenizer = tokenizers.Tokenizer.from_file(str(folder / _reference.TOKENIZER))
    x, _ = _language.load_corpus_windows(tokenizer, ["training"])["training"]
    assert _language.NUM_EPOCHS * math.ceil(len(x) / _language.BATCH_SIZE) == doctor.NUM_STEPS


# The forecasts


def count_operations():
    """By hand: per token 6 per weight of a matrix, and the products of attention."""
    shape, plan = doctor.SHAPE, doctor.PLAN
    block = 4 * shape.width**2 + 3 * shape.width * shape.feedforward_width
    matrices = shape.num_layers * block + shape.width * shape.vocabulary_size
    attention = 2 * shape.num_layers * plan.sequence_length * shape.width
    return 6 * (matrices + attention) * plan.num_tokens * doctor.NUM_STEPS


def test_time_of_the_cpu_is_that_of_the_products(machine):
    cpu, gpu, full = estimate_tiers(machine, flops_per_second=1e11)
    assert cpu.seconds == pytest.approx(count_operations() / (1e11 * doctor.UTILIZATION))
    assert estimate_tiers(machine, flops_per_second=2e11)[0].seconds == cpu.seconds / 2
    assert cpu.has_room
    assert (gpu.seconds, gpu.memory_bytes, gpu.has_room) == (None, None, None)
    assert str(gpu) == "no accelerator here"
    assert str(full) == "fewer than two accelerators here"


def test_memory_holds_at_least_weights_and_states(machine):
    memory = estimate_tiers(machine, flops_per_second=1e11)[0].memory_bytes
    assert memory > 16 * 1_568_160
    small = replace(machine, memory_bytes=memory - 1)
    forecast = estimate_tiers(small, flops_per_second=1e11)[0]
    assert forecast.has_room is False
    assert "more than there is" in str(forecast)
    unknown = estimate_tiers(replace(machine, memory_bytes=None), flops_per_second=1e11)[0]
    assert unknown.has_room is None
    assert "unknown memory" in str(unknown)


def test_accelerators_are_shared_out(machine):
    peak = find_device_spec("Tesla T4").peak_flops["float16"]
    one = estimate_tiers(add(machine, "Tesla T4"), flops_per_second=1e11)
    assert one[1].seconds == pytest.approx(count_operations() / (peak * doctor.UTILIZATION))
    assert one[2].seconds is None
    many = estimate_tiers(add(machine, *["Tesla T4"] * 5), flops_per_second=1e11)
    assert many[1] == one[1]
    assert many[2].seconds == pytest.approx(one[1].seconds / 4)  # five do not divide a batch of 32
    assert many[2].devices == "4 × Tesla T4"
    assert many[2].memory_bytes < many[1].memory_bytes


def test_unknown_accelerator_has_no_time(machine):
    forecast = estimate_tiers(add(machine, "Brand New"), flops_per_second=1e11)[1]
    assert forecast.seconds is None
    assert forecast.memory_bytes > 0
    assert str(forecast).startswith("unknown time")


def test_rate_of_nothing_is_refused(machine):
    with pytest.raises(InputError, match="must be positive"):
        estimate_tiers(machine, flops_per_second=0)


def test_rate_is_measured_quickly():
    started = time.perf_counter()
    rate = measure_product_rate()
    assert time.perf_counter() - started < 3  # a third of a second where nothing else runs
    assert 1e8 < rate < 1e14


def test_rate_counts_two_operations_per_product(monkeypatch):
    """Against a clock that says a millisecond per product."""
    ticks = iter(range(10_000))
    clock = SimpleNamespace(perf_counter=lambda: next(ticks) * 1e-3)
    monkeypatch.setattr(doctor, "time", clock)
    rate = measure_product_rate(budget_seconds=0.01)
    assert rate == pytest.approx(2 * 4096 * 160 * 432 / 1e-3)


def test_budget_that_is_none():
    with pytest.raises(InputError, match="budget_seconds"):
        measure_product_rate(budget_seconds=-1)


@pytest.mark.slow
def test_forecast_is_near_a_measured_step(machine):
    """Within a factor of six: it may run beside other tests."""
    import numpy as np

    from bigmodel_utils.artifacts import _language
    from bigmodel_utils.models import build_language_model

    model = build_language_model(_language.SETTINGS)
    model.compile(optimizer=model.optimizer, loss=model.loss, jit_compile=True)
    x = np.random.default_rng(0).integers(0, 2048, (32, 128)).astype("int32")
    seconds = []
    for _ in range(6):
        started = time.perf_counter()
        model.train_on_batch(x, x)
        seconds.append(time.perf_counter() - started)
    forecast = estimate_tiers(machine, flops_per_second=measure_product_rate())[0]
    ratio = forecast.seconds / doctor.NUM_STEPS / np.median(seconds[1:])
    assert 1 / 6 < ratio < 6


# The extras

REQUIREMENTS = [
    "keras>=3",
    'no-such-one>=1; extra == "data"',
    'numpy; extra == "data"',
    "no_such_two[part]>=2,<3 ; extra == 'data'",
    'numpy; extra == "whole"',
    'no-such-three; sys_platform == "no_such_system" and extra == "elsewhere"',
    'no-such-four; extra == "all"',
    'bigmodel_utils[data]; extra == "all"',
]


def test_missing_extras_of_known_requirements():
    (extra,) = doctor._find_missing_extras(REQUIREMENTS)
    assert extra.name == "data"
    assert extra.libraries == ("no-such-one", "no_such_two")
    assert extra.command == 'pip install "bigmodel_utils[data]"'


def test_library_under_another_name_is_there():
    assert doctor._find_missing_extras(['json; extra == "x"']) == ()  # a module, no distribution


def test_command_is_the_one_that_errors_name():
    from bigmodel_utils._checks import MissingExtraError, import_extra

    for extra in find_missing_extras():
        with pytest.raises(MissingExtraError) as raised:
            import_extra("no_such_module", extra=extra.name)
        assert str(raised.value).endswith(f"Fix: {extra.command}")


def test_package_that_is_not_installed(monkeypatch):
    monkeypatch.setattr(doctor, "PACKAGE", "no_such_package")
    assert find_missing_extras() == ()


# The mirror


@pytest.fixture
def serve(monkeypatch):
    """Serves one answer on this machine, and sets it as the mirror."""
    servers = []

    def start(status):
        class Handler(BaseHTTPRequestHandler):
            def do_HEAD(self):
                self.send_response(status if self.path == "/base/mnist/mnist.npz" else 410)
                self.end_headers()

            def log_message(self, *arguments):
                pass

        server = HTTPServer(("127.0.0.1", 0), Handler)
        servers.append(server)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("BIGMODEL_DATA_MIRROR", f"http://127.0.0.1:{server.server_port}/base/")

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def test_mirror_that_serves(serve):
    serve(200)
    outcome = check_mirror()
    assert outcome.is_reachable
    assert outcome.address.endswith("/base/mnist/mnist.npz")
    assert outcome.detail.endswith("is reachable")


def test_mirror_without_the_file(serve):
    serve(404)
    outcome = check_mirror()
    assert outcome.is_reachable is False
    assert "the server answers, but with status 404" in outcome.detail


@pytest.mark.parametrize(
    "address", ["http://127.0.0.1:1", "nonsense", "http://", "gopher://x", "http://[", "http://a b"]
)
def test_mirror_that_is_none(address, monkeypatch):
    monkeypatch.setenv("BIGMODEL_DATA_MIRROR", address)
    outcome = check_mirror()
    assert outcome.is_reachable is False
    assert "not reachable: " in outcome.detail


def test_mirror_that_is_silent(monkeypatch):
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        monkeypatch.setenv("BIGMODEL_DATA_MIRROR", f"http://127.0.0.1:{silent.getsockname()[1]}")
        started = time.perf_counter()
        outcome = check_mirror(timeout_seconds=0.3)
        assert time.perf_counter() - started < 3
    assert outcome.is_reachable is False


def test_name_that_is_looked_up_for_ever(monkeypatch):
    released = threading.Event()
    monkeypatch.setattr(doctor, "urlopen", lambda *arguments, **options: released.wait(20))
    monkeypatch.setenv("BIGMODEL_DATA_MIRROR", "http://example.invalid")
    outcome = check_mirror(timeout_seconds=0.1)
    released.set()
    assert outcome.detail.endswith("no answer within 0.1 seconds")


def test_no_mirror(monkeypatch):
    monkeypatch.delenv("BIGMODEL_DATA_MIRROR", raising=False)
    monkeypatch.setattr(doctor, "urlopen", None)
    assert check_mirror().is_reachable is None


# The report


def test_report(monkeypatch, machine):
    monkeypatch.setattr(doctor, "inspect_machine", lambda: machine)
    monkeypatch.setattr(doctor, "urlopen", None)
    monkeypatch.setattr(doctor, "measure_product_rate", lambda: 1e11)
    monkeypatch.setattr(doctor, "find_missing_extras", lambda: ())
    report = inspect_readiness()
    stored = json.loads(json.dumps(report.to_dict()))
    assert stored["machine"] == json.loads(json.dumps(machine.to_dict()))
    assert [forecast["tier"] for forecast in stored["forecasts"]] == list(hardware.TIERS)
    assert stored["mirror"] is None
    text = str(report)
    for part in ("Some CPU", "On tier cpu", "3208 steps", "all are installed", "Estimates: "):
        assert part in text
        assert part in report._repr_html_()
    assert "Mirror" not in text
    monkeypatch.delenv("BIGMODEL_DATA_MIRROR", raising=False)
    assert "Mirror" in str(inspect_readiness(asks_mirror=True))
