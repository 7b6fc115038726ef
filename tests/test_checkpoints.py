"""A run that was stopped equals one that was not, whatever stopped it."""

import json
import multiprocessing
import os
import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest

from bigmodel_utils import training
from bigmodel_utils._checks import InputError
from bigmodel_utils.training import Checkpoint, CheckpointSettings, CheckpointWarning, _loop
from tests import resumable_run
from tests.resumable_run import NUM_STEPS, describe, make_data, run

SCRIPT = Path(resumable_run.__file__)
# `RESUME_ROUNDS=50 pytest tests/test_checkpoints.py -m slow` is the stress run.
ROUNDS = int(os.environ.get("RESUME_ROUNDS", "1"))


class Stopped(Exception):
    """Stands for whatever ends a process."""


def stop_after_checkpoint(monkeypatch, number):
    """Ends the next run just after it has written so many checkpoints."""
    write, written = _loop.write_checkpoint, []

    def write_and_stop(*args):
        written.append(write(*args))
        if len(written) == number:
            raise Stopped

    monkeypatch.setattr(_loop, "write_checkpoint", write_and_stop)


def stop_and_resume(directory, monkeypatch, number=4):
    with monkeypatch.context() as patch:
        stop_after_checkpoint(patch, number)
        with pytest.raises(Stopped):
            run(directory)
    return run(directory)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Folder of an uninterrupted run, and the run."""
    directory = tmp_path_factory.mktemp("uninterrupted")
    return directory, run(directory)


@pytest.fixture
def uninterrupted(finished):
    return finished[1]


@pytest.fixture
def finished_copy(finished, tmp_path):
    return Path(shutil.copytree(finished[0], tmp_path / "copy"))


@pytest.mark.parametrize("number", [1, 4, 9])
def test_a_resumed_run_equals_an_uninterrupted_one(number, uninterrupted, tmp_path, monkeypatch):
    resumed = stop_and_resume(tmp_path, monkeypatch, number)
    assert resumed.resumed_from_step == 3 * number
    assert describe(resumed) == describe(uninterrupted)


@pytest.mark.parametrize("forgotten", ["model", "optimizer", "metric"])
def test_the_test_above_sees_whatever_a_resume_forgets(
    forgotten, uninterrupted, tmp_path, monkeypatch
):
    list_variables = _loop._Loop.list_variables

    def list_less(loop):
        return {g: v for g, v in list_variables(loop).items() if g != forgotten}

    monkeypatch.setattr(_loop._Loop, "list_variables", list_less)
    assert describe(stop_and_resume(tmp_path, monkeypatch)) != describe(uninterrupted)


def measure_difference(num_steps=5):
    x, y = make_data()
    return training.measure_resume_difference(
        resumable_run.build,
        (x, y),
        validation_data=(x[:20], y[:20]),
        settings=training.TrainingSettings(2, 8, compile_mode="plain"),
        num_steps=num_steps,
    )


def test_the_difference_of_a_resumed_run_is_nothing_or_what_was_forgotten(monkeypatch):
    assert measure_difference() == 0
    with pytest.raises(InputError, match=r"`num_steps` must be fewer .* Fix: "):
        measure_difference(num_steps=16)
    monkeypatch.setattr(_loop._Loop, "list_variables", lambda loop: {"model": loop.model.variables})
    assert measure_difference() > 1e-4


def test_the_checkpoint_interval_is_where_the_loss_of_time_is_least():
    cost, mean = 30.0, 20_000.0
    interval = training.estimate_checkpoint_interval(cost, seconds_between_failures=mean)
    lost = {tau: cost / tau + tau / (2 * mean) for tau in np.linspace(0.5, 2, 301) * interval}
    assert min(lost, key=lost.get) == pytest.approx(interval)
    # The twin: without the factor two the loss is not least.
    assert lost[min(lost, key=lambda tau: abs(tau - (cost * mean) ** 0.5))] > 1.05 * min(
        lost.values()
    )
    with pytest.raises(InputError, match="`seconds_between_failures`"):
        training.estimate_checkpoint_interval(1.0, seconds_between_failures=0)


def test_a_run_with_checkpoints_equals_one_without(uninterrupted):
    x, y = make_data()
    plain = training.train(
        resumable_run.build,
        (x, y),
        validation_data=(x[:20], y[:20]),
        settings=resumable_run.SETTINGS,
    )
    assert describe(plain) == describe(uninterrupted)


def test_a_finished_run_is_returned_without_training_again(
    uninterrupted, finished_copy, monkeypatch
):
    monkeypatch.setattr(_loop._Loop, "run_epoch", lambda *_: pytest.fail("it trained again"))
    again = run(finished_copy)
    assert describe(again) == describe(uninterrupted)
    assert again.resumed_from_step == NUM_STEPS


def test_the_newest_checkpoints_are_kept_and_leftovers_swept(tmp_path):
    (tmp_path / "step-000000001-0.npz.partial").write_bytes(b"half")
    run(tmp_path, num_kept=2)
    names = [path.name for path in tmp_path.iterdir()]
    assert sorted(int(name.split("-")[1]) for name in names) == [30, NUM_STEPS]
    assert sorted(names, reverse=True) == [p.name for p in training.list_checkpoints(tmp_path)]


def test_a_damaged_checkpoint_is_passed_over_loudly(uninterrupted, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        stop_after_checkpoint(patch, 5)
        with pytest.raises(Stopped):
            run(tmp_path)
    newest = training.list_checkpoints(tmp_path)[0]
    damaged = bytearray(newest.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    newest.write_bytes(damaged)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        resumed = run(tmp_path)
    (warning,) = (w for w in caught if w.category is CheckpointWarning)
    assert f"{newest.name} is damaged" in str(warning.message)
    assert resumed.resumed_from_step == 12
    assert describe(resumed) == describe(uninterrupted)


def test_only_damaged_checkpoints_are_an_error_not_a_fresh_start(finished_copy):
    for path in training.list_checkpoints(finished_copy):
        path.write_bytes(path.read_bytes()[:-1])
    with (
        pytest.warns(CheckpointWarning),
        pytest.raises(InputError, match=r"`directory` .* Received: .* Fix: "),
    ):
        run(finished_copy)


def test_a_checkpoint_holds_no_pickle_and_reads_back_as_written(tmp_path):
    arrays = {"a": np.arange(3.0), "b": np.eye(2, dtype="float32"), "n": np.array(7)}
    written = Checkpoint(5, arrays, {"epochs": []})
    path = training.write_checkpoint(written, CheckpointSettings(tmp_path))
    with np.load(path, allow_pickle=False) as stored:
        assert set(stored.files) == {"a", "b", "n", "record"}
    read = training.read_newest_checkpoint(tmp_path)
    assert read.step == 5
    for name, array in arrays.items():
        np.testing.assert_array_equal(read.arrays[name], array)
        assert read.arrays[name].dtype == array.dtype


def test_a_state_that_is_not_finite_is_never_promoted(tmp_path):
    good = Checkpoint(1, {"w": np.ones(2)}, {})
    training.write_checkpoint(good, CheckpointSettings(tmp_path, num_kept=1))
    bad = Checkpoint(2, {"w": np.array([1.0, np.nan])}, {})
    with pytest.raises(InputError, match="`w` must be finite"):
        training.write_checkpoint(bad, CheckpointSettings(tmp_path, num_kept=1))
    assert training.read_newest_checkpoint(tmp_path).step == 1


def test_a_run_that_diverges_leaves_only_finite_checkpoints(tmp_path):
    x, y = make_data()
    x[40:] = np.finfo("float32").max
    with pytest.raises(training.NonFiniteLossError) as caught:
        training.train(
            resumable_run.build,
            (x, y),
            validation_data=(x[:20], y[:20]),
            settings=resumable_run.SETTINGS,
            checkpoints=CheckpointSettings(tmp_path, num_steps_between=1),
        )
    assert (caught.value.batch >= 40).any()
    assert training.count_nonfinite_weights(caught.value.model) == 0
    stored = training.read_newest_checkpoint(tmp_path)
    assert stored is None or all(np.isfinite(a).all() for a in stored.arrays.values())


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"settings": training.TrainingSettings(4, 8, seed=4)}, "seed"),
        ({"settings": training.TrainingSettings(4, 16, seed=3)}, "batch_size"),
        ({"settings": training.TrainingSettings(3, 8, seed=3)}, "num_epochs"),
        ({"data": "other"}, "training_data"),
        ({"held_out": "other"}, "validation_data"),
    ],
)
def test_checkpoints_of_another_run_are_refused(change, named, finished_copy):
    before = [path.read_bytes() for path in training.list_checkpoints(finished_copy)]
    x, y = make_data()
    held_out = (x[:20], y[:20])
    with pytest.raises(InputError, match=f"`checkpoints` must .* another {named}.*Fix: "):
        training.train(
            resumable_run.build,
            (x + 1, y) if "data" in change else (x, y),
            validation_data=(x[:10], y[:10]) if "held_out" in change else held_out,
            settings=change.get("settings", resumable_run.SETTINGS),
            checkpoints=CheckpointSettings(finished_copy, num_steps_between=3),
        )
    assert [path.read_bytes() for path in training.list_checkpoints(finished_copy)] == before


@pytest.fixture(scope="module")
def processes():
    """Starts processes with Keras loaded and nothing run: each begins where a script would."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([resumable_run.__name__])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(SCRIPT.parent.parent))
        yield context


