"""The example service: its parts against known answers, and a real second process under fire."""

import asyncio
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bigmodel_utils.evaluation import count_misattributed, measure_load

onnx = pytest.importorskip("onnx", reason="needs the extra `edge`")
pytest.importorskip("onnxruntime", reason="needs the extra `edge`")
pytest.importorskip("fastapi", reason="needs the extra `serve`")

from examples.service import app as service  # noqa: E402
from examples.service.batching import BatchSettings, MicroBatcher, RefusedError  # noqa: E402
from examples.service.client import JSON, Service, hash_file  # noqa: E402
from examples.service.metrics import Histogram, Metrics  # noqa: E402
from examples.service.models import (  # noqa: E402
    ModelError,
    ModelStore,
    TextModel,
    load_model,
    sample_token,
)

ROOT = Path(__file__).resolve().parent.parent


# Small models: a class is the strip of the image that is bright.


def write_model(path, *, scale=8.0, order=range(10), classes=10, width=0, bias=0.0):
    """A file of ONNX, from strips to probabilities; `width` makes it slow."""
    helper, numpy_helper = onnx.helper, onnx.numpy_helper
    strips = np.zeros((784, classes), np.float32)
    for index, strip in enumerate(np.array_split(np.arange(784), 10)):
        strips[strip, list(order)[index] % classes] = scale / len(strip)
    weights = {"w": strips, "b": np.full(classes, bias, np.float32)}
    nodes = [helper.make_node("Flatten", ["x"], ["flat"])]
    last = "flat"
    if width:
        weights["slow"] = np.zeros((784, width), np.float32)
        weights["back"] = np.zeros((width, 784), np.float32)
        nodes += [
            helper.make_node("MatMul", ["flat", "slow"], ["hidden"]),
            helper.make_node("MatMul", ["hidden", "back"], ["nothing"]),
            helper.make_node("Add", ["flat", "nothing"], ["same"]),
        ]
        last = "same"
    nodes += [
        helper.make_node("Gemm", [last, "w", "b"], ["z"]),
        helper.make_node("Softmax", ["z"], ["y"]),
    ]
    number = onnx.TensorProto.FLOAT
    graph = helper.make_graph(
        nodes,
        "strips",
        [helper.make_tensor_value_info("x", number, ["batch", 28, 28, 1])],
        [helper.make_tensor_value_info("y", number, ["batch", classes])],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path.write_bytes(model.SerializeToString())


def make_images(labels):
    images = np.zeros((len(labels), 784), np.float32)
    for image, label in zip(images, labels, strict=True):
        image[np.array_split(np.arange(784), 10)[label]] = 1
    return images.reshape(-1, 28, 28, 1)


LABELS = np.arange(20) % 10
IMAGES = make_images(LABELS)
BODIES = [json.dumps({"image": image[..., 0].tolist()}).encode() for image in IMAGES]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("models")
    np.savez(place / "trial.npz", images=IMAGES, labels=LABELS)
    write_model(place / "old.onnx")
    write_model(place / "new.onnx", scale=5.0)
    write_model(place / "slow.onnx", width=6000)
    write_model(place / "wrong.onnx", order=[*range(1, 10), 0])
    write_model(place / "narrow.onnx", classes=3)
    write_model(place / "undefined.onnx", bias=float("nan"))
    (place / "damaged.onnx").write_bytes((place / "old.onnx").read_bytes()[:-40])
    return place


def hash_of(folder, name):
    return hash_file(folder / f"{name}.onnx")


def predict_with(folder, name, images):
    return load_model(folder, name, sha256=hash_of(folder, name)).predict(images)


@pytest.fixture
def store(folder):
    made = ModelStore(folder, IMAGES, labels=LABELS)
    made.activate("old", sha256=hash_of(folder, "old"))
    return made


# Batching


def run_batcher(run, settings_, work):
    async def whole():
        batcher = MicroBatcher(run, settings_)
        batcher.start()
        try:
            return await work(batcher)
        finally:
            await batcher.close()

    return asyncio.run(whole())


def test_what_waits_together_goes_together_and_never_more_than_allowed():
    sizes = []

    def run(items):
        sizes.append(len(items))
        time.sleep(0.02)
        return items

    async def work(batcher):
        return await asyncio.gather(*(batcher.submit(n) for n in range(21)))

    found = run_batcher(run, BatchSettings(max_batch_size=8), work)
    assert found == list(range(21))
    assert sizes == [8, 8, 5]


def test_the_model_runs_where_the_settings_say():
    def run(items):
        return [threading.current_thread() is threading.main_thread() for _ in items]

    async def work(batcher):
        return await batcher.submit(0)

    assert not run_batcher(run, BatchSettings(), work)
    assert run_batcher(run, BatchSettings(in_loop=True), work)


def test_alone_a_request_waits_for_nobody():
    async def work(batcher):
        seconds = []
        for _ in range(5):
            started = time.perf_counter()
            await batcher.submit(0)
            seconds.append(time.perf_counter() - started)
        return min(seconds)

    assert run_batcher(lambda items: items, BatchSettings(), work) < 0.1


def check_own_answers(make, items, size, *, in_loop=False):
    """Each request gets the answer to itself, whatever came together."""

    async def work(batcher):
        async def ask(number, item):
            await asyncio.sleep(0.0005 * (number % 3))
            return await batcher.submit(item)

        return await asyncio.gather(*(ask(*pair) for pair in enumerate(items)))

    settings_ = BatchSettings(size, max_queue_length=100, in_loop=in_loop)
    assert run_batcher(make, settings_, work) == [item * item for item in items]


many_items = st.lists(st.integers(-99, 99), min_size=1, max_size=30)


@given(many_items, st.integers(1, 9), st.booleans())
@settings(max_examples=25, deadline=None)
def test_each_gets_its_own_answer(items, size, in_loop):
    check_own_answers(lambda batch: [item * item for item in batch], items, size, in_loop=in_loop)


def test_each_gets_its_own_answer_twin():
    """A batch whose answers come in another order is found out."""

    @settings(derandomize=True, deadline=None, report_multiple_bugs=False)
    @given(many_items, st.integers(2, 9))
    def check(items, size):
        check_own_answers(lambda batch: [item * item for item in reversed(batch)], items, size)

    with pytest.raises(AssertionError):
        check()


def gather_refusals(outcomes):
    return [outcome for outcome in outcomes if isinstance(outcome, RefusedError)]


def test_a_full_queue_refuses_at_once_and_says_when_to_come_back():
    gate = threading.Event()

    def run(items):
        gate.wait(5)
        return items

    async def work(batcher):
        first = asyncio.ensure_future(batcher.submit(0))
        await asyncio.sleep(0.02)  # the worker holds it
        others = [asyncio.ensure_future(batcher.submit(n)) for n in range(1, 8)]
        await asyncio.sleep(0.02)
        refused = [task for task in others if task.done()]
        assert batcher.queue_length == 4
        gate.set()
        outcomes = await asyncio.gather(first, *others, return_exceptions=True)
        return len(refused), outcomes

    settings_ = BatchSettings(max_batch_size=1, max_queue_length=4)
    num_early, outcomes = run_batcher(run, settings_, work)
    refusals = gather_refusals(outcomes)
    assert num_early == len(refusals) == 3
    assert {refusal.status for refusal in refusals} == {429}
    assert all(refusal.retry_after_seconds >= 1 for refusal in refusals)
    assert outcomes[:5] == [0, 1, 2, 3, 4]


def test_after_its_deadline_a_request_is_not_computed():
    computed = []

    def run(items):
        computed.extend(items)
        time.sleep(0.1)
        return items

    async def work(batcher):
        tasks = [batcher.submit(n) for n in range(4)]
        return await asyncio.gather(*tasks, return_exceptions=True)

    settings_ = BatchSettings(max_batch_size=1, deadline_seconds=0.15)
    outcomes = run_batcher(run, settings_, work)
    assert computed == [0, 1]
    assert [refusal.status for refusal in gather_refusals(outcomes)] == [503, 503]


@pytest.mark.parametrize("in_loop", [False, True])
def test_a_failure_reaches_who_asked_and_the_worker_lives_on(in_loop):
    def run(items):
        if "bad" in items:
            raise ZeroDivisionError
        return items

    async def work(batcher):
        first = await asyncio.gather(batcher.submit("bad"), return_exceptions=True)
        return first, await batcher.submit("good")

    (error,), after = run_batcher(run, BatchSettings(in_loop=in_loop), work)
    assert isinstance(error, ZeroDivisionError)
    assert after == "good"


def test_too_few_answers_are_a_failure_and_leave_nobody_waiting():
    async def work(batcher):
        tasks = [asyncio.wait_for(batcher.submit(n), 2) for n in range(3)]
        return await asyncio.gather(*tasks, return_exceptions=True)

    outcomes = run_batcher(lambda items: items[:-1], BatchSettings(), work)
    assert [type(outcome) for outcome in outcomes] == [ValueError] * 3


def test_closing_refuses_who_waits():
    async def work(batcher):
        tasks = [asyncio.ensure_future(batcher.submit(n)) for n in range(3)]
        await asyncio.sleep(0.02)
        await batcher.close()
        return await asyncio.gather(*tasks, return_exceptions=True)

    def run(items):
        time.sleep(0.1)
        return items

    outcomes = run_batcher(run, BatchSettings(max_batch_size=1), work)
    assert [refusal.status for refusal in gather_refusals(outcomes)] == [503] * 3


def test_who_comes_after_the_end_is_refused_and_does_not_wait():
    async def work(batcher):
        await batcher.close()
        return await asyncio.gather(batcher.submit(0), return_exceptions=True)

    outcomes = run_batcher(lambda items: items, BatchSettings(), work)
    assert [refusal.status for refusal in gather_refusals(outcomes)] == [503]


@pytest.mark.parametrize("wrong", [(0, 1, 1), (1, 0, 1), (1, 1, 0), (1, 1, float("nan"))])
def test_bad_bounds_are_refused(wrong):
    with pytest.raises(ValueError, match="positive"):
        BatchSettings(*wrong)


# Models


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("wrong", "right on 0%"),
        ("narrow", "right on|shape"),
        ("undefined", "no probabilities"),
        ("damaged", "ONNX Runtime refuses"),
        ("absent", "there is no model"),
        ("../old", "the name of a model"),
        ("OLD", "the name of a model"),
        ("", "the name of a model"),
    ],
)
def test_a_bad_model_is_refused_and_the_one_that_serves_stays(store, folder, name, reason):
    before = store.current
    path = folder / f"{name}.onnx"
    found = hash_of(folder, name) if path.is_file() else "0" * 64
    with pytest.raises(ModelError, match=reason):
        store.activate(name, sha256=found)
    assert store.current is before
    with pytest.raises(ModelError, match="no previous"):
        store.roll_back()


