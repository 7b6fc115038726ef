"""The installed Python's standard library as a corpus of code and of English docstrings."""

from __future__ import annotations

import ast
import hashlib
import platform
import sysconfig
import tokenize
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from .._checks import check_choice
from ._download import DataUnavailableError

KINDS = ("source", "docstrings")

# Not the library itself: what was installed into it, compiled from it, or written to test it
# (more than half of all bytes, much of it deliberately broken); the IDLE editor, the
# retired 2to3 converter and the turtle demonstrations, which are programs; vendored wheels.
EXCLUDED_DIRECTORIES = frozenset(
    {
        "__pycache__", "_bundled", "dist-packages", "idle_test", "idlelib", "lib2to3",
        "site-packages", "test", "tests", "turtledemo",
    }
)  # fmt: skip
# Written when this Python was built: they hold the paths and flags of the machine that did.
EXCLUDED_PREFIXES = ("config-", "_sysconfigdata")


@dataclass(frozen=True)
class Document:
    """One text of a corpus.

    Attributes:
        path: where it is from, relative to the library and with `/`: `"json/decoder.py"`, and
            for a docstring `"json/decoder.py::JSONDecoder.decode"`.
        text: the text, line ends as single newlines.
    """

    path: str
    text: str = field(repr=False)

    @cached_property
    def sha256(self) -> str:
        """Hash of the text in UTF-8; equal texts share it."""
        return hashlib.sha256(self.text.encode()).hexdigest()

    @property
    def family(self) -> str:
        """The top-level module the text is from.

        Example:
            >>> Document("json/decoder.py::JSONDecoder", "Simple JSON decoder").family
            'json'
        """
        return self.path.split("::")[0].split("/")[0].removesuffix(".py")


@dataclass(frozen=True)
class Corpus:
    """Texts in a fixed order, with their provenance.

    Attributes:
        kind: `"source"` or `"docstrings"`.
        documents: the texts, in the order of their paths; none is blank.
        skipped: paths of the files that could not be decoded or parsed.
        python_version: version of the Python whose library this is.
        licence: name of the licence and where its text lies.
    """

    kind: str
    documents: tuple[Document, ...] = field(repr=False)
    skipped: tuple[str, ...]
    python_version: str
    licence: str

    def __len__(self) -> int:
        return len(self.documents)

    @property
    def keys(self) -> tuple[str, ...]:
        """One key per document for `split_by_hash`; equal texts share a key."""
        return tuple(document.sha256 for document in self.documents)

    @cached_property
    def num_bytes(self) -> int:
        """Bytes of all texts in UTF-8."""
        return sum(len(document.text.encode()) for document in self.documents)

    @cached_property
    def sha256(self) -> str:
        """Hash of all paths and texts in order."""
        lines = (f"{document.sha256} {document.path}\n" for document in self.documents)
        return hashlib.sha256("".join(lines).encode()).hexdigest()

    def to_dict(self) -> dict[str, Any]:
        """Returns the provenance and size as a plain dictionary, without the texts."""
        return {
            "kind": self.kind,
            "num_documents": len(self),
            "num_bytes": self.num_bytes,
            "skipped": list(self.skipped),
            "python_version": self.python_version,
            "licence": self.licence,
            "sha256": self.sha256,
        }


def load_standard_library(kind: str = "source") -> Corpus:
    """Loads the source files, or the docstrings, of the running Python's standard library.

    Tests, caches, installed packages, vendored wheels, the IDLE editor, the 2to3 converter,
    the turtle demonstrations and files written when Python was built are left out. So are
    blank texts. A file that cannot be decoded, or for docstrings parsed, is listed in
    `skipped`.

    *Limits*: the corpus is that of one Python version, and of one distributor's build of it:
    record `sha256` with every result. It is full of near-duplicates (see `encodings`).

    Args:
        kind: `"source"` for one document per file, `"docstrings"` for one per documented
            module, class or function, cleaned of indentation.

    Returns:
        The corpus; equal installations give equal corpora.

    Raises:
        InputError: if `kind` is unknown.
        DataUnavailableError: if this Python came without the library's source.

    Example:
        >>> corpus = load_standard_library()
        >>> corpus.kind, len(corpus) > 300, "json" in {text.family for text in corpus.documents}
        ('source', True, True)

    References:
        Python Software Foundation, History and License, docs.python.org/3/license.html
    """
    check_choice("kind", kind, KINDS)
    root = Path(sysconfig.get_path("stdlib"))
    documents, skipped = _read_library(root, kind)
    if not documents:
        raise DataUnavailableError(
            "the standard library",
            "must be installed as source files",
            "no source file beside this Python",
            "use a Python that keeps its library as .py files, not in an archive",
        )
    text = "LICENSE.txt" if (root / "LICENSE.txt").is_file() else "docs.python.org/3/license.html"
    return Corpus(
        kind=kind,
        documents=documents,
        skipped=skipped,
        python_version=platform.python_version(),
        licence=f"PSF License Agreement ({text})",
    )


def _read_library(root: Path, kind: str) -> tuple[tuple[Document, ...], tuple[str, ...]]:
    documents: list[Document] = []
    skipped: list[str] = []
    for path in _list_files(root):
        name = path.relative_to(root).as_posix()
        try:
            with tokenize.open(path) as stream:  # honours a coding comment
                text = stream.read()
            found = [(name, text)] if kind == "source" else list(_list_docstrings(name, text))
        except (SyntaxError, ValueError):  # ValueError: undecodable, or a null byte
            skipped.append(name)
            continue
        documents += [Document(*pair) for pair in found if pair[1].strip()]
    return tuple(documents), tuple(skipped)


def _list_files(root: Path) -> list[Path]:
    def is_wanted(path: Path) -> bool:
        parts = path.relative_to(root).parts
        return EXCLUDED_DIRECTORIES.isdisjoint(parts[:-1]) and not any(
            part.startswith(EXCLUDED_PREFIXES) for part in parts
        )

    # By parts, not by path: paths of Windows compare without case.
    return sorted(
        (path for path in root.rglob("*.py") if path.is_file() and is_wanted(path)),
        key=lambda path: path.relative_to(root).parts,
    )


def _list_docstrings(name: str, text: str) -> Iterator[tuple[str, str]]:
    """Yields path and docstring of the module and of every definition in it, in order."""
    seen: Counter[str] = Counter()

    def visit(node: ast.AST, scope: tuple[str, ...]) -> Iterator[tuple[str, str]]:
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            scope = (*scope, node.name)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            docstring = ast.get_docstring(node)
            if docstring:
                path = "::".join((name, ".".join(scope))) if scope else name
                # Property setters and definitions in both arms of an `if` repeat a name.
                seen[path] += 1
                yield (path if seen[path] == 1 else f"{path}#{seen[path]}"), docstring
        for child in ast.iter_child_nodes(node):
            yield from visit(child, scope)

    with warnings.catch_warnings():
        # An odd escape in a file must not depend on the caller's filters.
        warnings.simplefilter("ignore")
        tree = ast.parse(text)
    return visit(tree, ())
