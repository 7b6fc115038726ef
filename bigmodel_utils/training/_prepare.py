"""A model ready to train: from the seed, under its precision, with all its variables."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from ._settings import Examples, TrainingSettings


def build_seeded(build_model: Callable[[], Any], settings: TrainingSettings) -> Any:
    """Builds a model from the seed and under the precision of the settings."""
    import keras

    keras.utils.set_random_seed(settings.seed)
    with _dtype_policy(settings.precision):
        return build_model()


def make_variables(model: Any, examples: Examples) -> list[str]:
    """Makes the variables of optimizer and metrics, which Keras would make on first use.

    An evaluation makes those of the metrics. It changes no weight and draws no random number.

    Returns:
        Names of the model's metrics, `"loss"` among them.
    """
    x, y = examples
    model.optimizer.build(model.trainable_variables)
    names = list(model.test_on_batch(x, y, return_dict=True))
    model.reset_metrics()
    return names


@contextmanager
def _dtype_policy(name: str) -> Iterator[None]:
    import keras

    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(name)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)