def test_another_hash_is_refused(store, folder):
    with pytest.raises(ModelError, match="SHA-256"):
        store.activate("new", sha256=hash_of(folder, "old"))
    assert store.current.name == "old"


def test_swap_and_rollback(store, folder):
    old = store.current
    store.activate("new", sha256=hash_of(folder, "new"))
    assert store.current.name == "new"
    assert store.roll_back() is old
    assert store.current is old
    with pytest.raises(ModelError, match="no previous"):
        store.roll_back()


def test_an_empty_store_says_so(folder):
    with pytest.raises(ModelError, match="no model serves"):
        _ = ModelStore(folder, IMAGES, labels=LABELS).current


# Texts


class Script:
    """Stands for a session: its most probable tokens follow a script."""

    def __init__(self, script, num_tokens):
        self.script, self.num_tokens = script, num_tokens
        self.places = []

    def get_inputs(self):
        shapes = {"tokens": [1, None], "position": [1], "cache": [1, 64, 2, 1, 1]}
        return [type("Input", (), {"name": n, "shape": s})() for n, s in shapes.items()]

    def run(self, _, inputs):
        tokens, (place,) = inputs["tokens"], inputs["position"]
        self.places.append((int(place), tokens.shape[1]))
        step = len(self.places) - 1
        logits = np.zeros((1, tokens.shape[1], self.num_tokens), np.float32)
        logits[0, -1, self.script[step]] = 9
        return [logits, inputs["cache"] + 1]


