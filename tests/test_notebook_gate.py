"""Every stored page keeps every rule, and every rule finds the fault it is there for."""

import copy
import json
from types import SimpleNamespace

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from tools import notebook_rules, notebooks
from tools.notebook_rules import RULES
from tools.prose import find_typed_numbers

PAGES = notebooks.find_pages()
ALT = "Two lines that fall and then part."
CLAIM = "the accuracy beats chance"


def test_pages_exist():
    assert PAGES, "no page under chapters/: the gate would hold nothing"


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("path", PAGES, ids=notebooks.page_name)
def test_page_keeps_rule(path, rule):
    faults = RULES[rule](notebooks.load_notebook(path), path)
    assert not faults, "\n".join(faults)


# A sample page with nothing wrong, and the smallest project around it.


def stream(text):
    return new_output("stream", name="stdout", text=text)


def glued(name, text):
    return new_output(
        "display_data",
        data={"application/papermill.record/text/plain": text},
        metadata={"scrapbook": {"name": name, "mime_prefix": "application/papermill.record/"}},
    )


def picture(markup):
    return new_output("display_data", data={"text/html": markup, "text/plain": "[figure]"})


def code(count, identifier, source, outputs=(), tags=()):
    cell = new_code_cell(source, id=identifier, execution_count=count, outputs=list(outputs))
    if tags:
        cell.metadata["tags"] = list(tags)
    return cell


def build_sample():
    ignored = "nbval-ignore-output"
    introduction = (
        "# One page\n\nGPT-2 reaches {glue:text}`accuracy`, as {clause}`TEST-001` asks.\n"
    )
    svg = f'<figure><svg role="img" aria-label="{ALT}"></svg></figure>'
    error = new_output("error", ename="ValueError", evalue="no", traceback=["ValueError: no"])
    return new_notebook(
        metadata=copy.deepcopy(notebook_rules.NOTEBOOK_METADATA),
        cells=[
            new_markdown_cell(introduction, id="introduction"),
            code(1, "settings", "first_seed = 0", tags=["parameters"]),
            code(2, "addition", "print(1 + 1)", [stream("2\n")]),
            code(3, "shape", "(2, 3)", [new_output("execute_result", {"text/plain": "(2, 3)"})]),
            code(
                4,
                "train",
                "run = fit(first_seed)\nshow(accuracy=run.accuracy)",
                [stream("accuracy  0.97\n"), glued("accuracy", "0.97")],
                tags=["measured", ignored],
            ),
            code(5, "draw", "figure(run)", [picture(svg)], tags=["figure", ignored]),
            code(
                6,
                "verdict",
                f'check("{CLAIM}", run.accuracy, at_least=0.5)',
                [stream(f"✓ {CLAIM}\n")],
            ),
            code(7, "refusal", "raise ValueError('no')", [error], tags=["raises-exception"]),
        ],
    )


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project of one page; returns the page's path, the notebook is made by build_sample."""
    monkeypatch.setattr(notebooks, "ROOT", tmp_path)
    clause = SimpleNamespace(id="TEST-001", page="chapters/01_sample/sample")
    monkeypatch.setattr(notebook_rules, "load_clauses", lambda: (clause,))
    (tmp_path / "requirements.txt").write_text("keras==3.15.1\n")
    (tmp_path / "library.py").write_text("def fit(seed):\n    return seed + 1\n")
    (tmp_path / "tests").mkdir()
    write_mutant(tmp_path)
    path = tmp_path / "chapters" / "01_sample" / "sample.ipynb"
    path.parent.mkdir(parents=True)
    record = {
        "seconds": 12.0,
        "peak_memory_bytes": 1_000,
        "machine": {},
        "tier": "cpu",
        "date": "2026-01-01",
        "lock_sha256": notebooks.lock_sha256(),
        "source_sha256": notebooks.source_sha256(build_sample()),
        "checks": [{"claim": CLAIM, "value": 0.97, "at_least": 0.5}],
    }
    path.with_suffix(".run.json").write_text(json.dumps(record))
    bands = {"made": {}, "checks": {CLAIM: {"values": [0.96, 0.98], "at_least": 0.5}}}
    path.with_suffix(".bands.json").write_text(json.dumps(bands))
    return path


