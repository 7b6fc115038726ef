"""Shows that sound accumulation is trained and unsound accumulation is not."""

import json
from typing import Any

import pytest

from bigmodel_utils.recipes.accumulate_gradients import script


def test_only_parts_that_make_up_the_whole_are_trained(monkeypatch: pytest.MonkeyPatch) -> None:
    good = script.main(["--epochs", "4"])
    assert good["difference"] < script.LARGEST_DIFFERENCE
    assert good["accuracy"] > 0.6
    assert json.loads(json.dumps(good)) == good

    sound = script.build_model

    def build_normalized(num_parts: int, *, num_updates: int) -> Any:
        import keras

        model = sound(num_parts, num_updates=num_updates)
        broken = keras.Sequential(
            [keras.Input((28, 28, 1)), keras.layers.BatchNormalization(), *model.layers]
        )
        broken.compile(model.optimizer, model.loss)
        return broken

    monkeypatch.setattr(script, "build_model", build_normalized)
    bad = script.main([])
    assert bad["difference"] > script.LARGEST_DIFFERENCE
    assert bad["accuracy"] is None
