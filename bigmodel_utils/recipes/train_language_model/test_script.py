"""The script learns from a folder of texts, and a second start goes on from the first."""

from pathlib import Path

from bigmodel_utils.recipes.train_language_model import script


def test_the_script_learns_and_goes_on(tmp_path: Path) -> None:
    for number in range(20):
        words = " ".join(f"def step_{i}(x): return x + {number + i}" for i in range(60))
        (tmp_path / f"{number}.txt").write_text(words, encoding="utf-8")
    arguments = [
        *("--texts", str(tmp_path), "--checkpoints", str(tmp_path / "checkpoints")),
        *("--vocabulary", "300", "--width", "32", "--layers", "1"),
    ]
    first = script.main([*arguments, "--epochs", "2"])
    losses = [epoch.validation["loss"] for epoch in first.epochs]
    assert losses[-1] < losses[0]
    second = script.main([*arguments, "--epochs", "3"])
    assert second.resumed_from_step is not None
    assert [epoch.validation["loss"] for epoch in second.epochs[:2]] == losses
