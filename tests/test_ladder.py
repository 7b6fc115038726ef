"""The scaling ladder: the record is whole and fresh, and training a rung again gives it."""

import dataclasses
import json

import numpy as np
import pytest

from bigmodel_utils import artifacts, costs
from bigmodel_utils._checks import InputError
from bigmodel_utils.artifacts import _ladder, _provenance
from tools import ladder as recording

SERIES = ("equal tokens", "tokens per parameter", "equal operations")


@pytest.fixture(scope="module")
def recorded():
    return artifacts.load_scaling_ladder()


def find_record_faults(recorded):
    """What makes a record worth less than it says."""
    faults = []
    for series in SERIES:
        runs = recorded.runs[series]
        cells = [(run.width, run.seed) for run in runs]
        if len(set(cells)) < len(cells):
            faults.append(f"{series}: a rung twice from one seed")
        widths = {width for width, _ in cells}
        if len(widths) < 5 or {run[1] for run in cells} != set(recording.SEEDS):
            faults.append(f"{series}: fewer than five sizes or another number of seeds")
        if len(cells) != len(widths) * len(recording.SEEDS):
            faults.append(f"{series}: a run is missing")
    for width in _ladder.RUNGS:
        tried = [run for run in recorded.runs["learning rates"] if run.width == width]
        rates = {run.learning_rate for run in tried}
        best = min(
            rates,
            key=lambda rate: np.mean(
                [run.validation_loss for run in tried if run.learning_rate == rate]
            ),
        )
        used = {r.learning_rate for s in SERIES for r in recorded.runs[s] if r.width == width}
        if used != {best}:
            faults.append(f"width {width}: not the rate that validation chose")
    if not all(np.isfinite(run.loss) for found in recorded.runs.values() for run in found):
        faults.append("a loss is not finite")
    return faults


def test_the_record_is_whole(recorded):
    assert find_record_faults(recorded) == []


@pytest.mark.parametrize(
    "damage",
    [
        lambda runs: {**runs, "equal tokens": runs["equal tokens"][1:]},
        lambda runs: {**runs, "equal tokens": runs["equal tokens"] + runs["equal tokens"][:1]},
        lambda runs: {
            **runs,
            "learning rates": tuple(
                dataclasses.replace(run, validation_loss=-run.validation_loss)
                for run in runs["learning rates"]
            ),
        },
        lambda runs: {
            **runs,
            "equal operations": (
                dataclasses.replace(runs["equal operations"][0], loss=float("nan")),
                *runs["equal operations"][1:],
            ),
        },
    ],
)
def test_a_damaged_record_is_noticed(recorded, damage):
    assert find_record_faults(dataclasses.replace(recorded, runs=damage(recorded.runs)))


def test_the_record_fits_the_code_and_the_text(recorded):
    """`make ladder` records it anew after a change of the code or the corpus behind it."""
    now, then = _provenance.list_versions(), recorded.provenance
    if now["python"].split(".")[:2] == then["versions"]["python"].split(".")[:2]:
        assert _provenance.hash_code(_ladder.CODE) == then["code_sha256"]
    assert then["data"]["licence"] == "PSF License Agreement (LICENSE.txt)"


def test_series_hold_equal_what_they_say(recorded):
    step = _ladder.TOKENS_PER_STEP
    assert {run.num_tokens for run in recorded.runs["equal tokens"]} == {recording.EQUAL_TOKENS}
    budgets = [run.num_parameters * run.num_tokens for run in recorded.runs["equal operations"]]
    largest = max(run.num_parameters for run in recorded.runs["equal operations"])
    assert np.ptp(budgets) <= step * largest
    most = recorded.provenance["num_training_tokens"]
    for run in recorded.runs["tokens per parameter"]:
        wanted = min(recording.TOKENS_PER_PARAMETER * run.num_parameters, most)
        assert 0 <= wanted - run.num_tokens < step


def test_parameters_are_those_of_the_formula(recorded):
    for run in recorded.runs["equal tokens"]:
        shape = costs.Architecture.from_settings(_ladder.RUNGS[run.width])
        assert costs.count_parameters(shape).total == run.num_parameters


def test_runs_survive_a_round_trip(recorded):
    run = recorded.runs["equal tokens"][0]
    assert _ladder.LadderRun(**json.loads(json.dumps(run.to_dict()))) == run


def test_the_plan_leaves_out_what_the_text_is_too_short_for():
    sizes = {8: 1_000, 32: 10_000, 64: 100_000}
    planned = set(recording.plan(sizes, 300_000))
    assert ("equal operations", 32, 200_000) in planned
    assert ("equal operations", 64, 20_000) in planned
    assert not any(series == "equal operations" and width == 8 for series, width, _ in planned)
    assert ("tokens per parameter", 64, 300_000) in planned


@pytest.mark.slow
def test_the_smallest_rung_is_what_the_record_says(recorded):
    then = min(recorded.runs["tokens per parameter"], key=lambda run: (run.width, run.seed))
    again = artifacts.train_ladder_model(
        then.width, then.num_tokens, learning_rate=then.learning_rate, seed=then.seed
    )
    assert again.loss == pytest.approx(then.loss, rel=0.01)
    # Another seed or rate is not taken for it.
    other = artifacts.train_ladder_model(then.width, then.num_tokens, learning_rate=1e-4)
    assert other.loss != pytest.approx(then.loss, rel=0.01)


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda: artifacts.train_ladder_model(10, 1_000, learning_rate=0.01), "width"),
        (lambda: artifacts.train_ladder_model(8, 511, learning_rate=0.01), "num_tokens"),
        (lambda: artifacts.train_ladder_model(8, 1_000, learning_rate=0.0), "learning_rate"),
        (lambda: artifacts.train_ladder_model(8, 1_000, learning_rate=0.01, seed=-1), "seed"),
        pytest.param(
            lambda: artifacts.train_ladder_model(8, 10**9, learning_rate=0.01),
            "num_tokens",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_bad_input_gets_one_clear_error(call, name):
    with pytest.raises(InputError, match=rf"`{name}` .* Received: .* Fix: "):
        call()