def write_mutant(root, **changes):
    entry = {
        "page": "chapters/01_sample/sample",
        "module": "library.py",
        "function": "fit",
        "find": "seed + 1",
        "replace": "seed",
        "breaks": "it does not fit",
        "caught_by": CLAIM,
    } | changes
    lines = [f"{key} = {json.dumps(value)}" for key, value in entry.items()]
    (root / "tests" / "mutants.toml").write_text("\n".join(["[[mutant]]", *lines]))


@pytest.mark.parametrize("rule", RULES)
def test_clean_page_passes(project, rule):
    notebook = build_sample()
    nbformat.validate(notebook)
    assert RULES[rule](notebook, project) == []


# Faults to plant. Each takes the notebook and its path, and breaks one of them.


def set_cell(identifier, **changes):
    def plant(notebook, path):
        cell = next(cell for cell in notebook.cells if cell.id == identifier)
        cell.update(changes)

    return plant


def add_output(identifier, output):
    def plant(notebook, path):
        cell = next(cell for cell in notebook.cells if cell.id == identifier)
        cell.outputs.append(output)

    return plant


def set_tags(identifier, *tags):
    return set_cell(identifier, metadata=nbformat.from_dict({"tags": list(tags)}))


def set_prose(source):
    return set_cell("introduction", source=source)


def set_html(markup):
    return set_cell("draw", outputs=[picture(markup)])


def set_record(suffix, **changes):
    def plant(notebook, path):
        file = path.with_suffix(suffix)
        file.write_text(json.dumps(json.loads(file.read_text()) | changes))

    return plant


def delete(suffix):
    return lambda notebook, path: path.with_suffix(suffix).unlink()


def set_mutant(**changes):
    return lambda notebook, path: write_mutant(notebooks.ROOT, **changes)


def add_cell(cell):
    return lambda notebook, path: notebook.cells.append(cell)


def set_metadata(notebook, path):
    notebook.metadata.kernelspec.name = "conda-env-mine"


def change_lock(notebook, path):
    (notebooks.ROOT / "requirements.txt").write_text("keras==3.14.0\n")


def name_checkout(notebook, path):
    notebook.cells[2].outputs = [stream(f"{notebooks.ROOT}/data\n")]


