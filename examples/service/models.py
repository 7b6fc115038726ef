"""Models by name and hash: loaded, tried, swapped in one step, rolled back in another."""

from __future__ import annotations

import hashlib
import re
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

NAME = r"[a-z0-9][a-z0-9_-]{0,63}"
END_TOKEN = 0


class ModelError(ValueError):
    """A model that is not put into service; the one that serves stays."""


@dataclass(frozen=True)
class Model:
    """One file of ONNX in memory. What it answers and what it is called cannot part."""

    name: str
    sha256: str
    session: Any = field(repr=False)

    def predict(self, images: np.ndarray) -> np.ndarray:
        """Probabilities `(batch, classes)` of images `(batch, rows, columns, channels)`."""
        (source,) = self.session.get_inputs()
        return np.asarray(self.session.run(None, {source.name: images})[0])

    def describe(self) -> dict[str, str]:
        """What an answer says of the model that computed it."""
        return {"name": self.name, "sha256": self.sha256}


def load_model(folder: Path, name: str, *, sha256: str) -> Model:
    """Loads `NAME.onnx` if its bytes are the ones that were asked for.

    The bytes that are hashed are the bytes that are run: the file is read once.

    Raises:
        ModelError: if the name is no name, the file is not there, has another hash, or is not
            one that ONNX Runtime takes.
    """
    if not re.fullmatch(NAME, name):
        raise ModelError("the name of a model is made of small letters, digits, `-` and `_`")
    try:
        content = (folder / f"{name}.onnx").read_bytes()
    except OSError as error:
        raise ModelError(f"there is no model {name!r}") from error
    found = hashlib.sha256(content).hexdigest()
    if found != sha256:
        raise ModelError(f"the file of {name!r} has the SHA-256 {found}, not the one asked for")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    try:
        session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # the runtime has errors of its own
        raise ModelError(f"ONNX Runtime refuses {name!r}") from error
    return Model(name, found, session)


class ModelStore:
    """The model that serves, and the one before it.

    A reader takes `current` once and uses only what it took: a swap is one assignment, so a
    batch is computed by one model and says which.

    Args:
        folder: where the `.onnx` files are.
        images: labelled examples that a model must get right before it serves.
        labels: their classes.
        min_accuracy: the share of them.
    """

    def __init__(
        self,
        folder: Path,
        images: np.ndarray,
        *,
        labels: np.ndarray,
        min_accuracy: float = 0.8,
    ) -> None:
        self._folder = folder
        self._images, self._labels = images.astype(np.float32), labels
        self._min_accuracy = min_accuracy
        self._swapping = threading.Lock()
        self._current: Model | None = None
        self._previous: Model | None = None

    @property
    def current(self) -> Model:
        """The model that serves."""
        if self._current is None:
            raise ModelError("no model serves yet")
        return self._current

    @property
    def image_shape(self) -> tuple[int, ...]:
        """Shape of one image."""
        return tuple(self._images.shape[1:])

    def activate(self, name: str, *, sha256: str) -> Model:
        """Loads and tries a model beside the one that serves, then swaps.

        Raises:
            ModelError: if it cannot be loaded or fails its trial; nothing has changed then.
        """
        with self._swapping:
            model = load_model(self._folder, name, sha256=sha256)
            self._try(model)
            self._previous, self._current = self._current, model
            return model

    def roll_back(self) -> Model:
        """Puts the previous model back; it is still in memory, so this takes no time.

        Raises:
            ModelError: if there is none.
        """
        with self._swapping:
            if self._previous is None:
                raise ModelError("there is no previous model")
            self._current, self._previous = self._previous, None
            return self._current

    def _try(self, model: Model) -> None:
        try:
            found = model.predict(self._images)
            single = model.predict(self._images[:1])
        except Exception as error:  # the runtime has errors of its own
            raise ModelError(f"{model.name!r} does not take the images of this service") from error
        if found.ndim != 2 or len(found) != len(self._labels) or len(single) != 1:
            raise ModelError(f"{model.name!r} answers in the shape {found.shape}")
        is_distribution = np.isfinite(found).all() and np.allclose(found.sum(axis=1), 1, atol=1e-3)
        if not is_distribution:
            raise ModelError(f"{model.name!r} gives numbers that are no probabilities")
        accuracy = float((found.argmax(axis=1) == self._labels).mean())
        if accuracy < self._min_accuracy:
            raise ModelError(f"{model.name!r} is right on {accuracy:.0%} of the trial's examples")


class TextModel:
    """A language model with its cache as one file of ONNX, and its tokenizer.

    The file takes tokens `(1, time)`, the place of the first `(1,)` and one cache for each
    layer, and gives logits `(1, time, vocabulary)` and the caches.

    Args:
        model: the file.
        tokenizer: text to numbers and back.
    """

    def __init__(self, model: Model, tokenizer: Any) -> None:
        self.model = model
        self.tokenizer = tokenizer
        inputs = model.session.get_inputs()
        self._names = [source.name for source in inputs]
        self._cache_shapes = [tuple(source.shape) for source in inputs[2:]]
        self.context_length = int(self._cache_shapes[0][1])

    def encode(self, prompt: str, *, num_tokens: int) -> list[int]:
        """Numbers of a prompt that leaves room for what is to come.

        Raises:
            ValueError: if it is empty or too long.
        """
        tokens: list[int] = self.tokenizer.encode(prompt).ids
        room = self.context_length - num_tokens
        if not 0 < len(tokens) <= room:
            raise ValueError(f"a prompt has from 1 to {room} tokens here, not {len(tokens)}")
        return tokens

    def stream(
        self, tokens: Sequence[int], *, num_tokens: int, temperature: float, seed: int
    ) -> Iterator[str]:
        """Continues a prompt, giving each piece of text as soon as it is whole.

        A character of several bytes may be several tokens: they are held until it is complete.
        """
        held: list[int] = []
        for token in self._draw(tokens, num_tokens, temperature, seed):
            held.append(token)
            piece = self.tokenizer.decode(held)
            if not piece.endswith("\ufffd"):
                yield piece
                held = []
        if held:
            yield self.tokenizer.decode(held)

    def _draw(
        self, tokens: Sequence[int], num_tokens: int, temperature: float, seed: int
    ) -> Iterator[int]:
        generator = np.random.default_rng(seed)
        cache = [np.zeros(shape, np.float32) for shape in self._cache_shapes]
        news, place = list(tokens), 0
        for _ in range(num_tokens):
            inputs = [np.array([news], np.int32), np.array([place], np.int32), *cache]
            outputs = self.model.session.run(None, dict(zip(self._names, inputs, strict=True)))
            logits, cache = outputs[0][0, -1], outputs[1:]
            token = sample_token(logits, temperature, generator)
            if token == END_TOKEN:
                return
            yield token
            place, news = place + len(news), [token]


def sample_token(logits: np.ndarray, temperature: float, generator: np.random.Generator) -> int:
    """Draws a token with one uniform number; at temperature 0 takes the most probable."""
    uniform = generator.random()
    if temperature == 0:
        return int(logits.argmax())
    shifted = logits.astype(np.float64) - logits.max()
    with np.errstate(over="ignore", under="ignore"):  # a tiny temperature: minus infinity, zero
        edges = np.cumsum(np.exp(shifted / temperature))
    return int(np.searchsorted(edges, uniform * edges[-1], side="right"))
