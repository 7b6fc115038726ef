"""What a stored page must be, as a table of small rules; each returns the faults it finds.

``python -m tools.notebook_rules [PAGE ...]`` prints them; the gate test runs the same table.
"""

# ruff: noqa: ARG001  (all rules take the same two arguments)
from __future__ import annotations

import ast
import json
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import nbformat

from bigmodel_utils._checks import InputError
from bigmodel_utils.standards import load_clauses

from . import bands, mutants, notebooks
from .execute import NOTEBOOK_METADATA
from .notebooks import cell_tags, code_cells
from .page_code import find_calls, find_imported, find_references, overlap, parse
from .prose import find_typed_numbers

Cell = nbformat.NotebookNode
Rule = Callable[[nbformat.NotebookNode, Path], list[str]]

IGNORED = "nbval-ignore-output"
KINDS_IGNORED = {"measured", "figure"}
MARKDOWN_CHARACTERS = 1200
ALT_CHARACTERS = 20
CPU_SECONDS = 60
MINIMUM_EXACT_CELLS = 3
RECORD_FIELDS = {"seconds", "peak_memory_bytes", "machine", "tier", "date"}
RECORD_FIELDS |= {"lock_sha256", "source_sha256", "checks"}

_KEBAB = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
_RANDOM = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){0,3}(-[0-9a-f]{12})?")
_LOCAL_PATH = re.compile(r"(?<![\w.:/])/(?:home|tmp|root|Users)(?![\w-])|[A-Za-z]:\\|site-packages")
_NBVAL_COMMENT = re.compile(r"#\s*(?:nbval|pytest_validate)_", re.IGNORECASE)
_ROLE = r"`([^`]+)`"
_GLUE = re.compile(r"\{glue(?::\w+)?\}(?:" + _ROLE + r"|[ \t]+(\S+))")
_CLAUSE = re.compile(r"\{clause\}" + _ROLE)
_PICTURE = re.compile(r"<(?:figure|svg|img)\b")
_DESCRIBED = re.compile(r"""\b(?:aria-label|alt)=(?:"([^"]*)"|'([^']*)')""")


def check_format(notebook: nbformat.NotebookNode, path: Path) -> list[str]:
    """Valid notebook format 4.5, every code cell plain Python."""
    faults = []
    try:
        nbformat.validate(notebook)
    except nbformat.ValidationError as error:
        faults.append(f"not a valid notebook: {str(error).splitlines()[0]}")
    if (notebook.nbformat, notebook.nbformat_minor) != (4, 5):
        faults.append("must be format 4.5, which has cell ids")
    for cell in code_cells(notebook):
        if parse(cell) is None:
            faults.append(f"{cell.id}: not plain Python")
    return faults


def check_cell_ids(notebook: nbformat.NotebookNode, path: Path) -> list[str]:
    """Ids that mean something, unique, in kebab-case."""
    identifiers = [cell.get("id", "") for cell in notebook.cells]
    faults = [
        f"{identifier or 'a cell without id'}: name the cell in kebab-case by what it does"
        for identifier in identifiers
        if not _KEBAB.fullmatch(identifier) or _RANDOM.fullmatch(identifier)
    ]
    twice = {identifier for identifier in identifiers if identifiers.count(identifier) > 1}
    return faults + [f"{identifier}: used more than once" for identifier in sorted(twice)]


def check_counts(notebook: nbformat.NotebookNode, path: Path) -> list[str]:
    """Code cells numbered 1 to n: run once, in order, all of them."""
    counts = [cell.execution_count for cell in code_cells(notebook)]
    wanted = list(range(1, len(counts) + 1))
    return [] if counts == wanted else [f"execution counts are {counts}: run `make execute`"]


def check_metadata(notebook: nbformat.NotebookNode, path: Path) -> list[str]:
    """The portable kernel and nothing of one machine or editor."""
    given = json.loads(json.dumps(notebook.metadata))
    return [] if given == NOTEBOOK_METADATA else [f"metadata must be {NOTEBOOK_METADATA}"]


def check_no_stderr(notebook: nbformat.NotebookNode, path: Path) -> list[str]:
    """No warnings or logs among the outputs."""
    return [
        f"{cell.id}: stored standard error: {output.text[:60]!r}"
        for cell, output in _outputs(notebook)
        if output.output_type == "stream" and output.name == "stderr"
    ]


