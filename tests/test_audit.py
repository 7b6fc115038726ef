"""Audits of model files: what is measured, what is left out, and who is let through."""

import json
import re
from datetime import date
from pathlib import Path

import numpy as np
import pytest

from bigmodel_utils import audit, compression, data, models, training
from bigmodel_utils.audit import Declaration, audit_model, load_arrays, load_declaration
from bigmodel_utils.standards import Waiver, find_stale_files, verify_evidence

DECLARATION = """
subjects = ["classifier"]

[measurements]
seed_difference = 0.0
resume_difference = { value = 0.0, measured_on = 2026-11-20 }

[hashes]
"train.py" = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"

[[waivers]]
clause_id = "EVAL-004"
reason = "small test set"
owner = "head of radiology"
expires = 2027-01-31

[model_card]
name = "digits"
version = "1"
"""


def write(path: Path, text):
    path.write_text(text, encoding="utf-8")
    return path


SHEET = """
[data_sheet]
name = "digits"
version = "1998"
"""
IMAGE_SUBJECTS = ("classifier", "image_classifier", "network", "service")


@pytest.fixture(scope="module")
def digits():
    """Images in the parts that an audit asks for."""
    images = data.load_digits()
    parts = data.split_by_hash(
        images.keys, {"training": 0.6, "validation": 0.1, "test": 0.3}, salt="audit"
    )
    return {
        **{f"x_{name}": images.x[rows] for name, rows in parts.items()},
        **{f"y_{name}": images.y[rows] for name, rows in parts.items()},
        "x_service": images.x[parts["test"]][::2],
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory, digits):
    """A trained network, its exports, and its data as files."""
    home = tmp_path_factory.mktemp("release")
    one_hot = np.eye(10, dtype="float32")
    run = training.train(
        lambda: models.build_image_classifier("none"),
        (digits["x_training"], one_hot[digits["y_training"]]),
        validation_data=(digits["x_validation"], one_hot[digits["y_validation"]]),
        settings=training.TrainingSettings(5, seed=0, precision="float32"),
    )
    run.model.save(home / "model.keras")
    compression.export_onnx(run.model, home / "model.onnx", examples=digits["x_test"][:8])
    compression.export_litert(run.model, home / "model.tflite", examples=digits["x_test"][:8])
    predictions = np.asarray(run.model(digits["x_test"], training=False))
    arrays = {name: array for name, array in digits.items() if name != "y_validation"}
    np.savez(home / "data.npz", **arrays, predictions_test=predictions)
    return home


def run(home, model="model.onnx", **arguments):
    declaration = Declaration(**{"subjects": IMAGE_SUBJECTS} | arguments)
    return audit_model(
        home / model, home / "data.npz", level="development", declaration=declaration
    )


@pytest.fixture(scope="module")
def clean(folder):
    return run(folder)


def find(result, metric):
    return next(v for v in result.report.verdicts if v.metric == metric)


@pytest.mark.slow
@pytest.mark.parametrize("model", ["model.keras", "model.onnx", "model.tflite"])
def test_what_files_can_show_is_measured(folder, model):
    result = run(folder, model)
    expected = {
        "selection_overlap",
        "interval_half_width",
        "batch_dependence",
        "worst_slice_accuracy",
        "calibration_excess",
        "batch_size_spread",
        "retained_accuracy",
        "leaked_share",
        "release_difference",
        "drift_p_value",
        "lead_over_simplest",
        "shift_consistency",
    } | ({"num_nonfinite_weights"} if model == "model.keras" else set())
    assert set(result.measured) == expected
    assert "label_issue_share" in result.left_out
    for metric in ("selection_overlap", "leaked_share", "release_difference", "batch_dependence"):
        assert find(result, metric).status == "passed", str(result)
    assert json.loads(json.dumps(result.to_dict(), allow_nan=False))["measured"]


