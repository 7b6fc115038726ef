"""Shows that the test passes a model that recalls and stops one that cannot."""

import json

import numpy as np
import pytest

from bigmodel_utils.recipes.measure_sequence_reach import script


def test_reach_tells_a_model_that_recalls_from_one_that_guesses(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    untrained = script.main(["--distance", "10", "--steps", "1"])
    assert not untrained["holds"]
    assert json.loads(json.dumps(untrained)) == untrained

    def load_reader(distance: int, **options: object) -> script.Predict:  # noqa: ARG001
        return lambda x: np.asarray(x[:, :, :2]).sum(axis=1) / script.STRENGTH

    monkeypatch.setattr(script, "load_model", load_reader)
    good = script.main(["--distance", "10"])
    assert good["holds"]
    assert good["reach"] == 20