GLUED = new_output(
    "display_data", data={"application/papermill.record/text/html": "<figure><svg></svg></figure>"}
)
PNG = new_output("display_data", data={"image/png": "aGk="})
STDERR = new_output("stream", name="stderr", text="warning: slow\n")
CHECK_FAILED = new_output("error", ename="CheckFailed", evalue="x", traceback=[])
IGNORED = "nbval-ignore-output"
FAULTS = [
    ("format", "not a valid notebook", set_cell("addition", outputs=[{"output_type": "odd"}])),
    ("format", "4.5", lambda notebook, path: notebook.update(nbformat_minor=4)),
    ("format", "plain Python", set_cell("addition", source="%timeit 1")),
    ("cell ids", "0a1b2c3d", set_cell("addition", id="0a1b2c3d")),
    ("cell ids", "a1b2c3d4", set_cell("addition", id="a1b2c3d4")),
    ("cell ids", "Addition_1", set_cell("addition", id="Addition_1")),
    ("cell ids", "more than once", set_cell("addition", id="shape")),
    ("counts", "make execute", set_cell("addition", execution_count=None)),
    ("counts", "make execute", set_cell("addition", execution_count=9)),
    ("metadata", "kernelspec", set_metadata),
    ("standard error", "warning: slow", add_output("addition", STDERR)),
    ("errors", "CheckFailed", add_output("addition", CHECK_FAILED)),
    ("errors", "CheckFailed", add_output("refusal", CHECK_FAILED)),
    ("errors", "ValueError", set_tags("refusal")),
    ("local paths", "/home", set_cell("addition", outputs=[stream("/home/me/x\n")])),
    ("local paths", "/tmp", set_cell("addition", source="open('/tmp/x')")),
    ("local paths", "/root", set_prose("See `/root/x`.")),
    ("local paths", "/Users", set_html("<p>/Users/me</p>")),
    ("local paths", "C:", set_cell("addition", outputs=[stream("C:\\data\n")])),
    ("local paths", "site-packages", set_cell("addition", outputs=[stream("site-packages/x")])),
    ("local paths", "local path", name_checkout),
    ("tags", "addition", set_tags("addition", IGNORED)),
    ("tags", "train", set_tags("train", "measured")),
    ("tags", "draw", set_tags("draw", "figure", "measured", IGNORED)),
    ("tags", "no nbval tag", set_tags("addition", "nbval-skip")),
    ("tags", "comment", set_cell("addition", source="# NBVAL_IGNORE_OUTPUT\nprint(2)")),
    ("tags", "picture", add_output("addition", PNG)),
    ("tags", "picture", add_output("addition", GLUED)),
    ("exact cells", "needs 3", lambda notebook, path: notebook.cells.__delitem__(slice(2, 4))),
    ("measured values", "`loss`", set_cell("train", source="show(loss=run.loss)")),
    ("measured values", "`loss`", set_cell("train", source="show(loss=float(other))")),
    ("measured values", "`**`", set_cell("train", source="show(**results)")),
    ("measured values", "accuracy", set_cell("verdict", source="check('accuracy', loss)")),
    ("claims", "digits", set_cell("verdict", source='check("above 0.5", run.accuracy)')),
    ("claims", "digits", set_cell("verdict", outputs=[stream("✓ above 0.5\n")])),
    ("claims", "move", set_tags("verdict", "measured", IGNORED)),
    ("claims", "move", add_output("train", stream("✓ judged by a helper\n"))),
    ("prose numbers", "3.5×", set_prose("It is 3.5× faster.")),
    ("glue", "`loss`", set_prose("It loses {glue:text}`loss:.2f`.")),
    ("glue", "`curve`", set_prose("```{glue:figure} curve\n```")),
    ("glue", "other.ipynb", set_prose("Elsewhere {glue:text}`other.ipynb::loss`.")),
    ("alternative text", "draw", set_html("<figure><svg></svg></figure>")),
    ("alternative text", "draw", set_html('<svg aria-label="Lines."></svg>')),
    ("alternative text", "draw", set_html('<img alt="" src="x.png">')),
    ("alternative text", "image/png", add_output("draw", PNG)),
    ("alternative text", "papermill", add_output("draw", GLUED)),
    ("clauses", "TEST-999", set_prose("{clause}`TEST-001` and {clause}`TEST-999`")),
    ("clauses", "TEST-001", set_prose("No clause.")),
    ("small cells", "split", set_prose("word " * 241)),
    ("run record", "lacks", delete(".run.json")),
    ("run record", "code changed", add_cell(code(8, "later", "x = 2"))),
    ("run record", "lock changed", change_lock),
    ("run record", "allows", set_record(".run.json", seconds=61.0)),
    ("bands", "no band", delete(".bands.json")),
    ("bands", "no band", set_record(".bands.json", checks={})),
    ("bands", "does not check", set_record(".run.json", checks=[])),
    ("bands", "0.4 leaves", set_record(".bands.json", checks={CLAIM: {"values": [0.4]}})),
    (
        "bands",
        "0.96 leaves",
        set_record(".run.json", checks=[{"claim": CLAIM, "value": 0.99, "at_least": 0.97}]),
    ),
    ("mutants", "no mutant", set_mutant(page="chapters/01_sample/other")),
    ("mutants", "no check", set_mutant(caught_by="the accuracy is fine")),
    ("mutants", "0 times", set_mutant(find="seed + 2")),
    ("mutants", "`function`", set_mutant(function="train")),
    ("mutants", "other.py", set_mutant(module="other.py")),
]


@pytest.mark.parametrize(
    ("rule", "message", "plant"), FAULTS, ids=[f"{rule}-{text}" for rule, text, _ in FAULTS]
)
def test_planted_fault_is_found(project, rule, message, plant):
    notebook = build_sample()
    plant(notebook, project)
    faults = RULES[rule](notebook, project)
    assert any(message in fault for fault in faults), faults


def test_every_rule_has_a_planted_fault():
    assert {rule for rule, _, _ in FAULTS} == set(RULES)


def test_picture_described_in_metadata_passes(project):
    notebook = build_sample()
    described = new_output(
        "display_data", data={"image/png": "aGk="}, metadata={"image/png": {"alt": ALT}}
    )
    add_output("draw", described)(notebook, project)
    assert RULES["alternative text"](notebook, project) == []


def test_glue_reaches_another_page(project):
    other = project.with_name("other.ipynb")
    other.write_text(nbformat.writes(build_sample()))
    notebook = build_sample()
    set_prose("{glue:text}`other.ipynb::accuracy:.2f` {clause}`TEST-001`")(notebook, project)
    assert RULES["glue"](notebook, project) == []
    set_prose("{glue:text}`other.ipynb::loss`")(notebook, project)
    assert RULES["glue"](notebook, project)