@pytest.mark.slow
def test_declared_and_waived_complete_the_release(folder, clean):
    assert not clean.report.passed
    still_open = clean.report.open_verdicts
    declared = {verdict.metric: 0.0 for verdict in still_open if verdict.judged is None}
    failed = [verdict.clause_id for verdict in still_open if verdict.judged is not None]
    waivers = tuple(Waiver(name, "accepted", "head", date(2999, 1, 1)) for name in failed)
    whole = run(folder, measurements=declared, waivers=waivers)
    assert whole.report.passed, str(whole)


@pytest.mark.slow
def test_what_is_measured_here_is_not_taken_on_trust(folder):
    declared = {"interval_half_width": 99.0, "num_moved": 0.0}
    result = run(folder, subjects=("classifier",), measurements=declared)
    assert find(result, "interval_half_width").judged < 1
    assert find(result, "num_moved").status == "passed"
    assert "interval_half_width" in result.measured
    assert "num_moved" not in result.measured


# Each fault changes one file and must be caught by the clause that is about it.

FAULTS = {
    "leaked_share": lambda d: d | {"x_training": np.concatenate([d["x_training"], d["x_test"]]),
                                   "y_training": np.concatenate([d["y_training"], d["y_test"]])},
    "selection_overlap": lambda d: d | {"x_validation": d["x_test"][:20]},
    "release_difference": lambda d: d | {"predictions_test": np.roll(d["predictions_test"], 1, 0)},
    "drift_p_value": lambda d: d | {"x_service": 1 - d["x_service"]},
    "worst_slice_accuracy": lambda d: d | {"y_test": np.where(d["y_test"] == 3, 8, d["y_test"])},
    "interval_half_width": lambda d: {
        name: array[:20] if name.endswith("_test") else array for name, array in d.items()
    },
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("metric", FAULTS)
def test_planted_fault_is_caught_by_its_clause(folder, clean, tmp_path, metric):
    assert find(clean, metric).status == "passed", str(clean)
    with np.load(folder / "data.npz") as stored:
        np.savez(tmp_path / "data.npz", **FAULTS[metric](dict(stored)))
    (tmp_path / "model.onnx").hardlink_to(folder / "model.onnx")
    subjects = ("service",) if metric == "drift_p_value" else ("classifier",)
    faulty = run(tmp_path, subjects=subjects)
    assert find(faulty, metric).status == "failed", str(faulty)


@pytest.mark.slow
def test_copies_of_another_type_are_copies(folder, tmp_path):
    with np.load(folder / "data.npz") as stored:
        arrays = dict(stored)
    leaked = FAULTS["leaked_share"](arrays)
    leaked["x_training"] = leaked["x_training"].astype("float64")
    np.savez(tmp_path / "data.npz", **leaked)
    (tmp_path / "model.onnx").hardlink_to(folder / "model.onnx")
    assert find(run(tmp_path, subjects=()), "leaked_share").judged == 1


@pytest.mark.slow
def test_stated_predictions_of_another_shape_are_named(folder, tmp_path):
    """A number for each example, not for each class, would be spread over the classes."""
    with np.load(folder / "data.npz") as stored:
        arrays = dict(stored)
    arrays["predictions_test"] = arrays["predictions_test"].max(axis=1, keepdims=True)
    np.savez(tmp_path / "data.npz", **arrays)
    (tmp_path / "model.onnx").hardlink_to(folder / "model.onnx")
    with pytest.raises(ValueError, match="`predictions_test` must have shape"):
        run(tmp_path, subjects=())


@pytest.mark.slow
def test_answers_that_are_not_finite_are_a_verdict_and_no_error(folder, tmp_path):
    import keras

    model = keras.saving.load_model(folder / "model.keras", compile=False)
    kernel = keras.ops.convert_to_numpy(model.layers[-1].kernel)
    model.layers[-1].kernel.assign(np.where(np.arange(10) == 3, np.nan, kernel))
    model.save(tmp_path / "model.keras")
    (tmp_path / "data.npz").hardlink_to(folder / "data.npz")
    result = run(tmp_path, "model.keras", subjects=("classifier", "network"))
    assert find(result, "num_nonfinite_weights").judged == len(kernel)
    for metric in ("interval_half_width", "release_difference", "calibration_excess"):
        assert find(result, metric).status == "not finite"
    assert find(result, "leaked_share").status == "passed"
    assert result.report.exit_status == 1


@pytest.mark.parametrize(("code", "stale"), [(b"hello", 0), (b"hallo", 1), (None, 1)])
def test_recorded_code_and_data_are_compared(tmp_path, code, stale):
    """The hash of `hello` is the one that everybody knows."""
    declaration = load_declaration(write(tmp_path / "release.toml", DECLARATION))
    if code is not None:
        (tmp_path / "train.py").write_bytes(code)
    assert len(find_stale_files(declaration.hashes, declaration.folder)) == stale


@pytest.mark.parametrize("hashes", [{}, {"train.py": "abc"}, {"train.py": 3}])
def test_hashes_that_are_none_are_refused(tmp_path, hashes):
    with pytest.raises(ValueError, match="`hashes` must"):
        find_stale_files(hashes, tmp_path)


@pytest.mark.slow
def test_stale_code_is_caught_in_an_audit(folder, tmp_path):
    hashes = {"train.py": "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"}
    (tmp_path / "train.py").write_bytes(b"hello")
    for content, status in ((b"hello", "passed"), (b"hallo", "failed")):
        (tmp_path / "train.py").write_bytes(content)
        result = run(folder, subjects=(), hashes=hashes, folder=tmp_path)
        assert find(result, "stale_parts").status == status
        assert "stale_parts" in result.measured


# The command.


def run_command(folder, *words):
    from bigmodel_utils.cli import main

    return main(["audit", str(folder / "model.onnx"), "--data", str(folder / "data.npz"), *words])


@pytest.mark.slow
def test_command_refuses_then_passes_and_writes_the_evidence(folder, tmp_path, capsys):
    level = ("--level", "development")
    assert run_command(folder, *level) == 1
    assert "REPRO-002  missing" in capsys.readouterr().out
    (tmp_path / "train.py").write_bytes(b"hello")
    declaration = write(tmp_path / "release.toml", DECLARATION + SHEET)
    words = (*level, "--declaration", str(declaration), "--out", str(tmp_path / "evidence"))
    text = declaration.read_text().replace("[measurements]", "[measurements]\nnum_moved = 0")
    write(declaration, text.replace('["classifier"]', "[]"))
    assert run_command(folder, *words) == 0
    captured = capsys.readouterr()
    assert "Passed at level development" in captured.out
    assert "measuring leaked_share" in captured.err
    digest = re.search(r"Digest to keep +(\w{64})", captured.out)[1]
    assert verify_evidence(tmp_path / "evidence", digest=digest).passed


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "Missing option '--data'"),
        (("--data", "none.npz"), "`data` must be a file of `numpy.savez`"),
        (("--data", "none.npz", "--level", "strict"), "`level` must be one of"),
        (("--data", "none.npz", "--subject", "robot"), "`subjects` must be one of"),
        (("--data", "none.npz", "--declaration", "none.toml"), "`declaration` must be a TOML"),
        (("--data", "none.npz", "--out", "evidence"), "a table `model_card` for the evidence"),
    ],
)
def test_command_names_what_is_wrong(tmp_path, monkeypatch, capsys, words, message):
    from bigmodel_utils.cli import main

    monkeypatch.chdir(tmp_path)
    assert main(["audit", "model.keras", *words]) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


