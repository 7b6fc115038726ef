"""Trains a language model on a folder of texts and goes on where it was killed.

Start it, stop it, start it again with the same arguments: the weights at the end are those of
a run that was never stopped. Without a folder it reads the docstrings of Python's own library.
"""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from bigmodel_utils import data, generation, models, training

SHARES = {"training": 0.9, "validation": 0.1}
CONTEXT_LENGTH = 64


def load_texts(folder: Path | None, pattern: str) -> list[str]:
    """Reads the texts of a folder in the order of their paths."""
    if folder is None:
        return [document.text for document in data.load_standard_library("docstrings").documents]
    return [path.read_text(encoding="utf-8") for path in sorted(folder.rglob(pattern))]


def main(arguments: Sequence[str] | None = None) -> training.TrainingRun:
    """Trains, prints a sample, and returns the run."""
    parser = argparse.ArgumentParser(description="Train a language model on texts.")
    parser.add_argument("--texts", type=Path, help="folder of texts; default: docstrings")
    parser.add_argument("--pattern", default="*.txt", help="which files of the folder")
    parser.add_argument("--checkpoints", type=Path, default=Path("checkpoints"))
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--vocabulary", type=int, default=1024)
    parser.add_argument("--width", type=int, default=96)
    parser.add_argument("--layers", type=int, default=2)
    options = parser.parse_args(arguments)

    texts = load_texts(options.texts, options.pattern)
    keys = [hashlib.sha256(text.encode()).hexdigest() for text in texts]
    sides = data.split_by_hash(keys, SHARES)
    tokenizer = data.train_tokenizer(
        (texts[row] for row in sides["training"]), vocabulary_size=options.vocabulary
    )
    windows = {
        side: data.pack_tokens(
            [tokenizer.encode(texts[row]).ids for row in rows], length=CONTEXT_LENGTH
        )
        for side, rows in sides.items()
    }
    settings = models.LanguageModelSettings(
        vocabulary_size=options.vocabulary,
        num_layers=options.layers,
        width=options.width,
        num_heads=options.width // 32,
        feedforward_width=options.width * 8 // 3,
        context_length=CONTEXT_LENGTH,
    )
    run = training.train(
        lambda: models.build_language_model(settings, learning_rate=2e-3),
        windows["training"],
        validation_data=windows["validation"],
        settings=training.TrainingSettings(options.epochs, compile_mode="plain"),
        checkpoints=training.CheckpointSettings(options.checkpoints),
    )
    num_bytes = sum(len(texts[row].encode()) for row in sides["validation"])
    loss = run.epochs[run.best_epoch].validation["loss"]
    bits = loss / np.log(2) * windows["validation"][0].size / num_bytes
    sample = generation.generate(
        run.model,
        tokenizer.encode("Return the ").ids,
        num_tokens=CONTEXT_LENGTH // 2,
        stop_token=data.END_TOKEN,
    )
    print(f"device           {run.device}, {run.precision}")
    print(f"resumed from     {run.resumed_from_step or 'the beginning'}")
    print(f"validation loss  {loss:.3f} nats per token, {bits:.2f} bits per byte")
    print(f"sample           {tokenizer.decode(sample)!r}")
    return run


if __name__ == "__main__":
    main()