@pytest.fixture(scope="module")
def tokenizer():
    data = pytest.importorskip("bigmodel_utils.data")
    return data.train_tokenizer(["plain words and more words"] * 2, vocabulary_size=262)


def stream_script(tokenizer, script, **options):
    session = Script([*script, 0], 262)
    model = type("Model", (), {"session": session})()
    text = TextModel(model, tokenizer)
    choices = {"num_tokens": len(script) + 1, "temperature": 0, "seed": 0} | options
    return list(text.stream([5, 6, 7], **choices)), session


texts = st.text(st.characters(codec="utf-8"), min_size=1, max_size=12)


def check_pieces(stream, tokenizer, text):
    """Pieces are whole characters, and together they are the text."""
    pieces, _ = stream(tokenizer, tokenizer.encode(text).ids)
    assert "".join(pieces) == text
    assert all(piece for piece in pieces)
    if "\ufffd" not in text:
        assert not any("\ufffd" in piece for piece in pieces)


@given(text=texts)
@settings(max_examples=60, deadline=None)
def test_pieces_are_whole_characters(tokenizer, text):
    check_pieces(stream_script, tokenizer, text)


def test_pieces_twin(tokenizer):
    """A stream that decodes each token alone is found out."""

    def hasty(tokenizer, tokens):
        return [tokenizer.decode([token]) for token in tokens], None

    with pytest.raises(AssertionError):
        check_pieces(hasty, tokenizer, "naïve 数字")


