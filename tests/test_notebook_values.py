"""A wrong number stored in a page makes nbval fail: the comparison of values is alive."""

import string
import subprocess
import sys

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from nbval.plugin import get_sanitize_patterns

from tools import notebook_rules, notebooks

REPOSITORY = notebooks.ROOT
PAGES = notebooks.find_pages()


def find_text(cell):
    """The first output of a cell that nbval compares as text, with the place of its text."""
    for output in cell.outputs:
        if output.output_type == "stream" and output.text.strip():
            return output, "text"
        if "text/plain" in output.get("data", {}):
            return output.data, "text/plain"
    return None


def truncate(notebook):
    """Keeps the cells up to the first exact one with text; returns where its text is."""
    for position, cell in enumerate(notebook.cells):
        if cell.cell_type == "code" and notebook_rules.is_exact(cell):
            place = find_text(cell)
            if place is not None:
                del notebook.cells[position + 1 :]
                return place
    raise AssertionError("no exact cell with text")


def corrupt(text):
    """Changes the first letter or digit into another one."""
    position = next(n for n, c in enumerate(text) if c in string.ascii_letters + string.digits)
    old = text[position]
    new = str((int(old) + 1) % 10) if old.isdigit() else ("z" if old != "z" else "a")
    return text[:position] + new + text[position + 1 :]


def run_nbval(path):
    """Runs nbval on one notebook as `make test` does; returns status and report."""
    options = ["-o", "addopts=", "--nbval", "--nbval-current-env", "--nbval-cell-timeout", "300"]
    options += ["--nbval-sanitize-with", str(REPOSITORY / "tests" / "sanitize.cfg")]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *options, str(path)]
    done = subprocess.run(command, cwd=path.parent, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


def assert_nbval_sees_a_corrupted_output(path, folder):
    notebook = notebooks.load_notebook(path)
    holder, key = truncate(notebook)
    # Where the page finds from its place what lies beside the chapters.
    copy = folder / "chapters" / "section" / "page.ipynb"
    copy.parent.mkdir(parents=True)
    (folder / "examples").symlink_to(notebooks.ROOT / "examples")
    copy.write_text(nbformat.writes(notebook))
    status, report = run_nbval(copy)
    assert status == 0, report
    holder[key] = corrupt(holder[key])
    copy.write_text(nbformat.writes(notebook))
    status, report = run_nbval(copy)
    assert status == 1, report
    assert "Cell outputs differ" in report or "mismatch" in report, report


@pytest.mark.slow
@pytest.mark.parametrize("path", PAGES, ids=notebooks.page_name)
def test_corrupted_output_of_page_is_seen(path, tmp_path):
    assert_nbval_sees_a_corrupted_output(path, tmp_path)


@pytest.fixture
def sample(tmp_path):
    printed = new_output("stream", name="stdout", text="sum  45\n")
    measured = new_code_cell("import time; print(time.time())", id="clock", execution_count=1)
    measured.metadata["tags"] = ["measured", "nbval-ignore-output"]
    measured.outputs = [new_output("stream", name="stdout", text="12.5\n")]
    exact = new_code_cell("print('sum ', sum(range(10)))", id="sum", execution_count=2)
    exact.outputs = [printed]
    later = new_code_cell("1 / 0", id="later", execution_count=3)
    cells = [new_markdown_cell("# Sample", id="title"), measured, exact, later]
    path = tmp_path / "sample.ipynb"
    path.write_text(nbformat.writes(new_notebook(cells=cells)))
    return path


@pytest.mark.slow
def test_corrupted_output_of_sample_is_seen(sample, tmp_path):
    assert_nbval_sees_a_corrupted_output(sample, tmp_path)


@pytest.mark.slow
def test_addresses_are_not_compared(sample):
    notebook = notebooks.load_notebook(sample)
    del notebook.cells[3:]
    notebook.cells[2].source = "print(object())"
    notebook.cells[2].outputs[0].text = "<object object at 0x7f00aabbccdd>\n"
    sample.write_text(nbformat.writes(notebook))
    status, report = run_nbval(sample)
    assert status == 0, report


def test_nbval_reads_every_pattern():
    """It skips lines that are not written quite as it wants, and says nothing."""
    text = (REPOSITORY / "tests" / "sanitize.cfg").read_text()
    assert len(get_sanitize_patterns(text)) == text.count("\nregex:") > 0


def test_exact_cell_is_chosen_and_corrupted(sample):
    notebook = notebooks.load_notebook(sample)
    holder, key = truncate(notebook)
    assert [cell.id for cell in notebook.cells] == ["title", "clock", "sum"]
    assert holder[key] == "sum  45\n"
    assert corrupt("sum  45") == "zum  45"
    assert corrupt("  9.5") == "  0.5"