@pytest.mark.parametrize(
    ("shown", "checked", "bounded"),
    [
        ("accuracy=run.accuracy", "run.accuracy", True),
        ("accuracy=np.mean(scores)", "max(scores)", True),
        ("accuracy=interval", "interval.low", True),
        ("first=scores[0]", "scores", True),
        ("first=scores['a']", "scores['a']", True),
        ("last=f'{scores[-1]:.1f}'", "scores[-1]", True),
        ("last=scores[-1]", "scores[0]", False),
        ("gap=best - honest", "gap", True),
        ("accuracy=max(r.accuracy for r in runs)", "min(r.loss for r in runs)", True),
        ("loss=run.loss", "run.accuracy", False),
        ("first=scores['a']", "scores['b']", False),
        ("loss=np.mean(losses)", "np.mean(scores)", False),
        ("accuracy=max(r.accuracy for r in runs)", "max(r.accuracy for r in others)", False),
        ("runner=runner", "run", False),
    ],
)
def test_what_bounds_a_measured_value(project, shown, checked, bounded):
    notebook = build_sample()
    set_cell("addition", source="import numpy as np")(notebook, project)
    set_cell("train", source=f"show({shown})")(notebook, project)
    set_cell("verdict", source=f"check('{CLAIM}', {checked}, at_least=0)")(notebook, project)
    assert (RULES["measured values"](notebook, project) == []) == bounded


@pytest.mark.parametrize(
    "markdown",
    [
        "GPT-2, int8, float32, H100, Conv32, 8-bit, 2D, the 95th percentile, top-5, GPT-3.5, v1.2",
        "Keras 3 on Python 3.11, Llama 3 8B, ISO/IEC 25059, GB/T 45288.1-2025",
        "`28×28` and ``x = 3`` and {glue:text}`accuracy:.2f` and {cite}`vaswani2017`",
        "$n = 2$ and $$\ny = 3x\n$$ and $3$-grams\n\n```{math}\n:label: e3\n4\n```",
        "```python\nx = 5\n```\n\n~~~\n6\n~~~\n\n````{code-block} python\n```\n7\n````",
        '[text](https://example.org/2016/12 "3") <https://example.org/7> https://example.org/8',
        '<!-- 12 --> <img width="30"> &#8212;\n% comment 9\n\n(section-3)=\n## Title',
        "Adam (2015), (Kingma and Ba, 2015), (Kingma and Ba, 2015; Lei, 2016), Ba et al., 2017",
        "1. first\n2. second\n\n> 3) third",
        "A note.[^1]\n\n[^1]: Nature 521 (2015), 436–444.\n    Page 12.\n",
        ":::{note} Title\n:class: dropdown-2\n\ntext\n:::",
        "```{figure} images/3.png\n---\nwidth: 30\nname: figure-3\n---\nCaption\n```",
        "```{solution-start} exercise-3\n:class: dropdown\n```\n\ntext\n\n```{solution-end}\n```",
    ],
)
def test_prose_without_typed_numbers_passes(markdown):
    assert find_typed_numbers(markdown) == []


@pytest.mark.parametrize(
    "markdown",
    [
        "It is 3.5× faster.",
        "10x",
        "97 %",
        "97%",
        "takes 60s",
        "uses 2GB",
        "a 28×28 image",
        "a 28x28 image",
        "costs 1,797 examples",
        "at 1e-3",
        "over 5–10 runs",
        "1/2",
        "-3",
        "**30** runs",
        "[30 runs](address)",
        "![30 runs in a row](address)",
        "| 3 | 4 |",
        "> 30 runs",
        "- 30 runs",
        "## 4 Code",
        "about 2000 (roughly 2000)",
        "in 2016",
        "a 10-fold gain",
        "$97.3\\%$ of them",
        "$0.97$ of them",
        "`a` 2 `b`",
        "an open ` mark\n\n30 runs\n\nand ` another",
        ":::{note} After 3 runs\ntext\n:::",
        "```{exercise}\n:label: exercise-1\n\n30 runs\n```",
        "`````{note}\n```python\n1\n```\n30 runs\n`````",
        "```python\n1\n```\n30 runs",
    ],
)
def test_typed_number_is_found(markdown):
    assert len(find_typed_numbers(markdown)) >= 1