def test_bytes_that_never_become_a_character_come_at_the_end(tokenizer):
    lead = tokenizer.encode("数").ids[:2]
    pieces, _ = stream_script(tokenizer, [*tokenizer.encode("a").ids, *lead])
    assert "".join(pieces) == tokenizer.decode([*tokenizer.encode("a").ids, *lead])


def test_the_prompt_is_read_once_and_then_one_token_at_a_time(tokenizer):
    _, session = stream_script(tokenizer, [40, 41, 42])
    assert session.places == [(0, 3), (3, 1), (4, 1), (5, 1)]


def test_the_end_token_ends_the_text(tokenizer):
    pieces, session = stream_script(tokenizer, [40, 0, 41], num_tokens=3)
    assert "".join(pieces) == tokenizer.decode([40])
    assert len(session.places) == 2


@given(
    st.lists(st.floats(-20, 20, width=32), min_size=1, max_size=12),
    st.sampled_from([0, 0.5, 1, 2.5]),
    st.integers(0, 1000),
)
@settings(deadline=None)
def test_tokens_are_drawn_as_the_library_draws_them(logits, temperature, seed):
    generation = pytest.importorskip("bigmodel_utils.generation")
    array = np.asarray(logits, np.float32)
    ours = sample_token(array, temperature, np.random.default_rng(seed))
    theirs = generation.sample_token(
        array,
        generation.SamplingSettings(temperature=temperature),
        generator=np.random.default_rng(seed),
    )
    assert ours == theirs


# One request at a time, without a socket


def ask(app, path, body=b"", *, method="POST", pieces=None, headers=(), heard=None):
    """Calls an application of ASGI as a server would; `pieces` is how the body arrives."""
    sent, waiting = [], list(pieces or [body])
    given_headers = [(b"content-type", b"application/json"), *headers]

    async def receive():
        if waiting:
            part = waiting.pop(0)
            if part is None:
                return {"type": "http.disconnect"}
            if isinstance(part, float):
                await asyncio.sleep(part)
                return await receive()
            return {"type": "http.request", "body": part, "more_body": bool(waiting)}
        await asyncio.sleep(0.05 if heard is not None else 30)
        return {"type": "http.disconnect"}

    async def send(message):
        sent.append(message)
        if heard is not None and len(sent) > heard:
            await asyncio.sleep(0.2)  # slow to listen, and then gone

    scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": method,
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "headers": given_headers,
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 2),
        "scheme": "http",
        "root_path": "",
    }
    asyncio.run(app(scope, receive, send))
    if not sent:
        return None, {}, b""
    names = {key.decode(): value.decode() for key, value in sent[0]["headers"]}
    return sent[0]["status"], names, b"".join(m.get("body", b"") for m in sent[1:])


