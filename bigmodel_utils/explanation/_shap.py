"""The library `shap`, without the warnings and the traces that it leaves in a process."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

import numpy as np

from .._checks import import_extra


def import_shap() -> ModuleType:
    """Imports shap without the warnings of what it is built on."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return import_extra("shap", extra="explain")


@contextmanager
def keep_random_state(seed: int) -> Iterator[None]:
    """Seeds NumPy's process-wide generator, which shap draws from, and puts it back."""
    state = np.random.get_state()  # noqa: NPY002
    try:
        np.random.seed(seed)  # noqa: NPY002
        yield
    finally:
        np.random.set_state(state)  # noqa: NPY002
