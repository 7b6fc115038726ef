"""Starts the service in a second process and asks it, with the standard library alone."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import json
import os
import queue
import secrets
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

IDLE_SECONDS = 2
JSON = {"Content-Type": "application/json"}


def hash_file(path: Path) -> str:
    """SHA-256 of a file, which is what a model is called by."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


class Service:
    """A running service. It ends with this process, after its lifetime, or by `close`.

    Args:
        folder: its models, see `app`.
        name: the one that serves first.
        options: more arguments of `app`, such as `["--max-batch-size", "4"]`.
        lifetime_seconds: after which it ends by itself.
    """

    def __init__(
        self,
        folder: Path,
        name: str,
        *,
        options: Sequence[str] = (),
        lifetime_seconds: float = 120,
    ) -> None:
        package = str(__package__)
        self._token = secrets.token_hex(16)
        self._free: queue.SimpleQueue[tuple[float, http.client.HTTPConnection]] = (
            queue.SimpleQueue()
        )
        command = [
            *(sys.executable, "-m", f"{package}.app", "--models", str(Path(folder).resolve())),
            *("--model", name, "--sha256", hash_file(Path(folder) / f"{name}.onnx")),
            *("--until-input-closes", "--lifetime-seconds", str(lifetime_seconds), *options),
        ]
        self.process = subprocess.Popen(
            command,
            cwd=Path(__file__).resolve().parents[len(package.split("."))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=os.environ | {"SERVICE_TOKEN": self._token},
        )
        self._port = 0
        self._starting = threading.Lock()

    def __enter__(self) -> Service:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def port(self) -> int:
        """The port it listens on, waited for on first use: several can start together."""
        with self._starting:  # the line is there for the first who reads it
            if not self._port:
                line = self.process.stdout.readline() if self.process.stdout else b""
                if not line:
                    raise RuntimeError(f"the service ended with status {self.process.wait(10)}")
                self._port = int(json.loads(line)["port"])
            return self._port

    def ask(
        self,
        method: str,
        path: str,
        *,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> tuple[int, dict[str, str], bytes]:
        """Sends one request; returns status, headers in small letters, and body.

        A connection is used again, by one request at a time.
        """
        connection = self._take()
        try:
            connection.request(method, path, body, dict(JSON if headers is None else headers))
            answer = connection.getresponse()
            names = {key.lower(): value for key, value in answer.getheaders()}
            received = answer.status, names, answer.read()
        except BaseException:
            connection.close()
            raise
        self._free.put((time.monotonic(), connection))
        return received

    def swap(self, path: str, **content: str) -> tuple[int, dict[str, Any]]:
        """Asks for `/models/activate` or `/models/rollback` with the token."""
        body = json.dumps(content).encode() if content else None
        headers = JSON | {"Authorization": f"Bearer {self._token}"}
        status, _, answer = self.ask("POST", path, body=body, headers=headers)
        return status, json.loads(answer)

    def stream(self, **request: Any) -> Iterator[tuple[float, dict[str, Any]]]:
        """Has a text continued; gives each event with the seconds since it was asked for."""
        with contextlib.closing(self._connect()) as connection:
            started = time.perf_counter()
            connection.request("POST", "/text", json.dumps(request).encode(), JSON)
            answer = connection.getresponse()
            if answer.status != 200:
                raise RuntimeError(f"status {answer.status}: {answer.read()!r}")
            for line in answer:
                if line.startswith(b"data: "):
                    yield time.perf_counter() - started, json.loads(line[len(b"data: ") :])

    def close(self) -> int:
        """Stops the service and returns the status of its process."""
        while not self._free.empty():
            self._free.get()[1].close()
        if self.process.stdin is not None:
            self.process.stdin.close()
        status = self.process.wait(30)
        if self.process.stdout is not None:
            self.process.stdout.close()
        return status

    def _take(self) -> http.client.HTTPConnection:
        """A connection that nobody uses; the service shuts those that were idle for long."""
        while True:
            try:
                since, connection = self._free.get_nowait()
            except queue.Empty:
                return self._connect()
            if time.monotonic() - since < IDLE_SECONDS:
                return connection
            connection.close()

    def _connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
