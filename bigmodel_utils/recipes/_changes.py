"""What has changed since a recipe was copied: here, and in the reader's copy."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from .._checks import InputError
from .._report import Report
from ._add import ROOT, collect_files, find_recipe, hash_bytes, name_stamp


@dataclass(frozen=True)
class RecipeChanges(Report):
    """A copied recipe beside what copying it today would write.

    Attributes:
        name: name of the recipe.
        directory: where the copy is.
        version: version of this package that the copy was made with.
        date: day of the copy.
        upstream: `"changed"`, `"new"` or `"no longer used"` by path, for files that this
            package would write otherwise today and that the copy does not have so yet.
        own: `"changed"` or `"deleted"` by path, for files that the reader touched.
        difference: unified diff from the files of the copy to those that would be written
            today; what `patch -p1` in the directory would take over.
    """

    name: str
    directory: Path
    version: str
    date: str
    upstream: Mapping[str, str]
    own: Mapping[str, str]
    difference: str = field(repr=False)

    @property
    def is_up_to_date(self) -> bool:
        """Whether there is nothing to take over."""
        return not self.upstream

    def to_dict(self) -> dict[str, Any]:
        """Returns the fields as a plain dictionary, ready for JSON."""
        return super().to_dict() | {"directory": str(self.directory)}

    def _list_rows(self) -> list[tuple[str, str]]:
        upstream = [(f"{how} upstream", path) for path, how in self.upstream.items()]
        own = [(f"{how} by you", path) for path, how in self.own.items()]
        return [
            ("copied", f"{self.date}, version {self.version}"),
            *(upstream or [("upstream", "up to date: nothing to take over")]),
            *(own or [("yours", "as copied")]),
        ]


def find_recipe_changes(name: str, directory: str | Path) -> RecipeChanges:
    """Finds what a copied recipe lacks of today's, and what its reader has changed.

    Three texts of each file are compared: as it was copied, which the stamp
    `NAME.provenance.json` knows by its hash; as it is in the directory; and as copying the
    recipe today would write it.

    Args:
        name: name of the recipe, see `list_recipes`.
        directory: where `add_recipe` put it.

    Returns:
        The changes of both sides, and the difference. A fix that the reader has taken over
        already is no change.

    Raises:
        InputError: for an unknown recipe, or a directory whose stamp is missing or damaged.

    Limits:
        Says what differs, not whether it matters. Ends of lines are not compared.

    Example:
        >>> import tempfile
        >>> from bigmodel_utils.recipes import add_recipe
        >>> with tempfile.TemporaryDirectory() as directory:
        ...     added = add_recipe("train_image_classifier", directory)
        ...     changes = find_recipe_changes("train_image_classifier", directory)
        >>> changes.is_up_to_date
        True
    """
    return _find_recipe_changes(ROOT, name, Path(directory))


def _find_recipe_changes(root: Path, name: str, directory: Path) -> RecipeChanges:
    find_recipe(root, name)
    stamp = _read_stamp(name, directory)
    copied = {entry["path"]: entry["sha256"] for entry in stamp["files"]}
    today = {path: _join_lines(text) for path, text in collect_files(root, name)[1].items()}
    present = {path: _read(directory / path) for path in sorted({*copied, *today})}
    upstream, own, difference = {}, {}, []
    for path, text in present.items():
        wanted = today.get(path)
        if text == wanted:
            continue
        was = copied.get(path)
        if wanted is None:
            upstream[path] = "no longer used"
        elif was is None:
            upstream[path] = "new"
        elif hash_bytes(wanted) != was:
            upstream[path] = "changed"
        if was is not None and text is None:
            own[path] = "deleted"
        elif text is not None and hash_bytes(text) != was:
            own[path] = "changed"
        if wanted is not None:
            difference += _compare(path, text, wanted)
    version, date = stamp["version"], stamp["date"]
    return RecipeChanges(name, directory, version, date, upstream, own, "".join(difference))


def _read_stamp(name: str, directory: Path) -> dict[str, Any]:
    path = directory / name_stamp(name)
    if not path.is_file():
        raise InputError(
            "directory",
            f"must hold {path.name}, which `add_recipe` writes",
            f"no such file in {directory}",
            "pass the directory that the recipe was copied to",
        )
    try:
        stamp = json.loads(path.read_text(encoding="utf-8"))
        is_whole = (
            stamp["recipe"]["name"] == name
            and all(isinstance(stamp[key], str) for key in ("version", "date"))
            and all(_is_entry(entry) for entry in stamp["files"])
        )
    except (ValueError, KeyError, TypeError, RecursionError):
        is_whole = False
    if not is_whole:
        raise InputError(
            "directory",
            f"must hold {path.name} as `add_recipe` wrote it",
            f"a damaged {path}",
            "restore the file, or copy the recipe to another directory",
        )
    return dict(stamp)


def _is_entry(entry: Any) -> bool:
    """Whether an entry names a file below the directory and its hash."""
    path = PurePosixPath(entry["path"])
    is_below = bool(path.parts) and not path.is_absolute() and ".." not in path.parts
    return is_below and isinstance(entry["sha256"], str)


def _read(path: Path) -> bytes | None:
    return _join_lines(path.read_bytes()) if path.is_file() else None


def _join_lines(content: bytes) -> bytes:
    """The text as it is written here: version control may have put other ends of lines."""
    return content.replace(b"\r\n", b"\n")


def _compare(path: str, text: bytes | None, wanted: bytes) -> list[str]:
    before, after = (
        [] if content is None else content.decode("utf-8", "replace").splitlines(keepends=True)
        for content in (text, wanted)
    )
    name = "/dev/null" if text is None else f"yours/{path}"
    lines = difflib.unified_diff(before, after, name, f"upstream/{path}")
    marked = "\n\\ No newline at end of file\n"
    return [line if line.endswith("\n") else line + marked for line in lines]
