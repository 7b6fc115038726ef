"""What only the environment without TensorFlow can show."""

import importlib.util

import keras
import pytest

pytestmark = pytest.mark.skipif(
    keras.backend.backend() != "jax", reason="runs in the part `jax` of the suite"
)


def test_there_is_no_tensorflow_to_fall_back_on():
    assert importlib.util.find_spec("tensorflow") is None
    assert importlib.util.find_spec("torch") is None
