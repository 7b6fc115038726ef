"""Pages of the book: finding, loading, fingerprinting and running them.

A page runs in a kernel of the interpreter that runs this script, in the page's own folder,
with no user configuration, so that a run depends on the lock and on nothing else.
"""

from __future__ import annotations

import ast
import hashlib
import json
import os
import platform
import re
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import nbformat
import psutil
from ipykernel.kernelspec import get_kernel_dict
from jupyter_client.kernelspec import KernelSpec, KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
from traitlets import default

from bigmodel_utils._checks import InputError

ROOT = Path(__file__).resolve().parent.parent
CELL_TIMEOUT_SECONDS = 600
MEMORY_SAMPLES_PER_SECOND = 10

_V4: Any = nbformat.v4  # it has no annotations

OnCell = Callable[[int, int, str], None]
"""Called before each code cell with its position from 1, their count, and its id."""


@dataclass(frozen=True)
class Execution:
    """A page that ran to its end: outputs, cost, and the checks that it made.

    `checks` holds one entry per verdict in the order of the page: `claim`, `value` and the
    bounds `at_least`, `at_most`, `equals`, `tolerance` that were stated.
    """

    notebook: nbformat.NotebookNode
    seconds: float
    peak_memory_bytes: int
    checks: tuple[dict[str, Any], ...]


class PageFailedError(RuntimeError):
    """A cell of a page raised, ran out of time, or took the kernel down."""

    def __init__(self, cell_id: str, error_name: str, error_value: str) -> None:
        super().__init__(f"cell `{cell_id}`: {error_name}: {error_value}")
        self.cell_id = cell_id
        self.error_name = error_name
        self.error_value = error_value


def find_pages() -> list[Path]:
    """Returns the notebooks of all chapters, sorted."""
    found = (ROOT / "chapters").rglob("*.ipynb")
    return sorted(page for page in found if ".ipynb_checkpoints" not in page.parts)


def page_name(path: Path) -> str:
    """Returns a page's name as clauses and commands use it: ``chapters/04_code/training``."""
    return path.resolve().relative_to(ROOT).with_suffix("").as_posix()


def select_pages(names: Sequence[str]) -> list[Path]:
    """Returns the pages named, or all of them if no name is given.

    Raises:
        InputError: if a name is no page.
    """
    pages = {page_name(path): path for path in find_pages()}
    wanted = [name.removesuffix(".ipynb") for name in names]
    for name in wanted:
        if name not in pages:
            raise InputError("PAGE", "must be a page", repr(name), f"use one of {sorted(pages)}")
    return [pages[name] for name in wanted] if wanted else list(pages.values())


def load_notebook(path: Path) -> nbformat.NotebookNode:
    """Loads a notebook as stored, in format 4, without judging it."""
    notebook: nbformat.NotebookNode = _V4.reads(path.read_text(encoding="utf-8"))
    return notebook


def code_cells(notebook: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    """Returns the code cells in order."""
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def cell_tags(cell: nbformat.NotebookNode) -> set[str]:
    """Returns the tags of a cell."""
    return set(cell.metadata.get("tags", []))


def parse_cell(source: str) -> ast.Module:
    """Parses a code cell; unlike in a module, `await` may stand at the top level.

    Raises:
        SyntaxError: if it is not plain Python, for example a magic command.
    """
    flags = ast.PyCF_ONLY_AST | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
    return cast("ast.Module", compile(source, "<cell>", "exec", flags=flags))


def source_sha256(notebook: nbformat.NotebookNode) -> str:
    """Returns the fingerprint of the code cells' sources in order: what outputs depend on."""
    sources = json.dumps([cell.source for cell in code_cells(notebook)], ensure_ascii=False)
    return hashlib.sha256(sources.encode()).hexdigest()


def lock_sha256() -> str:
    """Returns the fingerprint of the tested lock, `requirements.txt`."""
    return hashlib.sha256((ROOT / "requirements.txt").read_bytes()).hexdigest()


def find_parameters(notebook: nbformat.NotebookNode) -> set[str]:
    """Returns the names that the page's cell tagged `parameters` assigns."""
    names: set[str] = set()
    for cell in code_cells(notebook):
        if "parameters" in cell_tags(cell):
            for node in parse_cell(cell.source).body:
                targets = node.targets if isinstance(node, ast.Assign) else []
                names |= {target.id for target in targets if isinstance(target, ast.Name)}
    return names


def describe_machine() -> dict[str, Any]:
    """Returns what a reader needs to compare this machine with theirs."""
    cpu_file = Path("/proc/cpuinfo")
    text = cpu_file.read_text(encoding="utf-8") if cpu_file.exists() else ""
    model = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "cpu": model[1].strip() if model else platform.processor() or platform.machine(),
        "cores": cores,
        "memory_bytes": psutil.virtual_memory().total,
        "python": platform.python_version(),
        "platform": platform.system(),
    }


