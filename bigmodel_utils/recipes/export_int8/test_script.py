"""Shows that every file is judged, and that one which lost the model is not taken."""

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bigmodel_utils import compression, data
from bigmodel_utils.recipes.export_int8 import script


def load_few() -> dict[str, data.Dataset]:
    digits = data.load_digits()
    return {"training": digits.take(range(400)), "test": digits.take(range(400, 560))}


def test_the_fastest_file_that_is_allowed_is_taken(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(script, "load_sets", load_few)
    short = [str(tmp_path), "--epochs", "3", "--rounds", "5", "--allowed", "0.05"]
    found = script.main(short)
    files = found["files"]
    assert found["fastest"] in files
    assert files["int8.tflite"]["bytes"] < 0.5 * files["float32.tflite"]["bytes"]
    assert all(abs(row["change"].value) <= 0.05 for row in files.values())

    def load_broken(path: Path) -> script.Run:
        # Files with integers answer wrongly, and are the faster ones.
        run = load_runner(path)

        def answer(x: np.ndarray) -> Any:
            if "int8" in path.name:
                return np.roll(run(x), 1, axis=-1)
            time.sleep(0.002)
            return run(x)

        return answer

    load_runner = compression.load_runner
    monkeypatch.setattr(compression, "load_runner", load_broken)
    twin = script.main(short)
    assert "float32" in twin["fastest"]
