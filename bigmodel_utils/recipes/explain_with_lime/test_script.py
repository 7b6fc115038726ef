"""Shows that draws go on until the order is stable, and that a model of chance is not explained."""

from typing import Any

import numpy as np
import pytest

from bigmodel_utils.recipes.explain_with_lime import script


def test_the_order_is_as_stable_as_asked_and_that_of_noise_is_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = script.main(["--epochs", "6", "--stability", "0.6"])
    assert found["stability"] >= 0.6
    assert np.abs(found["values"]).max() > 0.01

    class Chance:
        """Answers at random: no line is stable there, however many draws are taken."""

        def __init__(self) -> None:
            self.draws = np.random.default_rng(0)

        def fit(self, *examples: Any, **options: Any) -> None:
            pass

        def __call__(self, x: np.ndarray) -> np.ndarray:
            share = self.draws.random(len(x))
            return np.column_stack([share, 1 - share])

    monkeypatch.setattr(script, "build_model", lambda *_: Chance())
    monkeypatch.setattr(script, "MOST_DRAWS", 4_000)
    assert script.main(["--stability", "0.6"])["stability"] < 0.6
