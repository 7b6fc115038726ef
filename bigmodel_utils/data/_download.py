"""Files fetched on request: verified by hash, put in place whole or not at all.

`keras.utils.get_file` does the transfer. On its own it writes to the final name, leaves a
file whose hash is wrong in place, moves to a directory of its own choice when the cache
cannot be written, and waits without limit for a silent server. Here it works in a fresh
directory, under a time limit, and only a verified file is renamed to where a later call
looks for it; that call verifies it again.
"""

from __future__ import annotations

import hashlib
import os
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.error import HTTPError

CACHE_VARIABLE = "BIGMODEL_CACHE"
MIRROR_VARIABLE = "BIGMODEL_DATA_MIRROR"
SILENCE_LIMIT_SECONDS = 30.0


class DataUnavailableError(RuntimeError):
    """Data that cannot be had now; the message says what, from where, why and what to do."""

    def __init__(self, name: str, requirement: str, received: str, fix: str) -> None:
        super().__init__(f"`{name}` {requirement}. Received: {received}. Fix: {fix}")
        self.name = name


@dataclass(frozen=True)
class RemoteFile:
    """A published file: `path` in cache and mirror, its address, its hash."""

    path: str
    origin: str
    sha256: str


def fetch_file(file: RemoteFile) -> Path:
    """Returns the verified local copy of `file`, downloading it if there is none.

    Raises:
        DataUnavailableError: if there is no verified copy and none can be downloaded.
    """
    target = find_cache() / "datasets" / file.path
    if target.is_file() and _hash_file(target) == file.sha256:
        return target
    mirror = os.environ.get(MIRROR_VARIABLE)
    origin = f"{mirror.rstrip('/')}/{file.path}" if mirror else file.origin
    try:
        _download(file, origin, target)
    except ImportError:  # Keras without a backend: nothing to do with the data
        raise
    except Exception as error:  # get_file raises the bare class for a failed transfer
        received = f"{_describe(error)} (from {origin})"
        if target.is_file():
            received += f"; the file at {target} has another sha256 and is not used"
        raise DataUnavailableError(
            file.path,
            "must be in the cache or be downloaded",
            received,
            f"connect to the network; or set {MIRROR_VARIABLE} to a base address that serves "
            f"{file.path}; or put the file, sha256 {file.sha256}, at {target}",
        ) from error
    return target


def _download(file: RemoteFile, origin: str, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".download-") as folder:
        import keras

        with _limit_silence(SILENCE_LIMIT_SECONDS):
            part = Path(
                keras.utils.get_file(
                    target.name,
                    origin=origin,
                    file_hash=file.sha256,
                    cache_dir=folder,
                    cache_subdir="",
                )
            )
        with part.open("rb+") as stream:
            os.fsync(stream.fileno())
        part.replace(target)


def find_cache() -> Path:
    """Folder of all that this library stores for later; `BIGMODEL_CACHE` moves it.

    Example:
        >>> isinstance(find_cache(), Path)
        True
    """
    chosen = os.environ.get(CACHE_VARIABLE)
    return Path(chosen).expanduser() if chosen else Path.home() / ".cache" / "bigmodel_utils"


def _hash_file(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _describe(error: Exception) -> str:
    if isinstance(error, ValueError) and "hash" in str(error):
        return "a file with another sha256"
    # get_file repeats the address around the error of the transfer itself.
    cause = error.__context__ if isinstance(error.__context__, OSError) else error
    if isinstance(cause, HTTPError):
        cause.close()  # it holds the connection, which get_file leaves open
    return str(cause).strip("<>") or type(cause).__name__


@contextmanager
def _limit_silence(seconds: float) -> Iterator[None]:
    """Limits how long a new socket waits for the other side; get_file has no setting for it."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