def test_a_body_that_does_not_arrive_is_given_up(store):
    app = service.build_app(store, limits=service.Limits(read_seconds=0.1))
    status, names, _ = ask(app, "/digits", pieces=[b'{"image"', 5.0, b": []}"])
    assert status == 408
    assert names["connection"] == "close"
    assert names["x-model-sha256"] == store.current.sha256


@pytest.mark.parametrize("headers", [(), [(b"content-length", b"10")]])
def test_a_body_that_is_larger_than_it_says_is_cut_off(store, headers):
    app = service.build_app(store, limits=service.Limits(max_body_bytes=1000))
    status, _, _ = ask(app, "/digits", pieces=[b" " * 400] * 900, headers=headers)
    assert status == 413


@pytest.mark.parametrize("length", [b"1001", b"9" * 5000, b"-1", b"1e3"])
def test_a_body_that_says_it_is_too_large_is_not_read(store, length):
    app = service.build_app(store, limits=service.Limits(max_body_bytes=1000))
    status, _, _ = ask(app, "/digits", b"{}", headers=[(b"content-length", length)])
    assert status == 413


def test_who_hangs_up_is_not_answered(store):
    app = service.build_app(store)
    assert ask(app, "/digits", pieces=[b"{", None])[0] is None
    assert list(app.metrics.requests) == [("other", 499)]


def test_a_fault_of_the_service_is_counted_and_named(store, monkeypatch):
    app = service.build_app(store)

    async def fail(*_):
        raise ZeroDivisionError

    monkeypatch.setattr(MicroBatcher, "submit", fail)
    sent = []

    async def collect():
        async def receive():
            return {"type": "http.request", "body": BODIES[0], "more_body": False}

        async def send(message):
            sent.append(message)

        scope = {
            "type": "http",
            "method": "POST",
            "path": "/digits",
            "query_string": b"",
            "headers": [(b"content-type", b"application/json")],
        }
        with pytest.raises(ZeroDivisionError):  # the server writes it to its log
            await app(scope, receive, send)

    asyncio.run(collect())
    assert sent[0]["status"] == 500
    assert (b"x-model-sha256", store.current.sha256.encode()) in sent[0]["headers"]
    assert b"ZeroDivision" not in sent[1]["body"]
    assert app.metrics.requests["/digits", 500] == 1


def build_text_app(store, tokenizer, script, max_streams=1):
    model = type(
        "Model",
        (),
        {
            "session": Script(script, 262),
            "sha256": "f" * 64,
            "describe": lambda self: {"name": "text", "sha256": self.sha256},
        },
    )()
    limits = service.Limits(max_streams=max_streams)
    return service.build_app(store, text=TextModel(model, tokenizer), limits=limits)


def test_a_listener_who_leaves_gives_the_place_back(store, tokenizer):
    words = tokenizer.encode("plain words").ids
    app = build_text_app(store, tokenizer, words * 100)
    body = json.dumps({"prompt": "and", "num_tokens": 30, "temperature": 0}).encode()
    for heard in (0, 1, 2):
        status, _, _ = ask(app, "/text", body, heard=heard)
        assert status == 200
    status, names, events = ask(app, "/text", body)
    assert status == 200
    assert names["x-model-sha256"] == "f" * 64
    assert b'"done": true' in events


# Counters


def test_a_histogram_holds_what_is_smaller_too():
    histogram = Histogram((1.0, 2.0))
    for value in (0.5, 1.0, 1.5, 9.0):
        histogram.add(value)
    assert histogram.counts == [2, 3]
    assert list(histogram.list_lines("x"))[-1] == "x_count 4"
    assert (histogram.number, histogram.total) == (4, 12.0)


LINE = re.compile(r'[a-z_]+(\{([a-z]+0?2?5?6?="[^"\n]*",?)+\})? [0-9.e+-]+')


def test_counters_have_the_format_of_a_monitor():
    metrics = Metrics()
    metrics.requests["/digits", 200] += 3
    metrics.swaps["activated"] += 1
    metrics.batch_size.add(4)
    text = metrics.write({"service_queue_length": 2.0}, {"name": "old", "sha256": "ab"})
    assert 'service_requests_total{path="/digits",status="200"} 3' in text
    assert 'service_model_info{name="old",sha256="ab"} 1' in text
    for line in text.splitlines():
        assert line.startswith("# TYPE ") or LINE.fullmatch(line.replace("+Inf", "inf")), line


