"""The clause file, its loader, and the promises that the clauses make about the library."""

import importlib
import inspect
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bigmodel_utils.benchmark import estimate_proportion_interval
from bigmodel_utils.standards import LEVELS, Clause, get_clause, load_clauses, load_subjects
from bigmodel_utils.standards._clauses import EVERY_RELEASE, _parse_clauses

SUBJECTS = """
[subjects]
network = "A model that was trained by gradient steps."
"""
CLAUSE = """
[[clause]]
id = "TEST-001"
family = "testing"
requirement = "A test MUST be able to fail."
rationale = "A test that cannot fail says nothing. The page breaks one on purpose."
page = "chapters/04_code/training"
applies_to = "network"
metric = "caught_faults"
unit = "faults"
direction = "at_least"
thresholds = { development = 1, production = 2, critical = 3 }
threshold_source = "Convention of this test."
measured_by = "bigmodel_utils.benchmark.measure_latency"
mappings = []
since = "0.1.0"
"""
VALID = SUBJECTS + CLAUSE
IDS = [clause.id for clause in load_clauses()]


@pytest.fixture(params=IDS)
def clause(request):
    return get_clause(request.param)


def test_first_page_has_its_clauses():
    page = "chapters/04_code/training"
    earned = [clause.id for clause in load_clauses() if clause.page == page]
    assert earned == ["EVAL-001", "EVAL-002", "EVAL-003", "TRAIN-001", "REPRO-001"]


def test_measure_exists_and_is_documented(clause):
    module, _, name = clause.measured_by.rpartition(".")
    function = getattr(importlib.import_module(module), name)
    assert callable(function)
    assert inspect.getdoc(function)


def test_requirement_is_one_sentence(clause):
    assert clause.requirement.endswith(".")
    assert not re.search(r"[.;:] ", clause.requirement)


def test_rationale_is_two_sentences_without_a_typed_number(clause):
    assert len(re.findall(r"[.?!](?: |$)", clause.rationale)) == 2
    assert not re.search(r"\d", clause.rationale)


def test_family_has_one_prefix():
    prefixes = {(clause.family, clause.id.split("-")[0]) for clause in load_clauses()}
    assert len({family for family, _ in prefixes}) == len(prefixes)
    assert len({prefix for _, prefix in prefixes}) == len(prefixes)


def test_clause_survives_json(clause):
    plain = json.loads(json.dumps(clause.to_dict()))
    plain["mappings"] = tuple(plain["mappings"])
    assert Clause(**plain) == clause


def test_clause_cannot_be_changed(clause):
    with pytest.raises(AttributeError):
        clause.unit = "apples"
    with pytest.raises(TypeError):
        clause.thresholds["critical"] = 9


@pytest.mark.parametrize("level", LEVELS)
def test_number_of_examples_that_an_interval_needs(level):
    """The rule of thumb in EVAL-002 against Wilson's interval, within a tenth."""
    half_width = get_clause("EVAL-002").thresholds[level]
    num_examples = round(0.35 / half_width**2)
    interval = estimate_proportion_interval(round(0.9 * num_examples), num_examples)
    assert (interval.high - interval.low) / 2 == pytest.approx(half_width, rel=0.1)


def test_valid_file_loads():
    (clause,) = _parse_clauses(VALID)
    assert clause.thresholds == {"development": 1, "production": 2, "critical": 3}


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ('"TEST-001"', '"Test-1"', r"`id` of Test-1 must look like EVAL-001. Received: 'Test-1'"),
        ('"TEST-001"', '"TEST-0001"', "`id` of TEST-0001 must look like"),
        ('family = "testing"\n', "", "`family` of TEST-001 must be given. Received: nothing"),
        ('family = "testing"', 'family = " "', "`family` of TEST-001 must be text"),
        ('since = "0.1.0"', 'since = "soon"', "`since` of TEST-001 must look like 0.1.0"),
        ('since = "0.1.0"', "since = 1", "`since` of TEST-001 must be text. Received: 1"),
        ("mappings = []", 'mappings = ""', "`mappings` of TEST-001 must be a list of strings"),
        ("mappings = []", "mappings = [1]", "`mappings` of TEST-001 must be a list of strings"),
        ("mappings = []", 'mappings = []\nowner = "me"', "`owner` of TEST-001 is not a field"),
        ("MUST be", "must be", "`requirement` of TEST-001 must hold exactly one .* none"),
        ("MUST be", "MUST or MAY be", "`requirement` of TEST-001 .* Received: MUST, MAY"),
        ("MUST be", "MUST NOT or MUST be", "Received: MUST NOT, MUST"),
        ('"at_least"', '"below"', "`direction` of TEST-001 must be one of at_most, .*above"),
        ('"at_least"', '"at_most"', "`thresholds` of TEST-001 must not loosen .* 1.0, 2.0, 3.0"),
        ("critical = 3", "critical = 1", "`thresholds` of TEST-001 must not loosen"),
        (", critical = 3", "", "`thresholds` of TEST-001 must hold exactly development"),
        ("critical = 3", "critical = 3, other = 4", "`thresholds` of TEST-001 must hold exactly"),
        ("critical = 3", 'critical = "3"', "`thresholds.critical` of TEST-001 must be a finite"),
        ("critical = 3", "critical = true", "`thresholds.critical` of TEST-001 must be a finite"),
        ("critical = 3", "critical = nan", "`thresholds.critical` of TEST-001 must be a finite"),
        ("bigmodel_utils.benchmark.measure_latency", "measure it", "`measured_by` of TEST-001"),
        ('"network"', '"net"', "`applies_to` of TEST-001 must be a subject. Received: net"),
        ("gradient steps.", "gradient steps", "`network` of subjects must be a sentence"),
    ],
)
def test_damaged_file_is_refused(before, after, message):
    assert before in VALID
    with pytest.raises(ValueError, match=message) as raised:
        _parse_clauses(VALID.replace(before, after))
    assert str(raised.value).endswith("Fix: correct it in clauses.toml")