def check_no_errors(notebook: nbformat.NotebookNode, path: Path) -> list[str]:
    """Errors only where a tag announces them, and never a failed check."""
    return [
        f"{cell.id}: stored {output.ename}"
        for cell, output in _outputs(notebook)
        if output.output_type == "error"
        and ("raises-exception" not in cell_tags(cell) or output.ename == "CheckFailed")
    ]


def check_no_local_paths(notebook: nbformat.NotebookNode, path: Path) -> list[str]:
    """Nothing that names a folder of the machine it ran on."""
    faults = []
    own = re.compile(rf"(?<![\w.:/]){re.escape(str(notebooks.ROOT))}(?![\w-])")
    for cell in notebook.cells:
        texts = [cell.source, *(_output_text(output) for output in cell.get("outputs", []))]
        for text in texts:
            found = _LOCAL_PATH.search(text) or own.search(text)
            if found:
                around = text[max(0, found.start() - 20) : found.end() + 30]
                faults.append(f"{cell.id}: local path in {around!r}")
    return faults


def check_tags(notebook: nbformat.NotebookNode, path: Path) -> list[str]:
    """A cell that nbval ignores says why, and no cell escapes nbval otherwise."""
    faults = []
    for cell in code_cells(notebook):
        tags = cell_tags(cell)
        if (IGNORED in tags) != (len(tags & KINDS_IGNORED) == 1):
            faults.append(f"{cell.id}: `{IGNORED}` goes with either `measured` or `figure`")
        if any(tag.startswith("nbval-") and tag != IGNORED for tag in tags):
            faults.append(f"{cell.id}: no nbval tag but `{IGNORED}`")
        if _NBVAL_COMMENT.search(cell.source):
            faults.append(f"{cell.id}: a comment switches nbval off; use tags")
        data = [item for output in cell.outputs for item in output.get("data", {}).items()]
        if "figure" not in tags and any(_is_picture(*item) for item in data):
            faults.append(f"{cell.id}: a picture outside a cell tagged `figure`")
    return faults


def check_exact_cells(notebook: nbformat.NotebookNode, path: Path) -> list[str]:
    """Enough stored outputs that nbval compares."""
    exact = [cell for cell in code_cells(notebook) if is_exact(cell) and cell.outputs]
    if len(exact) >= MINIMUM_EXACT_CELLS:
        return []
    return [f"{len(exact)} exact cells with output; needs {MINIMUM_EXACT_CELLS}"]


def check_measured_bounded(notebook: nbformat.NotebookNode, path: Path) -> list[str]:
    """Each value shown in a measured cell meets a `check` somewhere on the page.

    It meets one if its key, or a name, attribute or item inside it, or a part or the whole
    of such, stands among the arguments of the check.
    """
    trees = [(cell, tree) for cell in code_cells(notebook) if (tree := parse(cell))]
    imported = find_imported([tree for _, tree in trees])
    bounded: set[str] = set()
    for _, tree in trees:
        for call in find_calls(tree, "check"):
            for value in (*call.args[1:], *(keyword.value for keyword in call.keywords)):
                bounded |= find_references(value, imported)
    faults = []
    for cell, tree in trees:
        if "measured" in cell_tags(cell):
            for call in find_calls(tree, "show"):
                for shown in call.keywords:
                    wanted = {shown.arg or "**"} | find_references(shown.value, imported)
                    if not any(overlap(a, b) for a in wanted for b in bounded):
                        faults.append(f"{cell.id}: no check bounds `{shown.arg or '**'}`")
    return faults


def check_claims(notebook: nbformat.NotebookNode, path: Path) -> list[str]:
    """Claims without digits, in cells whose output nbval compares."""
    faults = []
    for cell in code_cells(notebook):
        tree = parse(cell)
        calls = list(find_calls(tree, "check")) if tree else []
        verdicts = [
            line[2:]
            for output in cell.outputs
            if output.output_type == "stream"
            for line in output.text.splitlines()
            if line.startswith("✓ ")
        ]
        literals = [
            call.args[0].value
            for call in calls
            if call.args
            and isinstance(call.args[0], ast.Constant)
            and isinstance(call.args[0].value, str)
        ]
        for claim in dict.fromkeys([*literals, *verdicts]):
            if re.search(r"\d", claim):
                faults.append(f"{cell.id}: digits in the claim {claim!r}")
        if (calls or verdicts) and not is_exact(cell):
            faults.append(f"{cell.id}: move the check to a cell that nbval compares")
    return faults