# The second process


class Running(Service):
    """The client, with what tests ask for most."""

    def call(self, method, path, body=None, headers=JSON):
        return self.ask(method, path, body=body, headers=headers)

    def send(self, body):
        return self.ask("POST", "/digits", body=body)


@pytest.fixture(scope="module")
def running(folder):
    made = Running(folder, "old")
    yield made
    assert made.close() == 0


def is_alive(running):
    status, _, body = running.call("GET", "/health")
    return status == 200 and json.loads(body)["status"] == "ready"


def test_an_answer_is_right_and_says_whose_it_is(running, folder):
    expected = predict_with(folder, "old", IMAGES)
    for number in (0, 7, 13):
        status, names, body = running.call("POST", "/digits", BODIES[number])
        answer = json.loads(body)
        assert status == 200
        assert answer["digit"] == LABELS[number]
        np.testing.assert_allclose(answer["probabilities"], expected[number], atol=1e-6)
        assert answer["model"] == {"name": "old", "sha256": hash_of(folder, "old")}
        assert names["x-model-sha256"] == hash_of(folder, "old")


def change(**changes):
    image = IMAGES[0, ..., 0].tolist()
    return json.dumps({"image": image} | changes).encode()


def change_pixel(value):
    text = change().decode()
    return text.replace("1.0", value, 1).encode()


HOSTILE = {
    "nothing": b"",
    "no JSON": b"hello",
    "half of it": BODIES[0][:-5],
    "another type": b"[]",
    "null": b"null",
    "no field": b"{}",
    "another field": change(model="new"),
    "no image": change(image=None),
    "a word for an image": change(image="image"),
    "a flat image": change(image=[0.0] * 784),
    "a small image": change(image=[[0.0] * 27] * 28),
    "a large image": change(image=[[0.0] * 28] * 29),
    "an empty row": change(image=[[]] * 28),
    "a word for a pixel": change_pixel('"1.0"'),
    "a truth for a pixel": change_pixel("true"),
    "a pixel too bright": change_pixel("1.1"),
    "a pixel below nought": change_pixel("-0.1"),
    "no number": change_pixel("NaN"),
    "infinity": change_pixel("Infinity"),
    "infinity in disguise": change_pixel("1e999"),
    "a very long number": change_pixel("9" * 20_000),
    "deep nesting": b"[" * 60_000,
    "deep objects": b'{"image":' * 6_000,
    "too many bytes": b" " * 70_000 + BODIES[0],
    "so many that writing takes a while": b" " * 900_000,
    "no Unicode": b'{"image": "\xff\xfe"}',
    "half a character": b'{"image": "\\ud800"}',
    "a zip file": b"PK\x03\x04" + bytes(range(256)),
}


@pytest.mark.parametrize("body", HOSTILE.values(), ids=HOSTILE)
def test_a_malformed_body_is_the_senders_fault(running, body):
    status, names, answer = running.call("POST", "/digits", body)
    assert 400 <= status < 500
    assert names["x-model-sha256"]
    assert json.loads(answer)["error"]
    assert len(answer) < 2000  # what was sent does not come back
    assert is_alive(running)


@pytest.mark.parametrize(
    ("method", "path", "headers", "wanted"),
    [
        ("GET", "/digits", {}, 405),
        ("DELETE", "/health", {}, 405),
        ("POST", "/", JSON, 404),
        ("POST", "/../../etc/passwd", JSON, 404),
        ("POST", "/digits%00", JSON, 404),
        ("POST", "/digits", {"Content-Type": "text/plain"}, 422),
        ("POST", "/text", JSON, 404),  # this one serves no texts
        ("POST", "/models/rollback", JSON, 401),
        ("POST", "/models/rollback", JSON | {"Authorization": "Bearer guess"}, 401),
        ("POST", "/models/rollback", JSON | {"Authorization": "Bearer "}, 401),
        ("POST", "/models/activate", JSON, 401),
    ],
)
def test_a_request_at_the_wrong_door(running, method, path, headers, wanted):
    body = BODIES[0] if method == "POST" else None
    status, names, answer = running.call(method, path, body, headers)
    assert status == wanted
    assert names["x-model-sha256"]
    assert json.loads(answer)["error"]
    assert is_alive(running)


