"""A model from a file, whatever runs it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .. import models
from .._checks import InputError
from ..compression import load_runner
from ..models import load_model_safely

BATCH_SIZE = 64
_KERAS, _EXPORTED = ".keras", (".onnx", ".tflite")


@dataclass(frozen=True)
class AuditedModel:
    """A model that answers, and the Keras model behind it where there is one.

    Attributes:
        path: the file.
        run: function from inputs `(batch, …)` to outputs `(batch, …)`.
        keras_model: the model; `None` for an exported file.
    """

    path: Path
    run: Callable[[np.ndarray], Any]
    keras_model: Any | None

    def predict_on_batch(self, x: np.ndarray) -> np.ndarray:
        """Outputs for one batch as float64, in inference mode."""
        return np.asarray(self.run(x), dtype=np.float64)

    def predict(self, x: np.ndarray, *, batch_size: int = BATCH_SIZE) -> np.ndarray:
        """Outputs for any number of inputs as float64."""
        starts = range(0, len(x), batch_size)
        return np.concatenate([self.predict_on_batch(x[i : i + batch_size]) for i in starts])


def load_audited_model(path: str | Path) -> AuditedModel:
    """Loads a `.keras`, `.onnx` or `.tflite` file without running code that it holds.

    Args:
        path: the file.

    Returns:
        The model.

    Raises:
        InputError: if the file is not there, of another kind, or not safe to load.
        MissingExtraError: if the runtime of an exported file is not installed.

    Example:
        >>> load_audited_model("model.keras")  # doctest: +SKIP
    """
    file = Path(path)
    if not file.is_file() or file.suffix not in (_KERAS, *_EXPORTED):
        raise InputError(
            "path",
            f"must be a file that ends in {', '.join((_KERAS, *_EXPORTED))}",
            f"{file}{'' if file.is_file() else ', which is not there'}",
            "save or export the model first",
        )
    if file.suffix in _EXPORTED:
        return AuditedModel(file, load_runner(file), None)
    import keras

    # The layers of this package's own models.
    known = keras.saving.get_custom_objects().values()
    own = [kind for kind in known if kind.__module__.startswith(models.__name__)]
    model = load_model_safely(file, custom_objects=own)

    def run(x: np.ndarray) -> Any:
        return keras.ops.convert_to_numpy(model(x, training=False))

    return AuditedModel(file, run, model)