def check_prose_numbers(notebook: nbformat.NotebookNode, path: Path) -> list[str]:
    """No number in prose that was typed instead of bound."""
    return [
        f"{cell.id}: typed number {fault}"
        for cell in _markdown_cells(notebook)
        for fault in find_typed_numbers(cell.source)
    ]


def check_glue(notebook: nbformat.NotebookNode, path: Path) -> list[str]:
    """Bound values exist among the stored outputs of the page they name."""
    faults = []
    for cell in _markdown_cells(notebook):
        for match in _GLUE.finditer(cell.source):
            page, _, reference = (match[1] or match[2]).rpartition("::")
            key = reference.split(":")[0]  # a format may follow
            source = path.parent / page
            if page and not source.is_file():
                faults.append(f"{cell.id}: no page {page} to take `{key}` from")
                continue
            if key not in _glued_keys(notebooks.load_notebook(source) if page else notebook):
                faults.append(f"{cell.id}: no stored output is named `{key}`")
    return faults


def check_alternative_text(notebook: nbformat.NotebookNode, path: Path) -> list[str]:
    """Every picture is described in words for those who cannot see it."""
    faults = []
    for cell, output in _outputs(notebook):
        for mime, content in output.get("data", {}).items():
            if _is_picture(mime, content):
                described = ["".join(found) for found in _DESCRIBED.findall(content)]
                described.append(output.metadata.get(mime, {}).get("alt", ""))
                if max(len(text.strip()) for text in described) < ALT_CHARACTERS:
                    faults.append(f"{cell.id}: the {mime} needs an alternative text, a sentence")
    return faults


def check_clauses(notebook: nbformat.NotebookNode, path: Path) -> list[str]:
    """Clauses that the page cites exist, and it cites those that it earns."""
    known = {clause.id: clause for clause in load_clauses()}
    cited = {
        identifier
        for cell in _markdown_cells(notebook)
        for identifier in _CLAUSE.findall(cell.source)
    }
    page = notebooks.page_name(path)
    uncited = sorted({name for name, clause in known.items() if clause.page == page} - cited)
    faults = [f"no clause {name}" for name in sorted(cited - set(known))]
    return faults + [f"cite clause {name}, which names this page" for name in uncited]


def check_small_cells(notebook: nbformat.NotebookNode, path: Path) -> list[str]:
    """Markdown cells small enough to translate and to follow one by one."""
    return [
        f"{cell.id}: {len(cell.source)} characters; split it below {MARKDOWN_CHARACTERS}"
        for cell in _markdown_cells(notebook)
        if len(cell.source) > MARKDOWN_CHARACTERS
    ]


def check_run_record(notebook: nbformat.NotebookNode, path: Path) -> list[str]:
    """The stored outputs come from this code and this lock, in the time the tier allows."""
    record = _load_beside(path, ".run.json")
    missing = RECORD_FIELDS - set(record)
    if missing:
        return [f"the run record lacks {sorted(missing)}: run `make execute`"]
    faults = []
    if record["source_sha256"] != notebooks.source_sha256(notebook):
        faults.append("code changed since the outputs were stored: run `make execute`")
    if record["lock_sha256"] != notebooks.lock_sha256():
        faults.append("the lock changed since the outputs were stored: run `make execute`")
    if record["tier"] == "cpu" and record["seconds"] > CPU_SECONDS:
        faults.append(f"takes {record['seconds']} s; tier cpu allows {CPU_SECONDS} s")
    return faults