@pytest.mark.parametrize(
    "raw",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" * 9,
        b"GARBAGE\r\n\r\n",
        b"POST /digits HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n",
        b"POST /digits HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nabcde",
        b"POST /digits HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\n",
        b"GET /health HTTP/1.1\r\n" + b"X: " + b"a" * 200_000,
        b"POST /digits HTTP/1.1\r\nHost: x\r\nContent-Length: 50\r\n\r\n{",
    ],
)
def test_bytes_that_are_no_request(running, raw):
    with socket.create_connection(("127.0.0.1", running.port), timeout=10) as connection:
        answer = b""
        with suppress(OSError):  # the service may hang up at any point, which is its right
            connection.sendall(raw)
            connection.shutdown(socket.SHUT_WR)
        with suppress(ConnectionError):
            answer = connection.recv(4096)
    assert not answer or answer.startswith(b"HTTP/1.1 4")
    assert is_alive(running)


@given(
    st.binary(max_size=400)
    | st.recursive(
        st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner),
    ).map(lambda value: json.dumps(value).encode())
)
@settings(max_examples=80, deadline=None)
def test_whatever_comes_the_service_lives_on(running, body):
    status, _, _ = running.send(body)
    assert 400 <= status < 500


def test_a_neighbour_of_a_hostile_request_is_answered(running, folder):
    expected = predict_with(folder, "old", IMAGES)
    hostile = list(HOSTILE.values())
    found = {}

    def send(number):
        if number % 2:
            return running.send(hostile[number % len(hostile)])[0]
        status, _, body = running.send(BODIES[number % 20])
        found[number] = json.loads(body)["probabilities"]
        return status

    report = measure_load(send, 200, num_clients=6)
    assert report.outcomes["answered"] == 100
    assert report.outcomes["rejected"] + report.outcomes["lost"] == 100
    for number, probabilities in found.items():
        np.testing.assert_allclose(probabilities, expected[number % 20], atol=1e-6)


def test_it_listens_to_this_machine_only(running):
    psutil = pytest.importorskip("psutil")
    process = psutil.Process(running.process.pid)
    listening = [c.laddr for c in process.net_connections() if c.status == psutil.CONN_LISTEN]
    assert [(place.ip, place.port) for place in listening] == [("127.0.0.1", running.port)]


def test_a_connection_that_was_idle_for_long_is_not_used_again(running):
    assert running.send(BODIES[0])[0] == 200
    time.sleep(6)  # the service shuts it after five
    assert running.send(BODIES[0])[0] == 200


def test_small_answers_are_sent_at_once(running):
    """Where a socket waits to fill a packet, each answer takes 40 milliseconds, the fastest too."""
    report = measure_load(lambda n: running.send(BODIES[n % 20])[0], 60, num_clients=1)
    assert report.percentile(5).value < 0.03


def test_the_counters_count(running):
    def read(name):
        text = running.call("GET", "/metrics")[2].decode()
        return {
            line.rpartition(" ")[0]: float(line.rpartition(" ")[2])
            for line in text.splitlines()
            if line.startswith(name)
        }

    name = 'service_requests_total{path="/digits",status="200"}'
    before = read("service_requests_total").get(name, 0)
    batches = read("service_batch_size")["service_batch_size_sum"]
    for number in range(5):
        running.call("POST", "/digits", BODIES[number])
    running.call("GET", "/no-such-path-of-a-stranger")
    after = read("service_requests_total")
    assert after[name] == before + 5
    assert read("service_batch_size")["service_batch_size_sum"] == batches + 5
    assert not any("stranger" in key for key in after)


