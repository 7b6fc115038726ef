"""The evidence bundle: what was released, what was measured of it, and what the gate said."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .._checks import InputError
from .._report import Report, format_bytes
from ._bill import build_bill, read_environment
from ._cards import DataSheet, ModelCard
from ._clauses import get_clause
from ._digests import ReleasedFile, hash_bytes, hash_released, write_json
from ._evidence_page import IMAGE_TYPES, EvidencePage
from ._release import ReleaseReport
from ._schema import SCHEMA_VERSION, build_schema

MANIFEST = "manifest.json"
"""The file of a bundle that lists all others with their hashes."""
MANIFEST_VERSION = 1


@dataclass(frozen=True)
class EvidenceBundle(Report):
    """A bundle that was written.

    Attributes:
        directory: where it lies.
        digest: SHA-256 of `manifest.json`, which holds the hashes of all other files. Keep it
            where who can change the bundle cannot change it.
        files: size in bytes of each file by its path in the bundle, the manifest among them.
    """

    directory: str
    digest: str
    files: Mapping[str, int]

    def _list_rows(self) -> list[tuple[str, str]]:
        sizes = [(path, format_bytes(size)) for path, size in self.files.items()]
        return [("Directory", self.directory), ("Digest to keep", self.digest), *sizes]


def write_evidence(
    directory: str | os.PathLike[str],
    report: ReleaseReport,
    *,
    model_card: ModelCard,
    data_sheet: DataSheet,
    files: Mapping[str, str | os.PathLike[str]],
    figures: Iterable[str | os.PathLike[str]] = (),
) -> EvidenceBundle:
    """Writes what an auditor needs to judge a release, in one folder that is sealed by a hash.

    The folder holds `evidence.json` with its schema, the same as a page to read in
    `evidence.html`, the model card, the data sheet, a bill of materials in CycloneDX, the
    figures, and `manifest.json` with the hash of each of these.

    Args:
        directory: where the bundle goes; it must not exist or be empty.
        report: the verdict of `check_release`.
        model_card: what is stated about the model.
        data_sheet: what is stated about its data.
        files: what is released, by role: `"weights"` must be there, `"data"` and `"code"`
            should be; other roles are free. Files and folders are hashed, not copied.
        figures: pictures to copy, in the order of the page; PNG, JPEG or SVG.

    Returns:
        Where the bundle lies, and the digest to keep elsewhere: `verify_evidence` needs it.

    Raises:
        InputError: if the directory is taken or cannot be written, the weights are missing, a
            file or figure does not exist, or two figures share a name. Nothing is written then.
        MissingExtraError: without the libraries of the extra `evidence`.

    Limits:
        The same arguments in the same environment give the same bytes: no clock is read, no
        path and no user is named. Says what was handed in; a number that was made up is
        sealed like one that was measured. The folder is renamed into its place when it is
        complete, which a file system may refuse over an empty folder: name a new one then.

    Example:
        >>> import datetime, tempfile
        >>> from pathlib import Path
        >>> from bigmodel_utils.standards import DataSheet, ModelCard, check_release
        >>> report = check_release(
        ...     {"selection_overlap": 0},
        ...     "production",
        ...     subjects=[],
        ...     checked_on=datetime.date(2026, 1, 31),
        ... )
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     weights = Path(folder, "model.keras")
        ...     _ = weights.write_bytes(b"weights")
        ...     bundle = write_evidence(
        ...         f"{folder}/evidence",
        ...         report,
        ...         model_card=ModelCard("digits", "1.0"),
        ...         data_sheet=DataSheet("digits", "1998"),
        ...         files={"weights": weights},
        ...     )
        >>> sorted(bundle.files)[:3]
        ['bill_of_materials.cdx.json', 'data_sheet.md', 'evidence.html']
    """
    _check_type("report", report, ReleaseReport)
    _check_type("model_card", model_card, ModelCard)
    _check_type("data_sheet", data_sheet, DataSheet)
    target = _check_target(Path(directory))
    released = _hash_all(files)
    pictures = _read_figures(figures)
    environment = read_environment()
    bill = build_bill(
        report,
        model_card=model_card,
        data_sheet=data_sheet,
        released=released,
        libraries=environment["libraries"],
    )
    evidence = {
        "schema_version": SCHEMA_VERSION,
        "report": report.to_dict(),
        "clauses": [get_clause(verdict.clause_id).to_dict() for verdict in report.verdicts],
        "model_card": model_card.to_dict(),
        "data_sheet": data_sheet.to_dict(),
        "released": {role: file.to_dict() for role, file in released.items()},
        "figures": list(pictures),
        "environment": environment,
    }
    page = EvidencePage(report, model_card, data_sheet, released, pictures, environment)
    contents = {
        "evidence.json": write_json(evidence),
        "evidence.schema.json": write_json(build_schema()),
        "evidence.html": page.write().encode(),
        "model_card.md": str(model_card).encode(),
        "data_sheet.md": str(data_sheet).encode(),
        "bill_of_materials.cdx.json": write_json(bill),
        **{f"figures/{name}": content for name, content in pictures.items()},
    }
    contents[MANIFEST] = write_json(_build_manifest(contents))
    _write_folder(target, contents)
    sizes = {path: len(content) for path, content in contents.items()}
    return EvidenceBundle(str(target), hash_bytes(contents[MANIFEST]), sizes)


def _build_manifest(contents: Mapping[str, bytes]) -> dict[str, Any]:
    files = {
        path: {"sha256": hash_bytes(content), "size_bytes": len(content)}
        for path, content in contents.items()
    }
    return {"manifest_version": MANIFEST_VERSION, "files": files}


def _check_type(name: str, value: object, wanted: type) -> None:
    if not isinstance(value, wanted):
        received = type(value).__name__
        raise InputError(name, f"must be a {wanted.__name__}", received, "build one")


def _check_target(target: Path) -> Path:
    if os.path.lexists(target) and not (target.is_dir() and not any(target.iterdir())):
        raise InputError(
            "directory", "must be new or empty", target, "pass another directory or move it away"
        )
    return target


def _hash_all(files: Mapping[str, str | os.PathLike[str]]) -> dict[str, ReleasedFile]:
    """Returns what is released by role, in the order of the roles' names."""
    if "weights" not in files:
        raise InputError("files", "must hold 'weights'", sorted(files), "pass the model's file")
    for role in files:
        if not isinstance(role, str) or not role.isprintable() or not role.strip():
            raise InputError("files", "must be named by role", repr(role), "such as 'code'")
    return {role: hash_released(role, Path(path)) for role, path in sorted(files.items())}


