"""Runs pages and stores their outputs: ``python -m tools.execute [PAGE ...]``.

A page is stored only if every cell ran and every check held; otherwise the stored notebook
stays as it was. Beside it lies ``NAME.run.json`` with what the run cost and where it ran.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nbformat
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from bigmodel_utils._checks import InputError

from . import notebooks
from .notebooks import Execution, PageFailedError

NOTEBOOK_METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}
AUTHORED_METADATA = ("tags", "mystnb")
WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"


def main(arguments: Sequence[str] | None = None) -> int:
    """Executes the pages named on the command line, or all; returns the exit status."""
    parser = argparse.ArgumentParser(description="Run pages and store their outputs.")
    parser.add_argument("page", nargs="*", help="such as chapters/04_code/training; default: all")
    names = parser.parse_args(arguments).page
    try:
        paths = notebooks.select_pages(names)
    except InputError as error:
        parser.error(str(error))
    console = Console()
    failed = 0
    for path in paths:
        name = notebooks.page_name(path)
        try:
            execution = _run_with_progress(path, name, console)
            store(path, execution)
        except PageFailedError as error:
            failed += 1
            console.print(f"[red]✗[/] {name} not stored", highlight=False)
            console.print(f"  {error}", markup=False, highlight=False)
        else:
            memory = execution.peak_memory_bytes / 2**20
            summary = f"{execution.seconds:.1f} s, {memory:.0f} MiB, {len(execution.checks)} checks"
            console.print(f"[green]✓[/] {name}: {summary}", highlight=False)
    return 1 if failed else 0


def store(path: Path, execution: Execution) -> None:
    """Writes the executed notebook and its run record, both or neither.

    Raises:
        PageFailedError: if an output must not be stored: a failed check, even in a cell
            that may raise, or text on standard error.
    """
    clean = clean_notebook(execution.notebook)
    for cell in notebooks.code_cells(clean):
        for output in cell.outputs:
            if output.output_type == "error" and output.ename == "CheckFailed":
                raise PageFailedError(cell.id, output.ename, output.evalue)
            if output.output_type == "stream" and output.name == "stderr":
                raise PageFailedError(cell.id, "wrote to standard error", output.text.strip())
    nbformat.validate(clean)
    text: str = nbformat.writes(clean)  # type: ignore[no-untyped-call]
    record = build_record(clean, execution)
    notebooks.write_files(
        {
            path: text + "\n",
            path.with_suffix(".run.json"): json.dumps(record, indent=2, ensure_ascii=False) + "\n",
        }
    )


def clean_notebook(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """Returns a copy without what differs between two equal runs or serves no reader."""
    clean: Any = nbformat.from_dict(notebook)  # type: ignore[no-untyped-call]
    clean.metadata = nbformat.from_dict(NOTEBOOK_METADATA)  # type: ignore[no-untyped-call]
    clean.nbformat, clean.nbformat_minor = 4, 5
    for cell in clean.cells:
        for key in set(cell.metadata) - set(AUTHORED_METADATA):
            del cell.metadata[key]
        for output in cell.get("outputs", []):
            output.get("data", {}).pop(WIDGET_VIEW, None)
    result: nbformat.NotebookNode = clean
    return result


def build_record(notebook: nbformat.NotebookNode, execution: Execution) -> dict[str, Any]:
    """Returns the run record: the badge of the page, and what its outputs belong to."""
    return {
        "seconds": round(execution.seconds, 1),
        "peak_memory_bytes": execution.peak_memory_bytes,
        "machine": notebooks.describe_machine(),
        "tier": os.environ.get("BIGMODEL_TIER", "cpu"),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "lock_sha256": notebooks.lock_sha256(),
        "source_sha256": notebooks.source_sha256(notebook),
        "checks": list(execution.checks),
    }


def _run_with_progress(path: Path, name: str, console: Console) -> Execution:
    columns = (TextColumn("{task.description}"), BarColumn(20), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task(f"{name}: starting", total=None)

        def announce(position: int, count: int, identifier: str) -> None:
            text = f"{name}: cell {position} of {count}, {identifier}"
            progress.update(task, description=text, completed=position - 1, total=count)
            if not console.is_terminal:
                print(text, flush=True)

        return notebooks.run_notebook(path, on_cell=announce)


if __name__ == "__main__":
    sys.exit(main())
