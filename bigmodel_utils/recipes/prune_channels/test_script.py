"""Shows that the cut is reported, that budgets are equal, and that the report is plain data."""

import json

import pytest

from bigmodel_utils import data
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
    with pytest.raises(InputError, match="share"):
        script.main([*short, "--share", "1"])
