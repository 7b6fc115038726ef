"""Files that are there whole or not at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .._checks import InputError


@contextmanager
def write_beside(path: str | Path) -> Iterator[Path]:
    """Gives a place in a new folder beside `path`; what was written there moves to `path`.

    If the block fails, nothing is left, and what was at `path` is still there.

    Raises:
        InputError: if the folder of `path` takes no file, or `path` is a folder.
    """
    target = Path(path)
    try:
        made = tempfile.TemporaryDirectory(dir=target.parent, ignore_cleanup_errors=True)
    except OSError as error:
        raise _make_error(error) from error
    with made as folder:
        beside = Path(folder) / target.name
        yield beside
        try:
            with beside.open("rb") as file:
                os.fsync(file.fileno())
            beside.replace(target)
        except OSError as error:
            raise _make_error(error) from error


def _make_error(error: OSError) -> InputError:
    return InputError(
        "path", "must lie in a folder that takes files", str(error), "pass another path"
    )
