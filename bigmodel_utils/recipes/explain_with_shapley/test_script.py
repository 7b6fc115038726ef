"""Shows that the values add up with small errors, and that an explainer which guesses fails."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from bigmodel_utils import explanation
from bigmodel_utils.recipes.explain_with_shapley import script


def test_the_explainer_passes_and_one_that_guesses_does_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    short = ["--background", "20", "--epochs", "8"]
    found = script.main(short)
    assert found["verdict"].passed, str(found["verdict"])
    assert found["errors"].max() <= 0.1
    assert np.abs(found["values"]).max() > 10 * found["errors"].max() > 0

    make_explainer = script.make_explainer

    def make_guesser(background: np.ndarray) -> Callable[..., explanation.Explanation]:
        explain = make_explainer(background)

        def guess(model: Any, inputs: np.ndarray, *, seed: int) -> explanation.Explanation:
            honest = explain(model, inputs, seed=seed)
            return replace(honest, values=np.abs(inputs)[..., None].astype(float))

        return guess

    monkeypatch.setattr(script, "make_explainer", make_guesser)
    assert not script.main(short)["verdict"].passed
