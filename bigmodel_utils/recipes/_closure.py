"""Which files of the package a script needs, and which libraries these need in turn.

Read from the source, nothing is imported: import statements at any depth, the literal
calls of `import_extra`, and the examples in docstrings, so that these run in the copy too.
A table is needed where a module names it: a `.toml` file beside the module.
"""

from __future__ import annotations

import ast
import doctest
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from .._checks import InputError

PACKAGE = "bigmodel_utils"
_DISTRIBUTIONS = {
    "IPython": "ipython",
    "cyclonedx": "cyclonedx-python-lib",
    "pynvml": "nvidia-ml-py",
    "sklearn": "scikit-learn",
}
"""Libraries that are imported under another name than they are installed."""


@dataclass(frozen=True)
class Closure:
    """What a script needs to run without the package.

    Attributes:
        files: paths below the package, with `/`, sorted; `__init__.py` of the package
            itself is among them.
        libraries: modules from outside the package and the standard library.
    """

    files: tuple[str, ...]
    libraries: frozenset[str]


def find_closure(root: Path, *sources: str) -> Closure:
    """Follows the imports of some source texts through a package.

    Args:
        root: directory of the package.
        *sources: Python texts that stand outside the package.

    Returns:
        The files and libraries that the texts need, directly or not.

    Raises:
        InputError: if a text names a module that the package does not have.

    Limits:
        Modules imported under a computed name are not seen, nor are tables under one, nor
        data files of another kind.
    """
    files: set[str] = set()
    libraries: set[str] = set()
    waiting = [("", source) for source in sources]
    while waiting:
        path, source = waiting.pop()
        for name in _iterate_imports(path, source):
            if name.split(".")[0] != PACKAGE:
                libraries.add(name.split(".")[0])
                continue
            for needed in _find_files(root, name):
                if needed not in files:
                    files.add(needed)
                    # The copy gets an `__init__` of its own: what this one imports is not needed.
                    if needed != "__init__.py":
                        text = (root / needed).read_text(encoding="utf-8")
                        waiting.append((needed, text))
                        files.update(_list_tables(root, needed, text))
    outside = {name for name in libraries if name not in sys.stdlib_module_names}
    return Closure(tuple(sorted(files)), frozenset(outside))


def find_requirements(
    libraries: frozenset[str], extras: tuple[str, ...]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Splits libraries into what must and what may be installed, with this package's ranges.

    Args:
        libraries: names of modules, as from `find_closure`.
        extras: extras of this package whose libraries the script uses.

    Returns:
        Requirements in pip's notation: those of the core and of `extras`, then the others.
    """
    ranges = _read_ranges()
    required, optional = [], []
    for library in sorted(libraries):
        name = _DISTRIBUTIONS.get(library, library.replace("_", "-")).lower()
        by_extra = ranges.get(name, {"": name})
        wanted = next((by_extra[extra] for extra in ("", *extras) if extra in by_extra), None)
        if wanted is not None:
            required.append(wanted)
        else:
            optional.append(next(iter(by_extra.values())))
    return tuple(required), tuple(optional)


def _iterate_imports(path: str, source: str) -> Iterator[str]:
    """Yields dotted names; the last part of a name within the package may be no module."""
    for tree in (ast.parse(source), *map(ast.parse, _list_examples(source))):
        for node in ast.walk(tree):
            match node:
                case ast.Import():
                    yield from (alias.name for alias in node.names)
                case ast.ImportFrom():
                    module = _resolve_module(path, node)
                    yield from (f"{module}.{alias.name}" for alias in node.names)
                case ast.Call(
                    func=ast.Name(id="import_extra") | ast.Attribute(attr="import_extra"),
                    args=[ast.Constant(value=str(name)), *_],
                ):
                    yield name


def _list_tables(root: Path, path: str, source: str) -> list[str]:
    """Lists the tables beside a module that it names in a string."""
    beside = Path(path).parent
    names = {
        node.value
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    tables = (root / beside).glob("*.toml")
    return [(beside / table.name).as_posix() for table in tables if table.name in names]


def _list_examples(source: str) -> list[str]:
    examples = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            text = ast.get_docstring(node) or ""
            examples += [example.source for example in doctest.DocTestParser().get_examples(text)]
    return examples


def _resolve_module(path: str, node: ast.ImportFrom) -> str:
    if node.level == 0:
        return node.module or ""
    # One dot is the directory of the file, for a module and for an `__init__` alike.
    parts = [PACKAGE, *Path(path).parent.parts]
    parts = parts[: len(parts) - node.level + 1]
    return ".".join([*parts, *(node.module or "").split(".")]).rstrip(".")


def _find_files(root: Path, name: str) -> Iterator[str]:
    """Yields the files that importing `name` runs; its last part may be no module."""
    parts = name.split(".")[1:]
    yield "__init__.py"
    for depth in range(1, len(parts) + 1):
        stem = "/".join(parts[:depth])
        if (root / stem / "__init__.py").is_file():
            yield f"{stem}/__init__.py"
        elif (root / f"{stem}.py").is_file():
            yield f"{stem}.py"
            return  # what follows is an attribute of the module
        elif depth == len(parts) > 1:
            return  # an attribute of the package `parts[:-1]`
        else:
            raise InputError(
                "name",
                "must be a recipe whose imports are modules of the package",
                f"an import of {name}",
                "report this recipe as broken",
            )


def _read_ranges() -> dict[str, dict[str, str]]:
    """Distribution name to extra (`""` for the core) to requirement."""
    ranges: dict[str, dict[str, str]] = {}
    try:
        declared = metadata.requires(PACKAGE) or []
    except metadata.PackageNotFoundError:  # the source tree on a path, not installed
        declared = []
    for line in declared:
        requirement, _, marker = line.partition(";")
        extra = re.search(r"""extra == ['"]([\w-]+)['"]""", marker)
        name = re.match(r"[\w.-]+", requirement)
        if name is not None:
            by_extra = ranges.setdefault(name.group().lower().replace("_", "-"), {})
            by_extra.setdefault(extra.group(1) if extra else "", requirement.strip())
    return ranges
