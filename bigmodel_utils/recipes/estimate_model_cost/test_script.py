"""Shows that the bill follows the shape: tokens, devices, prices and caches do what they should."""

import json

import pytest

from bigmodel_utils.recipes.estimate_model_cost import script


def test_the_bill_is_plain_and_follows_what_is_stated() -> None:
    bill = script.main([])
    assert json.loads(json.dumps(bill)) == bill
    dearer = script.main(["--price", "4"])
    assert dearer["training"]["money"] == pytest.approx(2 * bill["training"]["money"])
    assert dearer["training"]["hours"] == bill["training"]["hours"]
    wider = script.main(["--devices", "2000"])
    assert wider["training"]["hours"] == pytest.approx(bill["training"]["hours"] / 2)
    assert wider["training"]["money"] == pytest.approx(bill["training"]["money"])


def test_size_is_not_price() -> None:
    large = script.main(["--model", "DeepSeek-V3", "--length", "4096"])
    dense = script.main(["--model", "Llama 3 405B", "--length", "4096"])
    assert large["statement"]["total_parameters"] > dense["statement"]["total_parameters"]
    assert large["training"]["money"] < 0.2 * dense["training"]["money"]
    assert large["serving"]["cache_bytes"] < 0.2 * dense["serving"]["cache_bytes"]


def test_an_unknown_device_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        script.main(["--device", "abacus"])
    assert "choose from NVIDIA H100 SXM" in capsys.readouterr().err
