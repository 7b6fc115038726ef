"""Files and folders by what is in them, and JSON that is the same for the same content."""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NoReturn

from .._checks import InputError

_SHA256 = re.compile(r"[0-9a-fA-F]{64}")
PASSED_OVER = frozenset({"__pycache__", ".git"})
"""Names of folders that are no part of a released folder: they change while nothing does."""


@dataclass(frozen=True)
class ReleasedFile:
    """What is released, by its content.

    Attributes:
        name: of the file or folder, without the folder that it lies in.
        sha256: of the file; of a folder, that of its listing, see `hash_released`.
        size_bytes: of the file, or of all files in the folder.
        num_files: 1 for a file.
        is_folder: whether `sha256` is that of a listing.
    """

    name: str
    sha256: str
    size_bytes: int
    num_files: int
    is_folder: bool

    def to_dict(self) -> dict[str, Any]:
        """Returns the fields as a plain dictionary, ready for JSON."""
        return asdict(self)


def write_json(content: Any) -> bytes:
    """Writes JSON whose bytes depend on nothing but the content; NaN is refused."""
    text = json.dumps(content, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False)
    return f"{text}\n".encode()


def hash_bytes(content: bytes) -> str:
    """Returns the SHA-256 in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def hash_file(path: str | os.PathLike[str]) -> str:
    """Returns the SHA-256 of a file in hexadecimal, without reading it into memory at once.

    Args:
        path: the file.

    Returns:
        Sixty-four characters, as `sha256sum` prints them.

    Raises:
        OSError: if it cannot be read.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = Path(folder, "greeting").write_bytes(b"hello")
        ...     hash_file(f"{folder}/greeting")[:8]
        '2cf24dba'
    """
    with Path(path).open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def hash_released(role: str, path: Path) -> ReleasedFile:
    """Hashes a file, or a folder by the listing that `sha256sum` would write of it.

    The listing has a line for each file, its hash, two spaces and its path below the folder,
    in the order of the paths' bytes. Folders named in `PASSED_OVER` are left out.

    Raises:
        InputError: if there is nothing at `path`, or a folder is empty or holds a link, a
            pipe, or a name that would break the line.
    """
    if path.is_file():
        return ReleasedFile(path.name, hash_file(path), path.stat().st_size, 1, is_folder=False)
    if not path.is_dir():
        raise _refuse(role, "exist", path, "pass the path of a file or folder")
    entries = {
        name: is_file
        for name, is_file in list_entries(path).items()
        if PASSED_OVER.isdisjoint(name.split("/"))
    }
    for name, is_file in entries.items():
        if not is_file:
            raise _refuse(role, "hold files only", name, "replace the link by what it points to")
        if not name.isprintable() or "\\" in name:
            raise _refuse(role, "have printable names", repr(name), "rename the file")
    if not entries:
        raise _refuse(role, "hold a file", f"empty folder {path}", "pass another folder")
    lines = [f"{hash_file(path / name)}  {name}\n" for name in entries]
    size_bytes = sum((path / name).stat().st_size for name in entries)
    digest = hash_bytes("".join(lines).encode())
    return ReleasedFile(path.resolve().name, digest, size_bytes, len(entries), is_folder=True)


def find_stale_files(hashes: Mapping[str, str], folder: str | os.PathLike[str]) -> list[str]:
    """Says which of the files behind stored weights are no longer what made them.

    Args:
        hashes: SHA-256 in hexadecimal by path below `folder`, as recorded when the weights
            were made; of a folder, the hash of its `sha256sum` listing, see `hash_released`.
        folder: where the code and the data are now.

    Returns:
        One sentence for each that is missing or has changed; empty if there is none.

    Raises:
        InputError: if nothing was recorded, or a hash is none.

    Limits:
        Looks at the files that are named. What else took part, such as the versions of the
        libraries, is for the bill of materials of `write_evidence`.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = Path(folder, "train.py").write_bytes(b"print('hello')")
        ...     recorded = {"train.py": hash_file(f"{folder}/train.py")}
        ...     before = find_stale_files(recorded, folder)
        ...     _ = Path(folder, "train.py").write_bytes(b"print('hallo')")
        ...     before, find_stale_files(recorded, folder)
        ([], ['train.py has changed'])
    """
    if not hashes:
        raise InputError("hashes", "must name a file", "none", "record the code and the data")
    stale = []
    for name, recorded in hashes.items():
        if not isinstance(recorded, str) or not _SHA256.fullmatch(recorded):
            fix = "record it with `sha256sum`"
            raise InputError("hashes", "must hold SHA-256 in hexadecimal", repr(recorded), fix)
        path = Path(folder, name)
        if not path.exists():
            stale.append(f"{name} is missing")
        elif hash_released(name, path).sha256 != recorded.lower():
            stale.append(f"{name} has changed")
    return stale


def list_entries(folder: Path) -> dict[str, bool]:
    """Returns what lies below a folder, by path with `/`: whether it is a regular file.

    Links are listed and not followed. A folder that cannot be read is an error, as it might
    hide something.
    """
    return dict(sorted(_iterate_entries(folder)))


def _iterate_entries(folder: Path) -> Iterator[tuple[str, bool]]:
    for parent, folders, files in os.walk(folder, onerror=_raise):
        links = [name for name in folders if Path(parent, name).is_symlink()]
        for name in (*files, *links):
            path = Path(parent, name)
            yield path.relative_to(folder).as_posix(), stat.S_ISREG(path.lstat().st_mode)


def _raise(error: OSError) -> NoReturn:
    raise error


def _refuse(role: str, requirement: str, received: object, fix: str) -> InputError:
    return InputError(f"files[{role!r}]", f"must {requirement}", received, fix)