# Bad input.


def save(path, **arrays):
    np.savez(path, **arrays)
    return path


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"y_test": [1]}, "`data` must hold x_test. Received: y_test"),
        ({"x_test": np.zeros((2, 3)), "labels": [0, 1]}, "`data` must be one of 'x_test'"),
        ({"x_test": np.zeros((2, 3)), "y_test": [1]}, "must have one entry per example"),
        ({"x_test": np.full((2, 3), np.nan)}, "`x_test` must be finite"),
        ({"x_test": np.zeros((2, 3)), "x_training": np.zeros((2, 4))}, "`x_training` must have"),
        ({"x_test": np.zeros((0, 3))}, "`x_test` must not be empty"),
        ({"x_test": np.array([{}, {}])}, "without Python objects"),
    ],
)
def test_wrong_arrays_are_named(tmp_path, arrays, message):
    with pytest.raises(ValueError, match=message):
        load_arrays(save(tmp_path / "data.npz", **arrays))


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 not a zip", b"\x93NUMPY", b"text"])
def test_file_that_holds_no_arrays_is_refused(tmp_path, content):
    path = tmp_path / "data.npz"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"`data` must be a file of `numpy.savez`"):
        load_arrays(path)


def test_missing_files_are_named(tmp_path):
    with pytest.raises(ValueError, match=r"`data` must be a file of `numpy.savez`"):
        load_arrays(tmp_path / "none.npz")
    with pytest.raises(ValueError, match=r"`path` must be a file that ends in .keras"):
        audit.load_audited_model(tmp_path / "none.keras")
    (tmp_path / "model.pkl").write_bytes(b"")
    with pytest.raises(ValueError, match=r"`path` must be a file that ends in .keras"):
        audit.load_audited_model(tmp_path / "model.pkl")


