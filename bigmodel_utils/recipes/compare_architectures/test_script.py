"""Shows that budgets are equal, that a lead is found, and that none is made up."""

import json
from typing import Any

import pytest

from bigmodel_utils import data
from bigmodel_utils.recipes.compare_architectures import script


@pytest.fixture(autouse=True)
def few_examples(monkeypatch: pytest.MonkeyPatch) -> None:
    def load_few() -> dict[str, data.Dataset]:
        digits = data.load_digits()
        return {"training": digits.take(range(320)), "validation": digits.take(range(320, 640))}

    monkeypatch.setattr(script, "load_sets", load_few)


def build_dense(width: int) -> Any:
    """A network that learns the digits at once."""
    import keras

    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            layers.AveragePooling2D(4),
            layers.Flatten(),
            layers.Dense(width, activation="relu"),
            layers.Dense(10),
        ]
    )


def build_blind(width: int) -> Any:
    """The same, but blind: all pixels are averaged before it looks."""
    import keras

    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            layers.GlobalAveragePooling2D(),
            layers.Dense(width, activation="relu"),
            layers.Dense(10),
        ]
    )


def test_a_lead_is_found_and_none_is_made_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(script, "BUILDERS", {"blind": build_blind, "dense": build_dense})
    found = script.main(["--epochs", "2", "--seeds", "3", "--parameters", "1500"])
    assert found["best"] == "dense"
    assert found["leads"]["blind"]["lead"]["low"] > 0
    assert found["leads"]["blind"]["budget_ratio"] <= 1.05
    assert json.loads(json.dumps(found)) == found

    monkeypatch.setattr(script, "BUILDERS", {"one": build_dense, "same": build_dense})
    twin = script.main(["--epochs", "1", "--seeds", "2", "--parameters", "1500"])
    (lead,) = (report["lead"] for report in twin["leads"].values())
    assert lead["low"] <= 0 <= lead["high"]
