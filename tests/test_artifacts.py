"""Reference models are what their provenance says, or somebody is told."""

import json
import shutil

import numpy as np
import pytest

from bigmodel_utils import artifacts
from bigmodel_utils._checks import InputError
from bigmodel_utils.artifacts import _provenance, _reference
from bigmodel_utils.training import evaluate

SHIPPED = _reference.SHIPPED / "language_model"
LIMIT_BYTES = 8_000_000


@pytest.fixture
def shipped_copy(tmp_path, monkeypatch):
    """A copy of the shipped model that a test may damage."""
    shutil.copytree(SHIPPED, tmp_path / "language_model")
    monkeypatch.setattr(_reference, "SHIPPED", tmp_path)
    return tmp_path / "language_model"


def change(folder, **values):
    path = folder / _reference.PROVENANCE
    path.write_text(json.dumps({**json.loads(path.read_text(encoding="utf-8")), **values}))


@pytest.mark.parametrize("name", ["language_model", "language_model_student"])
def test_a_shipped_model_is_fresh_small_and_documented(name):
    folder = _reference.SHIPPED / name
    assert artifacts.find_stale_parts(name) == []
    assert sum(path.stat().st_size for path in folder.iterdir()) <= LIMIT_BYTES
    provenance = json.loads((folder / _reference.PROVENANCE).read_text(encoding="utf-8"))
    assert provenance["data"]["licence"] == "PSF License Agreement (LICENSE.txt)"
    assert provenance["data"]["python_version"] == provenance["versions"]["python"]
    assert provenance["dtype"] == "float16"
    with np.load(folder / _reference.WEIGHTS, allow_pickle=False) as stored:
        assert {stored[key].dtype for key in stored.files} == {np.dtype("float16")}


def test_the_shipped_model_lies_between_those_of_other_seeds():
    provenance = json.loads((SHIPPED / _reference.PROVENANCE).read_text(encoding="utf-8"))
    others = [metrics["loss"] for metrics in provenance["other_seeds"].values()]
    assert len(others) >= 2
    assert min(others) <= provenance["test_as_stored"]["loss"] <= max(others)


def test_the_student_is_less_than_half_and_loses_three_per_cent_at_most():
    teacher, student = (
        json.loads((_reference.SHIPPED / name / _reference.PROVENANCE).read_text(encoding="utf-8"))
        for name in ("language_model", "language_model_student")
    )
    assert student["teacher_weights_sha256"] == teacher["weights_sha256"]
    assert student["num_parameters"] < teacher["num_parameters"] / 2
    assert student["test_as_stored"]["loss"] <= 1.03 * teacher["test_as_stored"]["loss"]
    # As many steps of as many examples: more training is not what makes it good.
    settings = [each["training"]["settings"] for each in (teacher, student)]
    assert settings[0]["num_epochs"] == settings[1]["num_epochs"]
    assert settings[0]["batch_size"] == settings[1]["batch_size"]


@pytest.mark.parametrize(
    ("values", "fault"),
    [
        ({"code_sha256": "0"}, "code has changed"),
        ({"data_sha256": "0"}, "data have changed"),
        ({"weights_sha256": "0"}, "weights are not those"),
    ],
)
def test_a_stale_part_is_named(values, fault, shipped_copy):
    change(shipped_copy, **values)
    (found,) = artifacts.find_stale_parts("language_model")
    assert fault in found


def test_damaged_weights_are_not_loaded(shipped_copy):
    path = shipped_copy / _reference.WEIGHTS
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(InputError, match=r"`name` must have the weights .* Fix: "):
        artifacts.load_reference_model("language_model")


def test_comments_and_docstrings_are_not_code(tmp_path, monkeypatch):
    monkeypatch.setattr(_provenance, "PACKAGE", tmp_path)
    hashes = []
    for source in (
        "def f(x):\n    return x + 1\n",
        '"""A module."""\n\ndef f(x):  # adds\n    """Adds."""\n    return (x + 1)\n',
        "def f(x):\n    return x + 2\n",
    ):
        (tmp_path / "module.py").write_text(source)
        hashes.append(_provenance.hash_code(["module.py"]))
    assert hashes[0] == hashes[1] != hashes[2]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["language_model", "language_model_student"])
def test_a_shipped_model_has_the_loss_it_claims(name):
    reference = artifacts.load_reference_model(name)
    windows = artifacts.load_corpus_windows(reference.tokenizer, ["test"])["test"]
    claimed = reference.provenance["test_as_stored"]["loss"]
    assert evaluate(reference.model, windows)["loss"] == pytest.approx(claimed, rel=1e-4)


@pytest.mark.slow
def test_small_models_train_once_and_are_cached(tmp_path, monkeypatch):
    monkeypatch.setenv("BIGMODEL_CACHE", str(tmp_path))
    first, second = (artifacts.load_reference_model("digits_student") for _ in range(2))
    assert (first.origin, second.origin) == ("trained now", "cached")
    for one, two in zip(first.model.get_weights(), second.model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, two)
    assert first.provenance["test"]["accuracy"] > 0.93
    # Other code, another key: the cached model is not taken for the new one.
    monkeypatch.setattr(_reference, "hash_code", lambda _: "other")
    assert artifacts.load_reference_model("digits_student").origin == "trained now"


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda: artifacts.load_reference_model("largest"), "name"),
        (lambda: artifacts.train_reference_model("digits_student", seed=-1), "seed"),
        (lambda: artifacts.find_stale_parts("digits_student"), "name"),
        (lambda: artifacts.load_corpus_windows(None, ["trainig"]), "sides"),
    ],
)
def test_bad_input_gets_one_clear_error(call, name):
    with pytest.raises(InputError, match=rf"`{name}` .* Received: .* Fix: "):
        call()
