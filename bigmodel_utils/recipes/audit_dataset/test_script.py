"""Shows that sound texts break no clause and that each planted fault is found."""

import numpy as np
import pytest

from bigmodel_utils import data, reliability
from bigmodel_utils.recipes.audit_dataset import script


def test_sound_texts_break_no_clause() -> None:
    assert script.main([]) == []


def test_each_fault_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    sound = script.load_texts()

    def load_noisy_texts() -> script.LabelledTexts:
        wrong, _ = reliability.corrupt_labels(sound.y, 0.2, num_classes=len(script.FAMILIES))
        copies, sources = reliability.make_near_duplicates(sound.texts, 300)
        return script.LabelledTexts(
            [*sound.texts, *copies], np.concatenate([wrong, wrong[sources]])
        )

    def split_at_random(texts: list[str], *, seed: int) -> dict[str, np.ndarray]:
        return data.split_by_hash(texts, {"training": 0.7, "test": 0.3}, salt=str(seed))

    def receive_other_texts(given: script.LabelledTexts, test: np.ndarray) -> list[str]:
        return [given.texts[n] for n in test if given.y[n] == script.FAMILIES.index("tkinter")]

    monkeypatch.setattr(script, "load_texts", load_noisy_texts)
    monkeypatch.setattr(script, "split_by_family", split_at_random)
    monkeypatch.setattr(script, "load_service_texts", receive_other_texts)
    assert script.main([]) == ["DATA-001", "DATA-003", "DATA-004"]
