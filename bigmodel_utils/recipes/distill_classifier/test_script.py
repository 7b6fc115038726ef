"""Shows that a good teacher pays, and that one which knows nothing does not."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from bigmodel_utils.recipes.distill_classifier import script

FEW = ["--seeds", "2", "--epochs", "4", "--labeled", "60"]


def test_a_good_teacher_pays_and_one_without_knowledge_does_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = script.main(FEW)
    assert found["teacher_lead"].low > 0
    assert found["lead"].value > 0

    load_sets = script.load_sets

    def load_shuffled() -> dict[str, Any]:
        sets = load_sets()
        shuffled = np.random.default_rng(0).permutation(sets["training"].y)
        return {**sets, "training": replace(sets["training"], y=shuffled)}

    monkeypatch.setattr(script, "load_sets", load_shuffled)
    twin = script.main(FEW)
    assert twin["teacher_lead"].value < 0.2
    assert max(twin["scores"]["teacher"]) < 0.6
