"""Shows that a model tied to the place is stopped and one that is not passes."""

import json

import numpy as np
import pytest

from bigmodel_utils.recipes.measure_shift_consistency import script


def test_consistency_tells_a_model_tied_to_the_place_from_one_that_is_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    trained = script.main(["--epochs", "3"])
    assert not trained["holds"]
    assert json.loads(json.dumps(trained)) == trained

    def load_ink_counter(training_set: object, *, num_epochs: int) -> script.Predict:  # noqa: ARG001
        return lambda x: np.eye(10)[np.minimum(x.sum(axis=(1, 2, 3)) // 40, 9).astype(int)]

    monkeypatch.setattr(script, "load_model", load_ink_counter)
    assert script.main([])["holds"]
