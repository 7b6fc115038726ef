"""Where a model came from, in a form that can be compared with what is here now."""

from __future__ import annotations

import ast
import hashlib
import platform
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from ..data import Corpus

PACKAGE = Path(__file__).parent.parent


@dataclass(frozen=True)
class TrainedModel:
    """A model fresh from training.

    Attributes:
        model: the compiled `keras.Model`.
        tokenizer: its `tokenizers.Tokenizer`, or `None`.
        report: data and training, as plain data.
        measure: measures loss and metrics of a model on the test side.
    """

    model: Any
    tokenizer: Any
    report: Mapping[str, Any]
    measure: Callable[[Any], dict[str, float]]


def hash_code(modules: Iterable[str]) -> str:
    """Hash of what some modules of the package do: comments and docstrings do not count.

    Args:
        modules: paths below the package, such as `"models/_transformer.py"`.

    Returns:
        SHA-256, in hexadecimal.

    Limits:
        Compares between equal minor versions of Python, whose parsers agree.

    Example:
        >>> len(hash_code(["models/_transformer.py"]))
        64
    """
    digest = hashlib.sha256()
    for module in sorted(modules):
        tree = ast.parse((PACKAGE / module).read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
                node.body = [part for part in node.body if not _is_text(part)] or [ast.Pass()]
        digest.update(f"{module}\n{ast.unparse(tree)}\n".encode())
    return digest.hexdigest()


def hash_file(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal.

    Example:
        >>> len(hash_file(Path(__file__)))
        64
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def list_versions() -> dict[str, str]:
    """Versions of what a model's weights depend on.

    Example:
        >>> "keras" in list_versions()
        True
    """
    versions = {"python": platform.python_version()}
    for name in ("keras", "numpy", "tensorflow", "jax", "tokenizers"):
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions


def describe_corpus(corpus: Corpus, num_documents: Mapping[str, int]) -> dict[str, Any]:
    """What a model was trained on, with the licence.

    Args:
        corpus: the corpus before it was split.
        num_documents: documents by side.

    Returns:
        Plain data.
    """
    return {**corpus.to_dict(), "num_documents_by_side": dict(num_documents)}


def _is_text(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
