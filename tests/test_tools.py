"""Running, storing, banding and breaking a small page; running the suite in parts."""

import json
import os
import shutil
import sys
from types import SimpleNamespace

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook
from rich.console import Console

from bigmodel_utils._checks import InputError
from tools import bands, execute, mutants, notebook_rules, notebooks, reproduce, run_tests
from tools.notebooks import PageFailedError

REPOSITORY = notebooks.ROOT
NAME = "chapters/01_sample/sample"
CLAIM = "the number is read unchanged"
PROSE = "# Numbers\n\nThe spread is {glue:text}`spread`; see {clause}`TEST-001`."
IMPORTS = """\
import random
from bigmodel_utils._checks import check_integer
from bigmodel_utils.book import check, show"""
MUTANT = mutants.Mutant(
    page=NAME,
    module="bigmodel_utils/_checks.py",
    function="check_integer",
    find="number = int(value)",
    replace="number = int(value) + 1",
    breaks="it changes what it checks",
    caught_by=CLAIM,
    parameters={"num_draws": 10},
)


def code(identifier, source, *tags):
    metadata = {"tags": list(tags)} if tags else {}
    return new_code_cell(source, id=identifier, metadata=metadata)


def sample_cells():
    return [
        new_markdown_cell(PROSE, id="introduction"),
        code("settings", "first_seed = 0\nnum_draws = 50", "parameters"),
        code("imports", IMPORTS),
        code("sum", "show(total=sum(range(10)))"),
        code("shape", "(2, 3)"),
        code(
            "draw",
            "random.seed(first_seed)\n"
            "spread = max(random.random() for _ in range(num_draws))\n"
            "show(spread=spread)",
            "measured",
            "nbval-ignore-output",
        ),
        code("spread-bounded", 'check("the draws reach far", spread, at_least=0.2, at_most=1)'),
        code("reading", f'check("{CLAIM}", check_integer("n", num_draws), equals=num_draws)'),
    ]


def write_page(path, cells):
    path.parent.mkdir(parents=True, exist_ok=True)
    notebook = new_notebook(
        cells=cells, metadata={"kernelspec": {"name": "nowhere", "display_name": "x"}}
    )
    path.write_text(nbformat.writes(notebook))


@pytest.fixture
def page(tmp_path, monkeypatch):
    """The path of a page that has not been run, in a project of its own."""
    monkeypatch.setattr(notebooks, "ROOT", tmp_path)
    clause = SimpleNamespace(id="TEST-001", page=NAME)
    monkeypatch.setattr(notebook_rules, "load_clauses", lambda: (clause,))
    (tmp_path / "requirements.txt").write_text("keras==3.15.1\n")
    package = tmp_path / "bigmodel_utils"
    package.mkdir()
    for name in ("__init__.py", "_checks.py", "book.py"):
        shutil.copy(REPOSITORY / "bigmodel_utils" / name, package)
    write_mutants(tmp_path, MUTANT)
    path = tmp_path / f"{NAME}.ipynb"
    write_page(path, sample_cells())
    return path


def write_mutants(root, *entries):
    lines = []
    for entry in entries:
        values = dict(vars(entry))
        parameters = values.pop("parameters")
        lines += ["[[mutant]]", *(f"{key} = {json.dumps(text)}" for key, text in values.items())]
        lines += ["[mutant.parameters]", *(f"{key} = {n}" for key, n in parameters.items())]
    (root / "tests").mkdir(exist_ok=True)
    (root / "tests" / "mutants.toml").write_text("\n".join(lines))


def snapshot(path):
    return {file.name: file.read_bytes() for file in path.parent.iterdir()}