def write_files(contents: Mapping[Path, str]) -> None:
    """Writes text files all or none: each beside its place first, then renamed."""
    temporary = {path: path.with_name(f".{path.name}.tmp") for path in contents}
    try:
        for path, text in contents.items():
            with temporary[path].open("w", encoding="utf-8", newline="\n") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
        for path, beside in temporary.items():
            beside.replace(path)
    finally:
        for beside in temporary.values():
            beside.unlink(missing_ok=True)


def run_notebook(
    path: Path,
    *,
    parameters: Mapping[str, Any] | None = None,
    environment: Mapping[str, str] | None = None,
    prelude: str = "",
    on_cell: OnCell | None = None,
) -> Execution:
    """Runs a page from its first cell to its last in a fresh kernel; stores nothing.

    Args:
        path: the notebook; its folder is the kernel's working directory.
        parameters: values that replace those of the cell tagged `parameters`, set in a
            cell put after it in the executed copy.
        environment: variables added to this process's environment.
        prelude: code run before the first cell, and left out of the result.
        on_cell: told about each code cell before it runs.

    Returns:
        The executed copy and what it cost, kernel start included.

    Raises:
        InputError: for a parameter that the page does not have.
        PageFailedError: at the first cell that raises without the tag `raises-exception`.
    """
    notebook = load_notebook(path)
    for cell in code_cells(notebook):
        cell.outputs, cell.execution_count = [], None
    if parameters:
        _insert_parameters(notebook, parameters)
    if prelude:
        notebook.cells.insert(0, _code_cell("prelude", prelude))
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "checks.jsonl"
        variables = {**os.environ, **(environment or {}), "BIGMODEL_CHECK_LOG": str(log)}
        variables["IPYTHONDIR"] = folder  # no start-up files of the user, no history
        started = time.perf_counter()
        peak = _execute(notebook, path.parent, variables, on_cell)
        seconds = time.perf_counter() - started
        lines = log.read_text(encoding="utf-8").splitlines() if log.exists() else []
    if prelude:
        del notebook.cells[0]
    return Execution(notebook, seconds, peak, tuple(json.loads(line) for line in lines))


def _execute(
    notebook: nbformat.NotebookNode,
    folder: Path,
    variables: Mapping[str, str],
    on_cell: OnCell | None,
) -> int:
    """Fills in the outputs and returns the peak memory in bytes."""
    positions = {cell.id: n for n, cell in enumerate(code_cells(notebook), start=1)}
    current = "before the first cell"
    noise = Path(variables["IPYTHONDIR"]) / "stderr.txt"

    def announce(cell: nbformat.NotebookNode, **_: Any) -> None:
        nonlocal current
        current = cell.id
        if on_cell is not None:
            on_cell(positions[cell.id], len(positions), cell.id)

    client = NotebookClient(
        notebook,
        timeout=CELL_TIMEOUT_SECONDS,
        kernel_name="python3",
        kernel_manager_class=_ThisInterpreterKernel,
        record_timing=False,
        coalesce_streams=True,
        resources={"metadata": {"path": str(folder)}},
        extra_arguments=[
            # Otherwise what C++ libraries write to file descriptor 2 lands in the outputs.
            "--IPKernelApp.capture_fd_output=False",
            "--IPKernelApp.log_level=40",  # it warns of unencrypted loopback at each start
        ],
        on_cell_execute=announce,
    )
    try:
        # File descriptor 2 of the kernel: logs of C++ libraries, and why it died if it did.
        with _sample_memory(client) as peak, noise.open("wb") as sink:
            client.execute(env=dict(variables), stderr=sink)
    except CellExecutionError as error:
        raise PageFailedError(current, error.ename, error.evalue) from error
    except CellTimeoutError as error:
        limit = f"no answer within {CELL_TIMEOUT_SECONDS} s"
        raise PageFailedError(current, "CellTimeoutError", limit) from error
    except DeadKernelError as error:
        last_words = "\n".join(noise.read_text(errors="replace").splitlines()[-20:])
        raise PageFailedError(current, "DeadKernelError", f"{error}\n{last_words}") from error
    return peak[0]


