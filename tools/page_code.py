"""Reading the code of pages: which calls it makes and which values they mention."""

from __future__ import annotations

import ast
import builtins
from collections.abc import Iterator, Sequence

import nbformat

from . import notebooks


def parse(cell: nbformat.NotebookNode) -> ast.Module | None:
    """Parses a code cell; None if it is not plain Python."""
    try:
        return notebooks.parse_cell(cell.source)
    except SyntaxError:
        return None


def find_imported(trees: Sequence[ast.Module]) -> set[str]:
    """Returns the names that stand for modules, imported functions or built-ins."""
    imported = set(dir(builtins))
    for tree in trees:
        for node in ast.walk(tree):
            if isinstance(node, ast.Import | ast.ImportFrom):
                imported |= {(name.asname or name.name).split(".")[0] for name in node.names}
    return imported


def find_calls(tree: ast.AST, name: str) -> Iterator[ast.Call]:
    """Finds the calls of `name(...)` and `book.name(...)`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            called = node.func
            if (isinstance(called, ast.Name) and called.id == name) or (
                isinstance(called, ast.Attribute)
                and called.attr == name
                and ast.unparse(called.value) == "book"
            ):
                yield node


def find_references(node: ast.expr, imported: set[str]) -> set[str]:
    """Finds names, attributes and items that an expression reads, each as long as it goes.

    Functions called, modules and the variables of comprehensions say nothing about which
    value is meant, and are left out.
    """
    if isinstance(node, ast.Call):
        parts: list[ast.expr] = [*node.args, *(keyword.value for keyword in node.keywords)]
        if isinstance(node.func, ast.Attribute):
            parts.append(node.func.value)
    else:
        whole = ast.unparse(node)
        root = _find_root(node)
        if root:
            return set() if root in imported else {whole}
        parts = [part for part in ast.iter_child_nodes(node) if isinstance(part, ast.expr)]
        generators = getattr(node, "generators", [])
        parts += [inner for each in generators for inner in (each.iter, *each.ifs)]
        local = {
            name.id
            for each in generators
            for name in ast.walk(each.target)
            if isinstance(name, ast.Name)
        }
        imported = imported | local
    return {name for part in parts for name in find_references(part, imported)}


def _find_root(node: ast.expr) -> str:
    """The variable at the start of `a.b["c"]`; nothing if the expression is not so simple."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        return _find_root(node.value)
    if isinstance(node, ast.Subscript) and _is_constant(node.slice):
        return _find_root(node.value)
    return ""


def _is_constant(node: ast.expr) -> bool:
    return isinstance(node.operand if isinstance(node, ast.UnaryOp) else node, ast.Constant)


def overlap(one: str, other: str) -> bool:
    """Whether one reference is the other or a part of it: `run` and `run.loss`."""
    short, long = sorted((one, other), key=len)
    return long.startswith(short) and long[len(short) :][:1] in ("", ".", "[")
