"""Shows that a sound ladder is forecast, and that an unsound one is refused."""

import json
from pathlib import Path

import pytest

from bigmodel_utils import costs
from bigmodel_utils.recipes.forecast_larger_model import script

PLANNED = ["--parameters", "1e10", "--tokens", "2e11"]


def write_runs(path: Path, *, factor_of_largest: float = 1.0) -> str:
    """The example as a file, its largest models a little off."""
    runs = script.make_example()
    runs[2, runs[0] == runs[0].max()] *= factor_of_largest
    lines = [",".join(map(str, run)) for run in runs.T]
    path.write_text("\n".join(["num_parameters,num_tokens,loss", *lines]) + "\n", encoding="utf-8")
    return str(path)


def test_a_sound_ladder_is_forecast(tmp_path: Path) -> None:
    assert script.main([]) == script.main(PLANNED)
    report = script.main([write_runs(tmp_path / "runs.csv"), *PLANNED])
    assert json.loads(json.dumps(report)) == report
    assert report["held_out_error"] < 0.01
    assert (
        report["loss"]["low"]
        <= costs.CHINCHILLA_REFITTED.predict_loss(1e10, 2e11)
        <= report["loss"]["high"]
    )


def test_a_ladder_that_bends_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="No forecast: the law misses"):
        script.main([write_runs(tmp_path / "runs.csv", factor_of_largest=1.1), *PLANNED])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("size,num_tokens,loss\n1,2,3\n", "no column 'num_parameters'"),
        ("num_parameters,num_tokens,loss\n1e7,1e9,3\n1e7,1e9,\n", "line 3"),
    ],
)
def test_a_file_that_lacks_something_is_named(text: str, message: str, *, tmp_path: Path) -> None:
    path = tmp_path / "runs.csv"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(SystemExit, match=message):
        script.main([str(path), *PLANNED])
