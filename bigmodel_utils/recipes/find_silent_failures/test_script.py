"""Shows that a sound program breaks no clause and that broken ones are found."""

from typing import Any

import numpy as np
import pytest

from bigmodel_utils import data
from bigmodel_utils.recipes.find_silent_failures import script


def test_a_sound_program_breaks_no_clause() -> None:
    assert script.main(["--epochs", "1"]) == []


def test_each_fault_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def predict_with_noise(model: Any, x: Any) -> np.ndarray:
        return np.asarray(model(x)) + 1e-3

    def share_images() -> dict[str, data.Dataset]:
        digits = data.load_digits()
        half = np.arange(0, len(digits), 2)
        return dict.fromkeys(script.SHARES, digits.take(half))

    def signed_loss(target: Any, given: Any) -> Any:
        return given - target

    monkeypatch.setattr(script, "predict", predict_with_noise)
    monkeypatch.setattr(script, "load_sets", share_images)
    monkeypatch.setattr(script, "compute_loss", signed_loss)
    assert script.main(["--epochs", "1"]) == ["EVAL-001", "TRAIN-003", "REPRO-003"]
