"""How much of a device a training run uses: the operations it needs over those it could do."""

from __future__ import annotations

from typing import Any

from .._checks import InputError, check_choice, check_real
from ..hardware import DeviceSpec
from ._layers import estimate_flops

FORMATS = {"float32": "float32", "mixed_bfloat16": "bfloat16", "mixed_float16": "float16"}
"""The format that products are made in under each Keras dtype policy."""


def estimate_utilization(
    model: Any,
    device: DeviceSpec,
    *,
    examples_per_second: float,
    precision: str = "float32",
    length: int | None = None,
) -> float:
    r"""Estimates the share of a device's peak that training a Keras model makes use of.

    A step needs three times the products of a forward pass, one part forward and two
    backward. At :math:`r` examples per second, with :math:`F` operations of a forward pass
    per example and a peak of :math:`P`, the utilization is :math:`3 F r / P`.

    Args:
        model: the Keras model that was trained.
        device: its peak rates, from `hardware.find_device_spec` or `measure_cpu_rates`.
        examples_per_second: speed of the training, such as that of a `TrainingRun`.
        precision: Keras dtype policy of the training.
        length: stands for every dimension of the inputs, besides the batch, that is `None`.

    Returns:
        The share, from 0 to about 1.

    Raises:
        InputError: if the speed is not positive, the device has no stated peak in that
            format, or a layer of the model cannot be counted.

    Limits:
        Operations that are computed again to save memory count for nothing, and elementwise
        ones are left out. Against a CPU's measured rate the share can exceed 1.

    Example:
        >>> import keras
        >>> from bigmodel_utils.hardware import DeviceSpec
        >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4)])
        >>> device = DeviceSpec("Mine", "gpu", None, 1e9, {"float32": 1e6}, "my notes")
        >>> round(estimate_utilization(model, device, examples_per_second=1000), 3)
        0.192

    References:
        Chowdhery et al., PaLM (2022), section 4.1 and appendix B: model FLOPs utilization.
    """
    check_choice("precision", precision, tuple(FORMATS))
    if check_real("examples_per_second", examples_per_second) <= 0:
        raise InputError(
            "examples_per_second", "must be positive", examples_per_second, "measure it first"
        )
    peak = device.peak_flops.get(FORMATS[precision])
    if peak is None:
        raise InputError(
            "device",
            f"must have a stated peak in {FORMATS[precision]}",
            f"{device.name} with {sorted(device.peak_flops)}",
            "pass a DeviceSpec that states it",
        )
    flops = estimate_flops(model, length=length)
    if flops.not_counted:
        raise InputError(
            "model",
            "must consist of layers that can be counted",
            f"layers {list(flops.not_counted)}",
            "count these by hand and use their sum",
        )
    return 3 * flops.total * examples_per_second / peak