class _ThisInterpreterSpecs(KernelSpecManager):
    """Knows one kernel: the interpreter that runs this script, whatever is installed."""

    def get_kernel_spec(self, kernel_name: str) -> KernelSpec:  # noqa: ARG002
        return KernelSpec(**get_kernel_dict())


class _ThisInterpreterKernel(AsyncKernelManager):
    @default("kernel_spec_manager")
    def _kernel_spec_manager_default(self) -> KernelSpecManager:
        return _ThisInterpreterSpecs(parent=self)


@contextmanager
def _sample_memory(client: NotebookClient) -> Iterator[list[int]]:
    """Keeps the largest resident memory of the kernel and its children in a list of one."""
    peak, finished = [0], threading.Event()

    def sample() -> None:
        while not finished.wait(1 / MEMORY_SAMPLES_PER_SECOND):
            provisioner = getattr(client.km, "provisioner", None)
            identifier = getattr(provisioner, "pid", None)
            if identifier:
                peak[0] = max(peak[0], _resident_bytes(identifier))

    sampler = threading.Thread(target=sample, daemon=True)
    sampler.start()
    try:
        yield peak
    finally:
        finished.set()
        sampler.join()


def _resident_bytes(identifier: int) -> int:
    total = 0
    try:
        kernel = psutil.Process(identifier)
        for process in (kernel, *kernel.children(recursive=True)):
            total += process.memory_info().rss
    except psutil.NoSuchProcess:
        pass  # it ended between two looks; what was seen before counts
    return total


def _insert_parameters(notebook: nbformat.NotebookNode, parameters: Mapping[str, Any]) -> None:
    known = find_parameters(notebook)
    for name in parameters:
        if name not in known:
            raise InputError(
                "parameters", "must be set by the page", repr(name), f"use one of {sorted(known)}"
            )
    lines = [f"{name} = {value!r}" for name, value in parameters.items()]
    at = next(n for n, cell in enumerate(notebook.cells) if "parameters" in cell_tags(cell))
    notebook.cells.insert(at + 1, _code_cell("injected-parameters", "\n".join(lines)))


def _code_cell(identifier: str, source: str) -> nbformat.NotebookNode:
    cell: nbformat.NotebookNode = _V4.new_code_cell(source, id=identifier)
    return cell


def load_definitions(
    path: Path, *, find: str = "", replace: str = "", **names: Any
) -> dict[str, Any]:
    """Runs the cells of a page whose ids end in `-defined`, and nothing else of it.

    Args:
        path: the notebook.
        find: text that stands in these cells exactly once, for a twin; empty for none.
        replace: what stands there instead.
        **names: what other cells of the page have imported.

    Returns:
        What the cells define, by name.
    """
    cells = code_cells(load_notebook(path))
    sources = [cell.source for cell in cells if cell.id.endswith("-defined")]
    if find and sum(source.count(find) for source in sources) != 1:
        raise ValueError(f"{path.name}: must hold exactly once: {find}")
    namespace = {"__name__": path.stem, **names}
    for source in sources:
        exec(source.replace(find, replace) if find else source, namespace)
    return namespace