def test_wrong_names_are_told_before_any_file_is_read(tmp_path):
    with pytest.raises(ValueError, match="`subjects` must be one of"):
        audit_model("none", "none", level="production", declaration=Declaration(("robot",)))
    with pytest.raises(ValueError, match="`level` must be one of"):
        audit_model("none", "none", level="strict", declaration=Declaration())
    with pytest.raises(ValueError, match="`measurements` must be one of"):
        audit_model("none", "none", level="critical", declaration=Declaration((), {"x": 1}))


def test_declaration_is_read(tmp_path):
    declaration = load_declaration(write(tmp_path / "release.toml", DECLARATION))
    assert declaration.subjects == ("classifier",)
    assert declaration.measurements["resume_difference"]["measured_on"] == date(2026, 11, 20)
    assert declaration.waivers[0].expires == date(2027, 1, 31)
    assert declaration.model_card.name == "digits"
    assert declaration.data_sheet is None
    assert list(declaration.hashes) == ["train.py"]
    assert declaration.folder == tmp_path


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ('subjects = ["classifier"]', 'subjects = "classifier"', "a list `subjects`"),
        ("[measurements]", "[measurement]", "must hold tables .*measurements"),
        ("expires = 2027-01-31", "", "in `waivers` a date `expires`"),
        ("expires = 2027-01-31", 'expires = "soon"', "in `waivers` a date `expires`"),
        ('owner = "head of radiology"', "", "in `waivers` every field of Waiver"),
        ('owner = "head of radiology"', "boss = 1", "in `waivers` the fields clause_id"),
        ('version = "1"', "", "in `model_card` every field of ModelCard"),
        ("seed_difference = 0.0", "seed_difference = ", "must be a TOML file"),
    ],
)
def test_wrong_declaration_is_named(tmp_path, before, after, message):
    assert before in DECLARATION
    path = write(tmp_path / "release.toml", DECLARATION.replace(before, after))
    with pytest.raises(ValueError, match=message):
        load_declaration(path)


def test_measures_are_those_of_clauses_that_apply():
    metrics = {m.metric for m in audit.list_measures(["classifier"])}
    assert "interval_half_width" in metrics
    assert "shift_consistency" not in metrics
    assert {m.metric for m in audit.list_measures([])} <= metrics
