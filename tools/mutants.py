"""Shows that checks can fail: ``python -m tools.mutants [PAGE ...]``.

Each entry of ``tests/mutants.toml`` breaks one function in a copy of the library and runs
its page on the copy. The page must then fail at the check that the entry names; the same
run on an unbroken copy must pass.
"""

from __future__ import annotations

import argparse
import ast
import os
import shutil
import sys
import tempfile
import time
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from bigmodel_utils._checks import InputError

from . import notebooks
from .notebooks import PageFailedError

# The editable install must not win over the copy; if it does, every mutant would survive.
PRELUDE = """\
import pathlib, bigmodel_utils
_package = pathlib.Path(bigmodel_utils.__file__).resolve()
if not _package.is_relative_to({folder!r}):
    raise ImportError(f"the page imported {{_package}}, not the copy")
"""
PASSED = "every check passed"


@dataclass(frozen=True)
class Mutant:
    """One way to break the library that a check of a page must notice."""

    page: str
    module: str
    function: str
    find: str
    replace: str
    breaks: str
    caught_by: str
    parameters: Mapping[str, Any] = field(default_factory=dict)


def load_mutants() -> list[Mutant]:
    """Loads the committed table.

    Raises:
        InputError: if an entry has an unknown field or lacks one.
    """
    text = (notebooks.ROOT / "tests" / "mutants.toml").read_text(encoding="utf-8")
    mutants = []
    for entry in tomllib.loads(text).get("mutant", []):
        try:
            mutants.append(Mutant(**entry))
        except TypeError as error:
            raise InputError(
                "mutant", "must have the documented fields", entry, str(error)
            ) from error
    return mutants


def apply_mutant(mutant: Mutant, source: str) -> str:
    """Returns a module's source with the mutant's change made.

    Raises:
        InputError: if there is no such function, the text to find does not stand in it
            exactly once, or the result is no valid Python.
    """
    node = _find_function(ast.parse(source), mutant.function)
    if node is None or node.end_lineno is None:
        raise InputError("function", f"must be in {mutant.module}", mutant.function, "correct it")
    lines = source.splitlines(keepends=True)
    before, body, after = (
        "".join(part)
        for part in (
            lines[: node.lineno - 1],
            lines[node.lineno - 1 : node.end_lineno],
            lines[node.end_lineno :],
        )
    )
    count = body.count(mutant.find)
    if count != 1 or mutant.find == mutant.replace:
        fix = "make `find` longer, or follow the code, and let `replace` differ"
        required = f"must stand once in `{mutant.function}`"
        raise InputError("find", required, f"{count} times {mutant.find!r}", fix)
    mutated = before + body.replace(mutant.find, mutant.replace) + after
    try:
        ast.parse(mutated)
    except SyntaxError as error:
        raise InputError(
            "replace", "must leave valid Python", repr(mutant.replace), str(error)
        ) from error
    return mutated


def try_mutant(mutant: Mutant, *, is_baseline: bool = False) -> str:
    """Runs the page on a broken copy of the library and returns what happened.

    Args:
        mutant: what to break, and the parameters of the run.
        is_baseline: leave the copy unbroken.

    Returns:
        The claim of the check that failed, `PASSED`, or another error in words.
    """
    inherited = [os.environ["PYTHONPATH"]] if os.environ.get("PYTHONPATH") else []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name).resolve()
        package = notebooks.ROOT / "bigmodel_utils"
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(package, folder / "bigmodel_utils", ignore=ignored)
        if not is_baseline:
            module = folder / mutant.module
            mutated = apply_mutant(mutant, module.read_text(encoding="utf-8"))
            module.write_text(mutated, encoding="utf-8")
        try:
            notebooks.run_notebook(
                notebooks.ROOT / f"{mutant.page}.ipynb",
                parameters=mutant.parameters,
                environment={"PYTHONPATH": os.pathsep.join([str(folder), *inherited])},
                prelude=PRELUDE.format(folder=str(folder)),
            )
        except PageFailedError as error:
            if error.error_name == "CheckFailed":
                return error.error_value.rpartition(": wanted ")[0]
            return str(error)
    return PASSED


def main(arguments: Sequence[str] | None = None) -> int:
    """Tries the mutants of the pages named, or of all; returns the exit status."""
    parser = argparse.ArgumentParser(description="Break the library; see the checks fail.")
    parser.add_argument("page", nargs="*", help="such as chapters/04_code/training; default: all")
    names = parser.parse_args(arguments).page
    try:
        pages = [notebooks.page_name(path) for path in notebooks.select_pages(names)]
        mutants = [mutant for mutant in load_mutants() if mutant.page in pages]
    except InputError as error:
        parser.error(str(error))
    console = Console()
    table = Table("page", "function", "breaks", "check that must fail", "outcome", "seconds")
    failed = [page for page in pages if page not in {mutant.page for mutant in mutants}]
    for page in failed:
        table.add_row(page, "–", "–", "–", "[red]✗[/] no mutant in the table", "")
    baselines: dict[str, str] = {}
    for mutant in mutants:
        started = time.perf_counter()
        outcome = _judge(mutant, baselines, console)
        if outcome:
            failed.append(mutant.page)
        verdict = f"[red]✗[/] {escape(outcome)}" if outcome else "[green]✓[/] caught"
        seconds = f"{time.perf_counter() - started:.1f}"
        place = map(escape, (mutant.page, mutant.function, mutant.breaks, mutant.caught_by))
        table.add_row(*place, verdict, seconds)
    console.print(table)
    return 1 if failed else 0


def _judge(mutant: Mutant, baselines: dict[str, str], console: Console) -> str:
    """Returns nothing if the mutant was caught as stated, otherwise what is wrong."""
    run = f"{mutant.page} {dict(mutant.parameters)}"
    if run not in baselines:
        console.print(f"{run}: unbroken run", highlight=False)
        baselines[run] = try_mutant(mutant, is_baseline=True)
    if baselines[run] != PASSED:
        return f"the unbroken run failed: {baselines[run]}"
    console.print(f"{run}: breaking {mutant.function}", highlight=False)
    try:
        outcome = try_mutant(mutant)
    except InputError as error:
        return str(error)
    return "" if outcome == mutant.caught_by else f"survived: {outcome}"


def _find_function(tree: ast.Module, name: str) -> ast.FunctionDef | ast.AsyncFunctionDef | None:
    body: list[ast.stmt] = tree.body
    found: ast.stmt | None = None
    for part in name.split("."):
        kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
        named = [node for node in body if isinstance(node, kinds) and node.name == part]
        if not named:
            return None
        found, body = named[-1], named[-1].body
    return found if isinstance(found, ast.FunctionDef | ast.AsyncFunctionDef) else None


if __name__ == "__main__":
    sys.exit(main())
