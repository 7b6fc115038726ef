"""What people state about a release: its kind, what was measured elsewhere, waivers, cards."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from datetime import date
from pathlib import Path
from typing import Any

from .._checks import InputError
from ..standards import DataSheet, ModelCard, Waiver


@dataclass(frozen=True)
class Declaration:
    """A declaration of a release.

    Attributes:
        subjects: what is released, from the names in `standards.load_subjects()`.
        measurements: by metric, what no file can show, such as the difference between two
            training runs; see `standards.check_release` for the forms.
        waivers: clauses that are not met and why the release is made all the same.
        model_card: what the model is and what it is for.
        data_sheet: what the data are and where they come from.
        hashes: SHA-256 of the code and the data that made the model, by path below `folder`;
            see `standards.find_stale_files`.
        folder: what the paths in `hashes` are relative to.
    """

    subjects: tuple[str, ...] = ()
    measurements: Mapping[str, Any] = field(default_factory=dict)
    waivers: tuple[Waiver, ...] = ()
    model_card: ModelCard | None = None
    data_sheet: DataSheet | None = None
    hashes: Mapping[str, str] = field(default_factory=dict)
    folder: Path = Path()

    def check_cards(self) -> tuple[ModelCard, DataSheet]:
        """Returns the cards, without which there is no evidence.

        Raises:
            InputError: if one is missing.
        """
        if self.model_card is not None and self.data_sheet is not None:
            return self.model_card, self.data_sheet
        missing = "model_card" if self.model_card is None else "data_sheet"
        raise InputError(
            "declaration",
            f"must hold a table `{missing}` for the evidence",
            "none",
            f"add [{missing}] with a name and a version",
        )


def load_declaration(path: str | Path) -> Declaration:
    """Reads a declaration from a TOML file.

    Args:
        path: a file with `subjects`, a list; `[measurements]`, a table by metric;
            `[hashes]`, a table by path from the folder of the file; `[[waivers]]`, tables with
            `clause_id`, `reason`, `owner` and `expires`, a date; `[model_card]` and
            `[data_sheet]`, tables with the fields of `ModelCard` and `DataSheet`. Each may be
            left out.

    Returns:
        The declaration. Whether its names exist is for `check_release` to say.

    Raises:
        InputError: if the file is no TOML, or a table or field is unknown or missing.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder, "release.toml")
        ...     _ = path.write_text('subjects = ["classifier"]')
        ...     load_declaration(path).subjects
        ('classifier',)
    """
    file = Path(path)
    try:
        tables = tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InputError(
            "declaration", "must be a TOML file", f"{file}: {error}", "correct it"
        ) from error
    known = {entry.name for entry in fields(Declaration)} - {"folder"}
    unknown = sorted(tables.keys() - known)
    if unknown:
        raise _make_error(f"tables {', '.join(sorted(known))}", ", ".join(unknown))
    waivers = tables.get("waivers", [])
    _require(isinstance(waivers, list), "a list of tables `waivers`", waivers)
    subjects = tables.get("subjects", [])
    _require(isinstance(subjects, list), "a list `subjects`", subjects)
    measurements, hashes = (tables.get(name, {}) for name in ("measurements", "hashes"))
    _require(isinstance(measurements, dict), "a table `measurements`", measurements)
    _require(isinstance(hashes, dict), "a table `hashes`", hashes)
    return Declaration(
        tuple(subjects),
        measurements,
        tuple(_fill(Waiver, "waivers", waiver) for waiver in waivers),
        _fill(ModelCard, "model_card", tables["model_card"]) if "model_card" in tables else None,
        _fill(DataSheet, "data_sheet", tables["data_sheet"]) if "data_sheet" in tables else None,
        hashes,
        file.parent,
    )


def _fill(kind: type[Any], name: str, table: Any) -> Any:
    """Builds a dataclass from a table, or says which field is wrong."""
    _require(isinstance(table, dict), f"a table `{name}`", table)
    known = [entry.name for entry in fields(kind)]
    _require(table.keys() <= set(known), f"in `{name}` the fields {', '.join(known)}", table)
    if "expires" in known:
        expires = table.get("expires")
        _require(type(expires) is date, f"in `{name}` a date `expires`", expires)
    try:
        return kind(**table)
    except TypeError as error:
        raise _make_error(f"in `{name}` every field of {kind.__name__}", str(error)) from None


def _require(holds: bool, requirement: str, received: Any) -> None:
    if not holds:
        raise _make_error(requirement, repr(received))


def _make_error(requirement: str, received: str) -> InputError:
    return InputError("declaration", f"must hold {requirement}", received, "correct the file")
