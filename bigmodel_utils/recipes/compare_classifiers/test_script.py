"""Shows that a difference is found, that none is found where there is none, and who leads."""

import json

import pytest
from sklearn.neighbors import KNeighborsClassifier

from bigmodel_utils.recipes.compare_classifiers import script


def test_finds_the_better_one_and_is_plain() -> None:
    found = script.main(["--dealings", "2"])
    assert json.loads(json.dumps(found)).keys() == found.keys()
    assert found["lead"]["low"] > 0.02
    assert max(found["p_values"]) < 0.001
    assert found["num_examples_needed"] < 1000


def test_the_lead_changes_sign_with_the_roles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(script, "build_model", script.build_baseline)
    monkeypatch.setattr(script, "build_baseline", lambda _: KNeighborsClassifier(1))
    assert script.main(["--dealings", "1"])["lead"]["high"] < 0


def test_twin_a_model_against_itself_finds_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(script, "build_model", script.build_baseline)
    found = script.main(["--dealings", "2"])
    assert found["lead"]["value"] == 0
    assert found["p_values"] == [1.0, 1.0]
    assert found["num_examples_needed"] is None