@pytest.mark.slow
def test_page_from_source_to_gate(page, capsys):
    """The tools' products together satisfy every rule."""
    assert execute.main([NAME]) == 0
    assert bands.main([NAME, "--runs", "2"]) == 0
    assert mutants.main([NAME]) == 0
    assert notebook_rules.main([NAME]) == 0, capsys.readouterr().out

    record = json.loads(page.with_suffix(".run.json").read_text())
    assert record["seconds"] > 0
    assert record["peak_memory_bytes"] > 10 * 2**20, "a Python kernel is larger than this"
    assert record["tier"] == "cpu"
    assert set(record["machine"]) == {"cpu", "cores", "memory_bytes", "python", "platform"}
    recorded = json.loads(page.with_suffix(".bands.json").read_text())
    assert recorded["made"]["seeds"] == [100, 200]
    assert reproduce.main([NAME, "--out", str(page.with_name("here.json"))]) == 0
    here = json.loads(page.with_name("here.json").read_text())
    assert {check["place"] for check in here["checks"]} <= {"inside", "equal"}
    assert here["source_sha256"] == record["source_sha256"]
    spread = recorded["checks"]["the draws reach far"]
    assert spread["at_least"] == 0.2
    assert len(set(spread["values"])) == 2, "the seeds must reach the page"


@pytest.mark.slow
def test_stored_page_is_clean_and_stable(page):
    assert execute.main([NAME]) == 0
    stored = notebooks.load_notebook(page)
    assert stored.metadata == execute.NOTEBOOK_METADATA
    assert [cell.execution_count for cell in notebooks.code_cells(stored)] == list(range(1, 8))
    assert not any("execution" in cell.metadata for cell in stored.cells)
    before = page.read_bytes()
    assert execute.main([NAME]) == 0
    assert page.read_bytes() == before


@pytest.mark.slow
@pytest.mark.parametrize(
    ("source", "tags", "message"),
    [
        ("1 / 0", (), "ZeroDivisionError"),
        ("check('it holds', 0.4, at_least=0.5)", (), "it holds: wanted at_least 0.5"),
        ("check('it holds', 0.4, at_least=0.5)", ("raises-exception",), "CheckFailed"),
        ("import warnings; warnings.warn('careful')", (), "careful"),
        ("import os; os.write(2, b'last words'); os._exit(1)", (), "last words"),
    ],
)
def test_failing_page_is_not_stored(page, capsys, source, tags, message):
    write_page(page, [*sample_cells(), code("fault", source, *tags)])
    before = snapshot(page)
    assert execute.main([NAME]) == 1
    assert snapshot(page) == before
    printed = capsys.readouterr().out
    assert message in printed
    assert "`fault`" in printed


def test_interrupted_writing_leaves_both_files(tmp_path):
    first, second = tmp_path / "a.txt", tmp_path / "b.txt"
    first.write_text("old")
    with pytest.raises(TypeError):
        notebooks.write_files({first: "new", second: None})
    assert [file.name for file in tmp_path.iterdir()] == ["a.txt"]
    assert first.read_text() == "old"
    notebooks.write_files({first: "new", second: "new"})
    assert first.read_text() == second.read_text() == "new"


@pytest.mark.slow
def test_run_takes_parameters_environment_and_prelude(page):
    source = "import os, sys, pathlib\nprint(first_seed, word, os.environ['COLOUR'])\n"
    source += "print(sys.executable)\nprint(pathlib.Path.cwd().name)"
    write_page(page, [*sample_cells()[:2], code("report", source)])
    seen = []
    execution = notebooks.run_notebook(
        page,
        parameters={"first_seed": 7},
        environment={"COLOUR": "blue"},
        prelude="word = 'hello'",
        on_cell=lambda *where: seen.append(where),
    )
    printed = execution.notebook.cells[-1].outputs[0].text.splitlines()
    assert printed == ["7 hello blue", sys.executable, "01_sample"]
    assert [cell.id for cell in execution.notebook.cells] == [
        "introduction",
        "settings",
        "injected-parameters",
        "report",
    ]
    assert seen[-1] == (4, 4, "report")
    assert "COLOUR" not in os.environ
    assert "injected" not in page.read_text()


def test_unknown_names_are_refused(page, capsys):
    with pytest.raises(InputError, match="`parameters` must be set by the page"):
        notebooks.run_notebook(page, parameters={"first_sed": 1})
    for tool in (execute, bands, mutants):
        with pytest.raises(SystemExit):
            tool.main(["chapters/nowhere"])
        assert "must be a page" in capsys.readouterr().err
    assert notebook_rules.main(["chapters/nowhere"]) == 2
    assert notebooks.select_pages([f"{NAME}.ipynb"]) == notebooks.select_pages([]) == [page]


