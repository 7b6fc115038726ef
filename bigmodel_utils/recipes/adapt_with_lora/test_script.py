"""Shows that a source task which is near pays, and that one without sense does not."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bigmodel_utils.recipes.adapt_with_lora import script


def test_a_near_source_pays_and_one_of_random_labels_does_not(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    few = ["--seeds", "2", "--steps", "60", "--out", str(tmp_path / "adapters.npz")]
    found = script.main(few)
    assert found["lead"].value > 0
    assert found["agreement"].largest_difference < 1e-3
    assert (tmp_path / "adapters.npz").exists()

    load_sets = script.load_sets

    def load_shuffled() -> dict[str, Any]:
        sets = load_sets()
        shuffled = np.random.default_rng(0).permutation(sets["source"].y)
        return {**sets, "source": replace(sets["source"], y=shuffled)}

    monkeypatch.setattr(script, "load_sets", load_shuffled)
    assert script.main(few)["lead"].value < 0