def test_repeated_id_is_refused():
    with pytest.raises(ValueError, match="`id` of TEST-001 must be unique"):
        _parse_clauses(VALID + CLAUSE)


def test_repeated_metric_is_refused():
    other = CLAUSE.replace("TEST-001", "TEST-002")
    with pytest.raises(ValueError, match="`metric` of TEST-002 must be unique"):
        _parse_clauses(VALID + other)


def list_answers(cells):
    """Ids of the clauses that the tables of the crosswalk name."""
    tables = "".join("".join(c["source"]) for c in cells if c["id"].startswith("crosswalk-"))
    return set(re.findall(r"\{clause\}`([A-Z]+-\d{3})`", tables))


def test_crosswalk_of_the_page_names_the_clauses_that_carry_a_mapping():
    path = Path(__file__).parents[1] / "chapters" / "01_background" / "why_standards.ipynb"
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    assert list_answers(cells) == {clause.id for clause in load_clauses() if clause.mappings}
    one_less = [cell for cell in cells if cell["id"] != "crosswalk-nist"]
    assert list_answers(one_less) != list_answers(cells)


def test_every_subject_has_a_clause():
    assert {clause.applies_to for clause in load_clauses()} == {EVERY_RELEASE, *load_subjects()}


def test_clause_without_id_is_named_by_its_place():
    with pytest.raises(ValueError, match="`id` of clause 2 must be given"):
        _parse_clauses(VALID + CLAUSE.replace('id = "TEST-001"', ""))


@pytest.mark.parametrize(
    ("clause_id", "offered"),
    [("EVAL_001", "EVAL-001"), ("eval-002", "EVAL-002"), ("train001", "TRAIN-001")],
)
def test_unknown_id_lists_near_ones(clause_id, offered):
    with pytest.raises(ValueError, match="`clause_id` must be the id of a clause") as raised:
        get_clause(clause_id)
    first = str(raised.value).rpartition("choose from ")[2].split(", ")[0]
    assert first == offered


def test_id_like_no_other_lists_all():
    with pytest.raises(ValueError, match=", ".join(IDS)):
        get_clause("?")


def levels_are_ordered(thresholds, direction, parse):
    """Property: a file loads exactly if no level is looser than the one before."""
    development, production, critical = thresholds
    text = VALID.replace("at_least", direction).replace(
        "development = 1, production = 2, critical = 3",
        f"development = {development}, production = {production}, critical = {critical}",
    )
    tightens = (
        development >= production >= critical
        if direction == "at_most"
        else development <= production <= critical
    )
    try:
        parse(text)
        loaded = True
    except ValueError:
        loaded = False
    assert loaded == tightens


three_numbers = st.tuples(*[st.integers(-3, 3)] * 3)
directions = st.sampled_from(["at_most", "at_least", "above"])


@given(three_numbers, directions)
def test_no_level_is_looser_than_the_one_before(thresholds, direction):
    levels_are_ordered(thresholds, direction, _parse_clauses)


def test_order_of_levels_twin():
    """A loader that looks at the first and last level only is found out."""

    def forgetful(text):
        middle = re.search(r"development = (-?\d+), production = (-?\d+)", text)
        return _parse_clauses(
            text.replace(middle[0], f"development = {middle[1]}, production = {middle[1]}")
        )

    @settings(derandomize=True)
    @given(three_numbers, directions)
    def check(thresholds, direction):
        levels_are_ordered(thresholds, direction, forgetful)

    with pytest.raises(AssertionError):
        check()


def test_standard_loads_alone():
    """Neither NumPy nor Keras: a gate can run where no model can."""
    code = (
        "import sys; from bigmodel_utils.standards import check_release;"
        "check_release({'leaked_share': 0.0}, 'critical', subjects=['network']);"
        "print(*(m for m in sys.modules if m.split('.')[0] in ('numpy', 'keras', 'tensorflow') or "
        "m.startswith('bigmodel_utils.') and not m.startswith('bigmodel_utils.standards')))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert result.stdout.split() == [b"bigmodel_utils._checks", b"bigmodel_utils._report"]