def check_bands(notebook: nbformat.NotebookNode, path: Path) -> list[str]:
    """Every check was seen over several seeds, and what was seen keeps its bounds."""
    recorded = _load_beside(path, ".bands.json").get("checks", {})
    made = _load_beside(path, ".run.json").get("checks", [])
    faults = []
    for check in made:
        claim = check["claim"]
        if claim not in recorded:
            faults.append(f"no band for {claim!r}: run `make bands`")
        else:
            breaches = bands.find_breaches(recorded[claim], check)
            faults += [f"{claim!r}: {breach}" for breach in breaches]
    gone = set(recorded) - {check["claim"] for check in made}
    faults += [f"a band for {claim!r}, which the page does not check" for claim in sorted(gone)]
    return faults or ([] if recorded else ["no bands: run `make bands`"])


def check_mutants(notebook: nbformat.NotebookNode, path: Path) -> list[str]:
    """At least one mutant is listed for the page; each still applies and names a check."""
    claims = {check["claim"] for check in _load_beside(path, ".run.json").get("checks", [])}
    page = notebooks.page_name(path)
    listed = [mutant for mutant in mutants.load_mutants() if mutant.page == page]
    faults = [] if listed else ["no mutant in tests/mutants.toml"]
    for mutant in listed:
        if mutant.caught_by not in claims:
            faults.append(f"mutant of {mutant.function}: no check {mutant.caught_by!r}")
        try:
            source = (notebooks.ROOT / mutant.module).read_text(encoding="utf-8")
            mutants.apply_mutant(mutant, source)
        except (InputError, OSError) as error:
            faults.append(f"mutant of {mutant.function}: {error}")
    return faults


RULES: dict[str, Rule] = {
    "format": check_format,
    "cell ids": check_cell_ids,
    "counts": check_counts,
    "metadata": check_metadata,
    "standard error": check_no_stderr,
    "errors": check_no_errors,
    "local paths": check_no_local_paths,
    "tags": check_tags,
    "exact cells": check_exact_cells,
    "measured values": check_measured_bounded,
    "claims": check_claims,
    "prose numbers": check_prose_numbers,
    "glue": check_glue,
    "alternative text": check_alternative_text,
    "clauses": check_clauses,
    "small cells": check_small_cells,
    "run record": check_run_record,
    "bands": check_bands,
    "mutants": check_mutants,
}
"""The rules by name, in the order in which their faults are best mended."""


def is_exact(cell: Cell) -> bool:
    """Whether nbval compares the outputs of a code cell."""
    return IGNORED not in cell_tags(cell)


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the faults of the pages named, or of all; returns the exit status."""
    try:
        paths = notebooks.select_pages(sys.argv[1:] if arguments is None else arguments)
    except InputError as error:
        print(error)
        return 2
    faults = [
        f"{notebooks.page_name(path)}: {name}: {fault}"
        for path in paths
        for name, rule in RULES.items()
        for fault in rule(notebooks.load_notebook(path), path)
    ]
    print("\n".join(faults) or f"{len(paths)} pages keep {len(RULES)} rules")
    return 1 if faults else 0


def _markdown_cells(notebook: nbformat.NotebookNode) -> list[Cell]:
    return [cell for cell in notebook.cells if cell.cell_type == "markdown"]


def _outputs(notebook: nbformat.NotebookNode) -> Iterator[tuple[Cell, nbformat.NotebookNode]]:
    for cell in code_cells(notebook):
        for output in cell.outputs:
            yield cell, output


def _output_text(output: nbformat.NotebookNode) -> str:
    """Everything in an output that can be read, without encoded pictures."""
    data = {k: v for k, v in output.get("data", {}).items() if "image/" not in k}
    parts = [output.get("text", ""), *output.get("traceback", []), *map(str, data.values())]
    return "\n".join([*parts, output.get("evalue", "")])


def _is_picture(mime: str, content: Any) -> bool:
    """Whether part of an output is a picture, be it shown or glued for another place."""
    kind = mime.removeprefix("application/papermill.record/")
    return kind.startswith("image/") or (kind == "text/html" and bool(_PICTURE.search(content)))


def _glued_keys(notebook: nbformat.NotebookNode) -> set[str]:
    found = (output.get("metadata", {}).get("scrapbook", {}) for _, output in _outputs(notebook))
    return {entry["name"] for entry in found if "name" in entry}


def _load_beside(path: Path, suffix: str) -> dict[str, Any]:
    file = path.with_suffix(suffix)
    if not file.exists():
        return {}
    loaded: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return loaded


if __name__ == "__main__":
    sys.exit(main())