def test_swap_and_rollback_under_load(running, folder):
    """No answer is lost, and each is what the model that it names computes."""
    answers = {}

    def send(number):
        status, _, body = running.send(BODIES[number % 20])
        answer = json.loads(body)
        answers[number] = (answer["model"]["sha256"], answer["probabilities"])
        return status

    statuses = []

    def operate():
        for _ in range(4):
            time.sleep(0.08)
            wanted = {"name": "new", "sha256": hash_of(folder, "new")}
            statuses.append(running.swap("/models/activate", **wanted)[0])
            time.sleep(0.08)
            statuses.append(running.swap("/models/rollback")[0])

    operator = threading.Thread(target=operate)
    operator.start()
    report = measure_load(send, 900, num_clients=6)
    operator.join()
    assert statuses == [200] * 8
    assert report.outcomes["answered"] == 900
    names, outputs = zip(*(answers[number] for number in range(900)), strict=True)
    assert len(set(names)) == 2
    rows = np.arange(900) % 20
    expected = {
        hash_of(folder, name): predict_with(folder, name, IMAGES)[rows] for name in ("old", "new")
    }
    assert count_misattributed(names, outputs, expected=expected) == 0
    # The twin: hashes that came a moment late would be found out.
    late = [names[0], *names[:-1]]
    assert count_misattributed(late, outputs, expected=expected) > 0


def test_without_a_previous_model_there_is_no_way_back(running):
    assert running.swap("/models/rollback")[0] == 409


def test_a_service_that_cannot_start_says_so(folder):
    with pytest.raises(RuntimeError, match="ended with status 1"), Running(folder, "wrong") as made:
        _ = made.port


@pytest.mark.parametrize("name", ["wrong", "narrow", "undefined", "damaged"])
def test_a_bad_model_never_serves(running, folder, name):
    status, _ = running.swap("/models/activate", name=name, sha256=hash_of(folder, name))
    assert status == 409
    assert json.loads(running.call("GET", "/health")[2])["model"]["name"] == "old"


@pytest.mark.parametrize("name", ["../old", "/etc/passwd", "old.onnx", ""])
def test_a_name_that_is_a_path_is_refused(running, name):
    assert running.swap("/models/activate", name=name, sha256="0" * 64)[0] == 422


def test_under_overload_nobody_is_lost_and_who_is_refused_hears_when_to_come_back(folder):
    options = ("--max-batch-size", "1", "--max-queue-length", "8", "--deadline-seconds", "5")
    running = Running(folder, "slow", options=options)
    waits = []

    def send(number):
        status, names, _ = running.send(BODIES[number % 20])
        if status == 429:
            waits.append(int(names["retry-after"]))
        return status

    report = measure_load(send, 240, num_clients=40)
    outcomes = report.outcomes
    assert outcomes["lost"] == outcomes["failed"] == outcomes["rejected"] == 0
    assert outcomes["refused"] > 40
    assert outcomes["answered"] > 9
    assert len(waits) == outcomes["refused"]
    assert min(waits) >= 1
    assert is_alive(running)
    assert running.close() == 0


def test_it_ends_when_its_time_is_over(folder):
    running = Running(folder, "old", lifetime_seconds=1.5)
    assert is_alive(running)
    assert running.process.wait(15) == 0
    running.close()


STARTER = """
import subprocess, sys, time
process = subprocess.Popen(sys.argv[1:], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
print(process.pid, flush=True)
process.stdout.readline()
print("ready", flush=True)
time.sleep(60)
"""


@pytest.mark.skipif(os.name != "posix", reason="kills a process by a signal")
def test_it_ends_with_the_process_that_started_it(folder):
    psutil = pytest.importorskip("psutil")
    command = [
        *(sys.executable, "-m", "examples.service.app", "--models", str(folder), "--model", "old"),
        *("--sha256", hash_of(folder, "old"), "--until-input-closes", "--lifetime-seconds", "60"),
    ]
    starter = subprocess.Popen(
        [sys.executable, "-c", STARTER, *command], cwd=ROOT, stdout=subprocess.PIPE
    )
    identifier = int(starter.stdout.readline())
    assert starter.stdout.readline() == b"ready\n"
    service_process = psutil.Process(identifier)
    starter.send_signal(signal.SIGKILL)
    starter.wait(10)
    starter.stdout.close()
    _, alive = psutil.wait_procs([service_process], timeout=15)
    assert not alive
