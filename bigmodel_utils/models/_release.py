"""Whether the file that is released predicts what the report was computed from."""

from __future__ import annotations

from os import PathLike
from typing import Any

import numpy as np

from .._checks import InputError, check_array


def measure_release_difference(path: str | PathLike[str], x: Any, *, predictions: Any) -> float:
    """Largest difference between the predictions of a report and those of a saved model.

    The file is loaded anew and predicts in inference mode. A state that was not saved, dropout
    that was left on, and inputs prepared in another way all show as a difference.

    Args:
        path: the model as it is released, written by `model.save`, ending in `.keras`.
        x: examples as the service will pass them, of shape `(num_examples, …)`.
        predictions: what the report was computed from, for the same examples in the same
            order, of shape `(num_examples, …)`.

    Returns:
        The largest absolute difference over examples and outputs, in the output's unit.

    Raises:
        InputError: if an array is empty or not finite, or the file's output has another shape
            than `predictions`.

    Limits:
        Compares in this process, so that what the code itself holds stays the same: load the
        file where it will serve, too. Custom layers must be registered with Keras.

    Example:
        >>> import tempfile
        >>> from bigmodel_utils.models import build_small_image_classifier
        >>> model, x = build_small_image_classifier(), np.zeros((2, 28, 28, 1), "float32")
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     model.save(f"{folder}/model.keras")
        ...     difference = measure_release_difference(
        ...         f"{folder}/model.keras", x, predictions=model.predict_on_batch(x))
        >>> difference < 1e-5
        True
    """
    import keras

    examples = check_array("x", x)
    stated = check_array("predictions", predictions)
    released = keras.saving.load_model(path, compile=False)
    served = np.asarray(released(examples, training=False), dtype=np.float64)
    if served.shape != stated.shape:
        raise InputError(
            "predictions",
            f"must have shape {served.shape}, that of the file's output",
            f"shape {stated.shape}",
            "pass what the model predicted for `x`, before any rounding or choice of a class",
        )
    return float(np.abs(served - stated).max())