def test_source_hash_follows_code_alone(page):
    notebook = notebooks.load_notebook(page)
    before = notebooks.source_sha256(notebook)
    notebook.cells[0].source = "# Other words"
    assert notebooks.source_sha256(notebook) == before
    notebook.cells[2].source += " "
    assert notebooks.source_sha256(notebook) != before


# Bands


def entry(claim="it holds", value=1.0, **bounds):
    return {"claim": claim, "value": value, **bounds}


def test_bands_keep_constant_bounds_once_and_others_per_run():
    runs = [
        [entry(value=3, at_least=1), entry("second", 5, at_most=9)],
        [entry(value=4, at_least=1), entry("second", 6, at_most=8)],
    ]
    gathered = bands.gather_checks(runs)
    assert gathered["it holds"] == {"values": [3, 4], "at_least": 1}
    assert gathered["second"] == {"values": [5, 6], "at_most": [9, 8]}


SEEN = [
    {"claim": "between the seeds", "value": 2.5},
    {"claim": "at the edge, but for rounding", "value": 3.0 + 1e-7},
    {"claim": "beyond", "value": 3.1},
    {"claim": "the same words", "value": ["a"]},
    {"claim": "other words", "value": ["b"]},
    {"claim": "no number here", "value": float("nan")},
    {"claim": "new", "value": 1},
]
RECORDED = {
    "between the seeds": {"values": [1, 3]},
    "at the edge, but for rounding": {"values": [1.0, 3.0]},
    "beyond": {"values": [1.0, 2.0]},
    "the same words": {"values": [["a"], ["a"]]},
    "other words": {"values": [["a"], ["a"]]},
    "no number here": {"values": [1.0, 2.0]},
}


def test_values_are_placed_in_their_bands():
    placed = reproduce.compare_checks(SEEN, RECORDED, {})
    assert [check["place"] for check in placed] == [
        *("inside", "inside", "outside", "equal", "different", "different", "not recorded")
    ]


def test_the_run_that_the_book_shows_is_part_of_the_band():
    (placed,) = reproduce.compare_checks(SEEN[2:3], RECORDED, {"beyond": 3.1})
    assert (placed["place"], placed["low"], placed["high"]) == ("inside", 1.0, 3.1)


def test_summary_names_what_lies_elsewhere():
    checks = reproduce.compare_checks(SEEN, RECORDED, {})
    summary = reproduce.write_summary({"page": "p", "failure": None, "checks": checks})
    assert "outside: beyond, 3.1 for 1 to 2" in summary
    assert summary.endswith("p holds here: 7 checks, 3 as recorded")


def test_bands_refuse_ambiguous_checks():
    with pytest.raises(InputError, match="must be made once"):
        bands.gather_checks([[entry(), entry()]])
    with pytest.raises(InputError, match="the same for all seeds"):
        bands.gather_checks([[entry()], [entry("other")]])


@pytest.mark.parametrize(
    ("band", "stated", "num_breaches"),
    [
        ({"values": [1, 2], "at_least": 1}, {}, 0),
        ({"values": [1, 2], "at_least": 1.5}, {}, 1),
        ({"values": [1, 2], "at_least": 1}, {"at_least": 1.5}, 1),
        ({"values": [1, 2], "at_most": [1, 1]}, {"at_most": 5}, 1),
        ({"values": [1, 2], "equals": 1, "tolerance": 1}, {}, 0),
        ({"values": [1, 2], "equals": 1}, {}, 1),
        ({"values": [float("nan")], "at_least": 0}, {}, 1),
        ({"values": [True, "text", [1]], "equals": True}, {}, 0),
    ],
)
def test_breaches(band, stated, num_breaches):
    assert len(bands.find_breaches(band, stated)) == num_breaches


