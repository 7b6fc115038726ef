"""Shows that the report is complete, is plain data, and tells a good model from a bad one."""

import json

import numpy as np
import pytest

from bigmodel_utils.recipes.validate_classifier import script


def test_report_is_plain_and_tells_good_from_bad(monkeypatch: pytest.MonkeyPatch) -> None:
    good = script.main(["--epochs", "3"])
    assert json.loads(json.dumps(good)).keys() == good.keys()
    assert good["accuracy"]["low"] > 0.6
    assert len(good["slices"]["slices"]) == 10

    def load_guesser(sets: object, *, num_epochs: int) -> script.Predict:  # noqa: ARG001
        return lambda x: np.random.default_rng(0).dirichlet(np.ones(10), size=len(x))

    monkeypatch.setattr(script, "load_model", load_guesser)
    bad = script.main([])
    assert bad["calibration"]["expected_error"] > good["calibration"]["expected_error"]
    assert bad["comparison"]["difference"]["high"] < 0
