"""What share of a device a run uses, against a count by hand."""

import keras
import pytest

from bigmodel_utils import costs, hardware, models
from bigmodel_utils._checks import InputError

DEVICE = hardware.find_device_spec("NVIDIA H100 SXM")
SETTINGS = models.LanguageModelSettings(
    vocabulary_size=50,
    num_layers=2,
    width=8,
    num_heads=2,
    feedforward_width=16,
    context_length=10,
)


def test_a_language_model_agrees_with_the_equation():
    model = models.build_language_model(SETTINGS)
    found = costs.estimate_utilization(
        model, DEVICE, examples_per_second=1e6, precision="mixed_bfloat16", length=10
    )
    matrices = 50 * 8 + 2 * (4 * 8 * 8 + 3 * 8 * 16)
    attention = 2 * 2 * 10 * 8  # scores and mixing: ten keys for each token, two layers
    by_hand = 3 * 2 * 10 * (matrices + attention) * 1e6 / 989.5e12
    assert found == pytest.approx(by_hand)


def test_speed_and_format_scale_it():
    model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4)])
    slow = costs.estimate_utilization(model, DEVICE, examples_per_second=1e6)
    fast = costs.estimate_utilization(model, DEVICE, examples_per_second=2e6)
    half = costs.estimate_utilization(
        model, DEVICE, examples_per_second=1e6, precision="mixed_float16"
    )
    assert fast == pytest.approx(2 * slow)
    assert half == pytest.approx(slow * 67 / 989.5)


class Unknown(keras.layers.Layer):
    """A layer with operations of its own."""

    def call(self, x):
        return keras.ops.matmul(x, keras.ops.transpose(x))


def build_unknown():
    return keras.Sequential([keras.Input((4,), batch_size=4), Unknown()])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"examples_per_second": 0}, "`examples_per_second` must be positive"),
        ({"precision": "int8"}, "`precision` must be one of"),
        ({"device": hardware.find_device_spec("Tesla T4"), "precision": "mixed_bfloat16"}, "`dev"),
        ({"model": build_unknown}, "`model` must consist of layers that can be counted"),
    ],
)
def test_bad_input_gets_one_clear_error(change, message):
    options = {
        "model": lambda: keras.Sequential([keras.Input((8,)), keras.layers.Dense(4)]),
        "device": DEVICE,
        "examples_per_second": 1.0,
        **change,
    }
    model, device = options.pop("model")(), options.pop("device")
    with pytest.raises(InputError, match=rf"{message}.* Received: .* Fix: "):
        costs.estimate_utilization(model, device, **options)