def _read_figures(figures: Iterable[str | os.PathLike[str]]) -> dict[str, bytes]:
    pictures: dict[str, bytes] = {}
    for path in map(Path, figures):
        if path.suffix not in IMAGE_TYPES:
            known = ", ".join(IMAGE_TYPES)
            raise InputError("figures", f"must end in one of {known}", path, "save it as such")
        if not path.is_file() or not path.name.isprintable():
            raise InputError("figures", "must be files", repr(str(path)), "save the figure first")
        # Two names that differ by case only are one file on some file systems.
        if path.name.casefold() in map(str.casefold, pictures):
            raise InputError("figures", "must have names of their own", path.name, "rename one")
        pictures[path.name] = path.read_bytes()
    return pictures


def _write_folder(target: Path, contents: Mapping[str, bytes]) -> None:
    """Writes all files beside `target`, then renames their folder to it."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=".evidence-") as beside:
            folder = Path(beside, "bundle")
            for path, content in contents.items():
                (folder / path).parent.mkdir(parents=True, exist_ok=True)
                with (folder / path).open("xb") as file:
                    file.write(content)
                    file.flush()
                    os.fsync(file.fileno())
            folder.replace(target)
    except OSError as error:
        raise InputError(
            "directory", "must be a place that takes a folder", error, "pass another directory"
        ) from error
