"""Downloads against a server on this machine that misbehaves in each way a real one can."""

import gzip
import hashlib
import inspect
import io
import json
import socket
import threading
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import keras
import numpy as np
import pytest

from bigmodel_utils.data import (
    DataUnavailableError,
    _datasets,
    _download,
    load_fashion_mnist,
    load_mnist,
)
from bigmodel_utils.data._download import RemoteFile, fetch_file

BODY = bytes(range(256)) * 40
FILE = RemoteFile(
    "set/file.bin", "http://unused.invalid/file.bin", hashlib.sha256(BODY).hexdigest()
)


class Server(ThreadingHTTPServer):
    """Serves `files`; `mode` says how. Counts requests."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files = {"/set/file.bin": BODY}
        self.mode = "good"
        self.num_requests = 0
        self.released = threading.Event()
        self.address = f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.server.num_requests += 1
        body = self.server.files.get(self.path)
        if self.server.mode == "missing" or body is None:
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.server.mode == "silent":
            self.wfile.write(body[:1000])
            self.wfile.flush()
            self.server.released.wait(timeout=10)
        elif self.server.mode == "truncated":
            self.wfile.write(body[: len(body) // 2])
        elif self.server.mode == "wrong":
            self.wfile.write(body[::-1])
        else:
            self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture
def server(monkeypatch):
    server = Server()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    monkeypatch.setenv("BIGMODEL_DATA_MIRROR", server.address + "/")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    yield server
    server.released.set()
    server.shutdown()
    server.server_close()
    thread.join(timeout=5)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("BIGMODEL_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "datasets"


def list_files(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_good_file_is_fetched_once(server, cache):
    assert fetch_file(FILE) == cache / "set" / "file.bin"
    assert fetch_file(FILE).read_bytes() == BODY
    assert server.num_requests == 1
    assert list_files(cache) == ["set/file.bin"]
    assert [path.name for path in (cache / "set").iterdir()] == ["file.bin"]


@pytest.mark.parametrize(
    ("mode", "reason"),
    [
        ("missing", "HTTP Error 404: Not Found"),
        ("truncated", "got only 5120 out of 10240 bytes"),
        ("wrong", "a file with another sha256"),
        ("silent", "timed out"),
    ],
)
def test_failure_leaves_nothing_and_recovers(server, cache, monkeypatch, mode, reason):
    monkeypatch.setattr(_download, "SILENCE_LIMIT_SECONDS", 0.3)
    server.mode = mode
    with pytest.raises(DataUnavailableError) as error:
        fetch_file(FILE)
    message = str(error.value)
    target = cache / "set" / "file.bin"
    for part in ("`set/file.bin`", reason, server.address, "BIGMODEL_DATA_MIRROR", FILE.sha256):
        assert part in message
    assert f"at {target}" in message
    assert "another sha256 and is not used" not in message
    assert list(cache.rglob("*")) == [cache / "set"]
    assert socket.getdefaulttimeout() is None

    server.mode = "good"
    assert fetch_file(FILE).read_bytes() == BODY


def test_refused_file_leaves_no_connection_open(server):
    server.mode = "missing"
    with pytest.raises(DataUnavailableError) as error:
        fetch_file(FILE)
    response = error.value.__cause__.__context__
    assert response.code == 404
    assert response.closed


def test_refused_connection_and_the_fix_by_hand(server, cache, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    monkeypatch.setenv("BIGMODEL_DATA_MIRROR", f"http://127.0.0.1:{port}")
    with pytest.raises(DataUnavailableError, match="Connection refused") as error:
        fetch_file(FILE)
    assert f"(from http://127.0.0.1:{port}/set/file.bin)" in str(error.value)

    (cache / "set" / "file.bin").write_bytes(BODY)
    assert fetch_file(FILE).read_bytes() == BODY


@pytest.mark.parametrize("kept", [BODY[:5000], BODY[::-1], b""])
def test_bad_file_in_the_cache_is_never_used(server, cache, kept):
    target = cache / "set" / "file.bin"
    target.parent.mkdir(parents=True)
    target.write_bytes(kept)
    server.mode = "missing"
    with pytest.raises(DataUnavailableError, match="another sha256 and is not used"):
        fetch_file(FILE)
    assert target.read_bytes() == kept

    server.mode = "good"
    assert fetch_file(FILE).read_bytes() == BODY


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, SystemExit])
def test_interruption_leaves_nothing(cache, monkeypatch, interruption):
    def write_half(name, *, cache_dir, **_):
        (_download.Path(cache_dir) / name).write_bytes(BODY[:100])
        raise interruption

    monkeypatch.setattr(keras.utils, "get_file", write_half)
    with pytest.raises(interruption):
        fetch_file(FILE)
    assert list_files(cache) == []
    assert socket.getdefaulttimeout() is None


def test_killed_download_is_not_taken_for_the_file(server, cache):
    """A killed process cleans nothing up: its part lies in a folder no call looks into."""
    left = cache / "set" / ".download-killed" / "file.bin"
    left.parent.mkdir(parents=True)
    left.write_bytes(BODY[:100])
    assert fetch_file(FILE).read_bytes() == BODY
    assert server.num_requests == 1


def test_cache_that_cannot_be_written_is_not_moved(server, tmp_path, monkeypatch):
    (tmp_path / "occupied").write_text("a file, not a folder")
    monkeypatch.setenv("BIGMODEL_CACHE", str(tmp_path / "occupied"))
    with pytest.raises(DataUnavailableError, match="occupied"):
        fetch_file(FILE)
    assert server.num_requests == 0


def test_default_cache_is_in_the_home_directory(monkeypatch, tmp_path):
    monkeypatch.delenv("BIGMODEL_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert _download.find_cache() == tmp_path / ".cache" / "bigmodel_utils"


def test_mnist_hash_and_address_are_those_of_keras():
    source = inspect.getsource(inspect.getmodule(keras.datasets.mnist.load_data))
    folder, _, name = _datasets._MNIST_FILE.origin.rpartition("/")
    assert f'"{folder}/"' in source
    assert name in source
    assert f'"{_datasets._MNIST_FILE.sha256}"' in source


def make_images(num_examples, seed):
    generator = np.random.default_rng(seed)
    labels = np.arange(num_examples, dtype=np.uint8) % 10
    return generator.integers(0, 256, (num_examples, 28, 28), dtype=np.uint8), labels


def encode_idx(array):
    """The published format: two zero bytes, type, number of axes, their lengths, the data."""
    lengths = np.array(array.shape, ">u4").tobytes()
    return gzip.compress(bytes([0, 0, 8, array.ndim]) + lengths + array.tobytes())


def check_image_sets(sets, expected):
    for found, (images, labels) in zip(sets, expected, strict=True):
        assert found.x.shape == (len(images), 28, 28, 1)
        assert np.array_equal(np.rint(found.x[..., 0] * 255), images)
        assert np.array_equal(found.y, labels)
        assert json.dumps(found.to_dict())


def test_mnist_from_a_mirror(server, monkeypatch):
    train, test = make_images(30, 0), make_images(20, 1)
    stream = io.BytesIO()
    np.savez(stream, x_train=train[0], y_train=train[1], x_test=test[0], y_test=test[1])
    body = stream.getvalue()
    server.files = {"/mnist/mnist.npz": body}
    file = replace(_datasets._MNIST_FILE, sha256=hashlib.sha256(body).hexdigest())
    monkeypatch.setattr(_datasets, "_MNIST_FILE", file)
    check_image_sets(load_mnist(), (train, test))


def test_fashion_mnist_from_a_mirror(server, monkeypatch):
    train, test = make_images(30, 2), make_images(20, 3)
    bodies = [encode_idx(array) for array in (*train, *test)]
    files = _datasets._FASHION_FILES
    server.files = {f"/{file.path}": body for file, body in zip(files, bodies, strict=True)}
    monkeypatch.setattr(
        _datasets,
        "_FASHION_FILES",
        [
            replace(file, sha256=hashlib.sha256(body).hexdigest())
            for file, body in zip(files, bodies, strict=True)
        ],
    )
    sets = load_fashion_mnist()
    check_image_sets(sets, (train, test))
    assert sets[0].class_names[9] == "Ankle boot"


@pytest.mark.parametrize("load", [load_mnist, load_fashion_mnist])
def test_no_fallback_to_other_data(server, load):
    server.mode = "missing"
    with pytest.raises(DataUnavailableError, match="404"):
        load()
