"""Shows that the release passes and that the gate holds back one with a fault."""

from pathlib import Path

import numpy as np
import pytest

from bigmodel_utils import standards
from bigmodel_utils.recipes.gate_release import script


def test_sound_release_passes_and_its_evidence_holds(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = script.main(["--out", str(tmp_path / "evidence")])
    assert report.passed
    digest = capsys.readouterr().out.split("Digest to keep")[1].split()[0]
    assert standards.verify_evidence(tmp_path / "evidence", digest=digest).passed
    (tmp_path / "evidence" / "model_card.md").write_text("Fit for diagnosis.")
    assert not standards.verify_evidence(tmp_path / "evidence", digest=digest).passed


def find_open(monkeypatch: pytest.MonkeyPatch, **replaced: object) -> list[str]:
    for name, function in replaced.items():
        monkeypatch.setattr(script, name, function)
    return [verdict.clause_id for verdict in script.main([]).open_verdicts]


def test_copies_on_both_sides_are_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    load = script.load_data

    def load_copies() -> tuple[np.ndarray, np.ndarray]:
        x, y = load()
        return np.vstack([x, x[:200]]), np.concatenate([y, y[:200]])

    def split_by_place(x: np.ndarray) -> tuple[list[str], dict[str, np.ndarray]]:
        keys = [row.tobytes().hex() for row in x]
        places = np.arange(len(x))
        return keys, {"training": places[: len(x) // 2], "test": places[len(x) // 2 :]}

    monkeypatch.setattr(script, "load_data", load_copies)
    assert {"DATA-001", "DATA-002"} <= set(find_open(monkeypatch, split=split_by_place))


def test_other_weights_than_those_reported_are_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    load = script.load_predictor

    def load_rounded(path: Path) -> script.Predict:
        predict = load(path)
        return lambda x: np.round(predict(x), 1)

    assert "REPRO-003" in find_open(monkeypatch, load_predictor=load_rounded)


def test_weights_of_other_code_or_data_are_caught(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, y = script.load_data()
    weights = tmp_path / "weights.npz"
    script.save(script.train(x, y), weights)
    assert script.count_stale_parts(weights) == 0
    other = tmp_path / script.find_code().name
    other.write_text("other code")
    monkeypatch.setattr(script, "find_code", lambda: other)
    monkeypatch.setattr(script, "load_data", lambda: (x[1:], y[1:]))
    assert script.count_stale_parts(weights) == 2


def test_stale_parts_hold_a_release_back(monkeypatch: pytest.MonkeyPatch) -> None:
    assert find_open(monkeypatch, count_stale_parts=lambda _: 1) == ["REPRO-002"]
