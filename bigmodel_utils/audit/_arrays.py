"""The data of an audit: arrays by name, from one file."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import numpy as np

from .._checks import InputError, check_array, check_choice, check_same_length

ARRAYS = MappingProxyType(
    {
        "x_test": "inputs of the test set, one per row",
        "y_test": "class numbers of the test set",
        "groups_test": "name or number of the group that each test example belongs to",
        "predictions_test": "probabilities behind the metric that is released",
        "x_training": "inputs that the model learned from",
        "y_training": "their class numbers",
        "probabilities_training": "probabilities for them by models that did not learn from them",
        "x_validation": "inputs that chose a checkpoint, a model or a setting",
        "x_service": "inputs that the service has met",
    }
)
"""What an audit can use, by the name under which it is looked for; `x_test` is required."""


def load_arrays(path: str | Path) -> Mapping[str, np.ndarray]:
    """Loads the arrays of an audit from a file of `numpy.savez`.

    Args:
        path: the file; its arrays have names from `ARRAYS`.

    Returns:
        The arrays by name.

    Raises:
        InputError: if the file is no such file, an array has an unknown name, holds Python
            objects, is empty or not finite, or if arrays that belong together differ in
            length.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     np.savez(f"{folder}/data.npz", x_test=np.zeros((3, 2)), y_test=[0, 1, 1])
        ...     sorted(load_arrays(f"{folder}/data.npz"))
        ['x_test', 'y_test']
    """
    file = Path(path)
    try:
        # NumPy leaves the file open that it cannot read.
        with file.open("rb") as stream, np.load(stream, allow_pickle=False) as stored:
            if not isinstance(stored, np.lib.npyio.NpzFile):
                raise ValueError("a single array")
            arrays = {check_choice("data", name, ARRAYS): stored[name] for name in stored}
    except InputError:
        raise
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(
            "data",
            "must be a file of `numpy.savez` without Python objects",
            f"{file}: {error}",
            f"write one with arrays named {', '.join(ARRAYS)}",
        ) from error
    return _check_arrays(arrays)


def _check_arrays(arrays: dict[str, np.ndarray]) -> Mapping[str, np.ndarray]:
    if "x_test" not in arrays:
        raise InputError(
            "data", "must hold x_test", ", ".join(arrays) or "no array", "add the test inputs"
        )
    for name, array in arrays.items():
        if name != "groups_test":
            check_array(name, array)
    for inputs, *others in (
        ("x_test", "y_test", "groups_test", "predictions_test"),
        ("x_training", "y_training", "probabilities_training"),
    ):
        together = {name: arrays[name] for name in (inputs, *others) if name in arrays}
        if together:
            check_same_length(**together)
    for name, array in arrays.items():
        if name.startswith("x_"):
            wanted = arrays["x_test"].shape[1:]
            check_array(name, array, shape=(None, *wanted))
    return MappingProxyType(arrays)