def run_process(context, directory, *plan):
    """Runs the training in a process of its own; returns exit status, result and errors."""
    result = Path(directory) / "result.json"
    reader, errors = context.Pipe(duplex=False)
    process = context.Process(
        target=resumable_run.live, args=(str(directory), result, errors, *plan)
    )
    process.start()
    errors.close()
    process.join(timeout=300)
    assert process.exitcode is not None, "the process hangs"
    found = json.loads(result.read_text(encoding="utf-8")) if result.exists() else None
    with reader, os.fdopen(os.dup(reader.fileno())) as pipe:
        return process.exitcode, found, pipe.read()


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(ROUNDS))
def test_ten_kills_at_random_steps_change_nothing(seed, uninterrupted, processes, tmp_path):
    generator = np.random.default_rng(seed)
    # Small strides, so that some processes die before their first checkpoint and repeat work.
    for _ in range(10):
        status, result, _ = run_process(processes, tmp_path, "step", int(generator.integers(1, 6)))
        assert status == -9
        assert result is None
    status, result, errors = run_process(processes, tmp_path)
    assert status == 0, errors
    assert result == describe(uninterrupted)


@pytest.mark.slow
@pytest.mark.parametrize("how", ["write", "rename", "renamed"])
@pytest.mark.parametrize("seed", range(ROUNDS))
def test_a_kill_while_a_checkpoint_is_written_changes_nothing(
    how, seed, uninterrupted, processes, tmp_path
):
    step = int(np.random.default_rng(seed).integers(4, NUM_STEPS))
    assert run_process(processes, tmp_path, how, step)[0] == -9
    partial = list(tmp_path.glob("*.partial"))
    assert len(partial) == (0 if how == "renamed" else 1)
    status, result, errors = run_process(processes, tmp_path)
    assert status == 0, errors
    assert result == describe(uninterrupted)
    assert not list(tmp_path.glob("*.partial"))


@pytest.mark.slow
def test_a_full_disk_stops_the_run_and_loses_nothing(uninterrupted, processes, tmp_path):
    assert run_process(processes, tmp_path, "step", 10)[0] == -9
    before = training.list_checkpoints(tmp_path)
    status, _, errors = run_process(processes, tmp_path, "full", 2)
    assert status == 1
    assert "CheckpointError: `checkpoints` must be writable" in errors
    assert "Fix: free disk space" in errors
    assert training.list_checkpoints(tmp_path) == before
    assert not list(tmp_path.glob("*.partial"))
    status, result, errors = run_process(processes, tmp_path)
    assert status == 0, errors
    assert result == describe(uninterrupted)


def test_a_resume_warns_of_nothing_when_all_is_whole(finished_copy):
    with warnings.catch_warnings():
        warnings.simplefilter("error", CheckpointWarning)
        run(finished_copy)
