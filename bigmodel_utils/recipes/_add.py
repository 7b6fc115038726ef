"""Listing recipes and copying one into a project."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import tempfile
import tomllib
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from .. import __version__
from .._checks import InputError
from ._closure import PACKAGE, find_closure, find_requirements

COPY = "bigmodel_recipe"
ROOT = Path(__file__).resolve().parent.parent
_INIT = f'"""Modules of {PACKAGE} that a recipe needs; where they come from stands beside it."""\n'
# Names of modules only: the name of the distribution, as in `pip install "…[data]"`, stays.
_MODULE_NAME = re.compile(rf"\b{PACKAGE}(?=\.\w|[ ]import\b)|(?<=\bimport ){PACKAGE}\b")


@dataclass(frozen=True)
class Recipe:
    """A script that can be copied into a project.

    Attributes:
        name: what `add_recipe` takes.
        title: one line for a catalogue.
        page: page of the book that explains it, without suffix.
        summary: what the script does, in a sentence or two.
        extras: extras of the package whose libraries the script uses.
    """

    name: str
    title: str
    page: str
    summary: str
    extras: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Returns the fields as a plain dictionary."""
        return asdict(self)


@dataclass(frozen=True)
class AddedRecipe:
    """A recipe that was copied.

    Attributes:
        name: name of the recipe.
        directory: where it was copied to.
        files: paths written, below `directory`; files that were there already are not
            among them.
        requirements: what the copy needs, in pip's notation.
        optional_requirements: what parts of the copied modules can use beyond that.
    """

    name: str
    directory: Path
    files: tuple[str, ...]
    requirements: tuple[str, ...]
    optional_requirements: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Returns the fields as a plain dictionary, ready for JSON."""
        return asdict(self) | {"directory": str(self.directory)}


def list_recipes() -> tuple[Recipe, ...]:
    """Lists the recipes that this version of the library holds.

    Returns:
        The recipes, sorted by name.

    Example:
        >>> "train_image_classifier" in [recipe.name for recipe in list_recipes()]
        True
    """
    return _list_recipes(ROOT)


def add_recipe(name: str, directory: str | Path) -> AddedRecipe:
    """Copies a recipe into a directory, with every module of this package that it uses.

    The script becomes `NAME.py` and its test `test_NAME.py`; the modules become a package
    `bigmodel_recipe` beside them, with the tables that they read and their licence.
    `NAME.provenance.json` says where each file comes from. The copy is the reader's own: it
    runs without this package.

    Args:
        name: name of a recipe, see `list_recipes`.
        directory: where to put it; made if it does not exist.

    Returns:
        What was written and which libraries it needs.

    Raises:
        InputError: for an unknown name, a directory that is a file, or a file that would be
            overwritten; nothing is written then. A module that an earlier recipe put there
            is left alone if it is the same.

    Limits:
        Does not install the libraries that the recipe needs.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as directory:
        ...     added = add_recipe("train_image_classifier", directory)
        >>> "train_image_classifier.py" in added.files
        True
    """
    return _add_recipe(ROOT, name, Path(directory))


def _list_recipes(root: Path) -> tuple[Recipe, ...]:
    recipes = []
    for path in sorted(root.glob("recipes/*/recipe.toml")):
        entry = tomllib.loads(path.read_text(encoding="utf-8"))
        extras = tuple(entry.pop("extras", ()))
        recipes.append(Recipe(name=path.parent.name, extras=extras, **entry))
    return tuple(recipes)


def find_recipe(root: Path, name: str) -> Recipe:
    """Returns one recipe of a package.

    Raises:
        InputError: if it has none of this name.
    """
    recipes = {recipe.name: recipe for recipe in _list_recipes(root)}
    if name not in recipes:
        known = ", ".join(recipes)
        raise InputError("name", "must be a recipe", repr(name), f"choose from {known}")
    return recipes[name]


def _add_recipe(root: Path, name: str, directory: Path) -> AddedRecipe:
    recipe = find_recipe(root, name)
    origins, contents, libraries = collect_files(root, name)
    required, optional = find_requirements(libraries, recipe.extras)
    provenance = {
        "recipe": recipe.to_dict(),
        "package": PACKAGE,
        "version": __version__,
        "date": datetime.now(UTC).date().isoformat(),
        "requirements": required,
        "optional_requirements": optional,
        "files": [
            {
                "path": path,
                "origin": origins.get(path),  # none: written for the copy
                "origin_sha256": hash_bytes((root.parent / origins[path]).read_bytes())
                if path in origins
                else None,
                "sha256": hash_bytes(content),
            }
            for path, content in sorted(contents.items())
        ],
    }
    text = json.dumps(provenance, indent=2, ensure_ascii=False) + "\n"
    contents[name_stamp(name)] = text.encode()
    missing = _find_missing(contents, directory)
    _write_files({path: contents[path] for path in missing}, directory)
    return AddedRecipe(name, directory, missing, required, optional)


def collect_files(root: Path, name: str) -> tuple[dict[str, str], dict[str, bytes], frozenset[str]]:
    """Returns origin by path, content by path, and the libraries that these import."""
    home = root / "recipes" / name
    own_import = re.compile(rf"from {PACKAGE}\.recipes\.{name} import script\b")
    outside = {}
    for path, file in ((f"{name}.py", "script.py"), (f"test_{name}.py", "test_script.py")):
        text = (home / file).read_text(encoding="utf-8")
        outside[path] = own_import.sub(f"import {name} as script", text)
    closure = find_closure(root, *outside.values())
    modules = {
        f"{COPY}/{file}": (root / file).read_text(encoding="utf-8")
        for file in closure.files
        if file != "__init__.py"
    }
    renamed = {path: _MODULE_NAME.sub(COPY, text) for path, text in (modules | outside).items()}
    origins = {f"{COPY}/LICENSE": f"{PACKAGE}/LICENSE"}
    origins |= {path: PACKAGE + path.removeprefix(COPY) for path in modules}
    origins[f"{name}.py"] = f"{PACKAGE}/recipes/{name}/script.py"
    origins[f"test_{name}.py"] = f"{PACKAGE}/recipes/{name}/test_script.py"
    contents = {path: text.encode() for path, text in renamed.items()}
    contents[f"{COPY}/__init__.py"] = _INIT.encode()
    contents[f"{COPY}/LICENSE"] = (root / "LICENSE").read_bytes()
    return origins, contents, closure.libraries - {name}


def _find_missing(contents: dict[str, bytes], directory: Path) -> tuple[str, ...]:
    """Returns the paths to write, or refuses if one is taken by something else."""
    nearest = next(path for path in (directory, *directory.parents) if os.path.lexists(path))
    if not nearest.is_dir():
        raise InputError(
            "directory", "must be a directory", directory, f"{nearest} is a file: choose another"
        )
    present = [path for path in sorted(contents) if os.path.lexists(directory / path)]
    shared = [
        path
        for path in present
        if path.startswith(f"{COPY}/")
        and (directory / path).is_file()
        and (directory / path).read_bytes() == contents[path]
    ]
    taken = [path for path in present if path not in shared]
    if os.path.lexists(directory / COPY) and not (directory / COPY).is_dir():
        taken.append(COPY)
    if taken:
        raise InputError(
            "directory",
            "must not hold files that would be overwritten",
            f"{', '.join(taken)} in {directory}",
            "pass another directory or move them away",
        )
    return tuple(path for path in sorted(contents) if path not in present)


def _write_files(contents: dict[str, bytes], directory: Path) -> None:
    """Writes all files or none: complete beside their places first, then renamed."""
    created = _make_directory(directory)
    moved: list[Path] = []
    stage = None
    try:
        stage = Path(tempfile.mkdtemp(prefix=".recipe-", dir=directory))
        for path, content in contents.items():
            (stage / path).parent.mkdir(parents=True, exist_ok=True)
            with (stage / path).open("xb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        for path in contents:
            target = directory / path
            created += _make_directory(target.parent)
            (stage / path).replace(target)
            moved.append(target)
    except BaseException:
        for target in moved:
            target.unlink(missing_ok=True)
        if stage is not None:
            shutil.rmtree(stage, ignore_errors=True)
        for made in reversed(created):
            with suppress(OSError):  # someone else has put a file into it meanwhile
                made.rmdir()
        raise
    shutil.rmtree(stage)


def _make_directory(directory: Path) -> list[Path]:
    """Makes a directory and its parents; returns those that did not exist, outermost first."""
    missing = [path for path in (directory, *directory.parents) if not path.exists()]
    directory.mkdir(parents=True, exist_ok=True)
    return missing[::-1]


def name_stamp(name: str) -> str:
    """File beside a copied recipe that says where each of its files comes from."""
    return f"{name}.provenance.json"


def hash_bytes(content: bytes) -> str:
    """SHA-256 in hexadecimal digits."""
    return hashlib.sha256(content).hexdigest()
