"""Shows that what was learnt survives the cut, that budgets are equal, that all is plain data."""

import json
from typing import Any

import pytest

from bigmodel_utils import compression, data
from bigmodel_utils._checks import InputError
from bigmodel_utils.recipes.prune_channels import script


def test_a_cut_is_made_and_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    def load_few() -> dict[str, data.Dataset]:
        digits = data.load_digits()
        return {"training": digits.take(range(160)), "test": digits.take(range(160, 320))}

    monkeypatch.setattr(script, "load_sets", load_few)
    short = ["--seeds", "2", "--epochs", "6", "--epochs-after", "1"]
    found = script.main(short)
    sizes = [found["report"][side]["num_parameters"] for side in ("before", "after")]
    assert sizes[1] < 0.3 * sizes[0]
    assert found["comparison"]["budget_ratio"] <= 1.05
    assert json.loads(json.dumps(found)) == found
    assert min(found["accuracies"]["pruned"]) > 0.3  # a tenth by chance
    with pytest.raises(InputError, match="share"):
        script.main([*short, "--share", "1"])

    # The twin cuts as much, and forgets what the large network had learnt.
    prune_units = compression.prune_units

    def cut_and_forget(model: Any, examples: Any, *, share: float) -> compression.Compressed:
        import keras

        cut = prune_units(model, examples, share=share)
        fresh = keras.models.clone_model(cut.model)
        fresh.compile("adam", "categorical_crossentropy")
        return compression.Compressed(fresh, cut.report)

    monkeypatch.setattr(compression, "prune_units", cut_and_forget)
    assert max(script.main(short)["accuracies"]["pruned"]) < 0.3