@pytest.mark.slow
def test_failing_seed_is_named_and_nothing_written(page, capsys):
    bounded = code("bounded", 'check("the seed is small", first_seed, at_most=150)')
    write_page(page, [*sample_cells(), bounded])
    assert bands.main([NAME, "--runs", "2"]) == 1
    printed = " ".join(capsys.readouterr().out.split())
    assert "the seed is small" in printed
    assert "{'first_seed': 200}" in printed
    assert not page.with_suffix(".bands.json").exists()


@pytest.mark.slow
def test_page_without_seeds_runs_once(page):
    write_page(page, [sample_cells()[2], code("one", 'check("one is one", 1, equals=1)')])
    recorded = bands.record_bands(page, num_runs=3, console=Console(quiet=True))
    assert recorded["made"]["seeds"] == []
    assert recorded["checks"]["one is one"]["values"] == [1]


# Mutants


def test_mutant_changes_only_its_function():
    source = "def one():\n    return 1\n\n\nclass Two:\n    def value(self):\n        return 1\n"
    changed = mutants.apply_mutant(vary(function="Two.value", find="1", replace="3"), source)
    assert changed == source[::-1].replace("1", "3", 1)[::-1]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"function": "three"}, "must be in"),
        ({"function": "one", "find": "x"}, "0 times"),
        ({"function": "one", "find": "n"}, "times 'n'"),
        ({"function": "one", "find": "1", "replace": "1"}, "let `replace` differ"),
        ({"function": "one", "find": "1", "replace": "("}, "valid Python"),
    ],
)
def test_mutant_that_does_not_apply(changes, message):
    with pytest.raises(InputError, match=message):
        mutants.apply_mutant(vary(**changes), "def one():\n    return 1\n")


def vary(**changes):
    return mutants.Mutant(**{**vars(MUTANT), **changes})


def test_mutant_entry_with_unknown_field_is_refused(page):
    file = notebooks.ROOT / "tests" / "mutants.toml"
    file.write_text(file.read_text().replace("caught_by", "caugth_by"))
    with pytest.raises(InputError, match="documented fields"):
        mutants.load_mutants()


@pytest.mark.slow
def test_mutant_runs_on_the_copy(page):
    """The copy in the temporary folder is what the page imports, not the installed library."""
    assert mutants.try_mutant(MUTANT, is_baseline=True) == mutants.PASSED
    assert mutants.try_mutant(MUTANT) == CLAIM
    elsewhere = mutants.PRELUDE.format(folder="elsewhere")
    with pytest.raises(PageFailedError, match="not the copy"):
        notebooks.run_notebook(page, prelude=elsewhere)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"caught_by": "the draws reach far"}, "survived"),
        ({"find": "number = int(value)", "replace": "number = 1 * int(value)"}, "survived"),
        ({"find": "number = int(value)", "replace": "number = nothing"}, "NameError"),
        ({"find": "no such text"}, "0 times"),
        ({"parameters": {"num_draws": 0}}, "the unbroken run failed"),
        ({"page": "chapters/01_sample/other"}, "no mutant in the table"),
    ],
)
def test_uncaught_mutant_fails(page, monkeypatch, capsys, changes, message):
    monkeypatch.setenv("COLUMNS", "300")
    write_mutants(notebooks.ROOT, vary(**changes))
    assert mutants.main([NAME]) == 1
    assert message in capsys.readouterr().out


# The suite in parts


def test_all_parts_run_though_one_fails(monkeypatch, capsys):
    parts = {
        "first": (("-c", "raise SystemExit(1)"), ("-c", "pass")),
        "empty": (("-m", "pytest", "-q", "-m", "browser", "tests/test_tools.py"),),
        "last": (("-c", "pass"),),
    }
    monkeypatch.setattr(run_tests, "PARTS", parts)
    assert run_tests.main([]) == 1
    printed = capsys.readouterr().out
    rows = [line.split() for line in printed.splitlines() if "│" in line]
    outcomes = {row[1]: row[3] for row in rows if len(row) > 5}
    assert outcomes == {"first": "FAILED", "empty": "FAILED", "last": "passed", "total": "│"}
    assert run_tests.main(["last"]) == 0
    with pytest.raises(SystemExit):
        run_tests.main(["nothing"])
