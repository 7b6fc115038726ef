"""How long an LSTM keeps what it holds, set before the first step of training."""

from __future__ import annotations

import math
from typing import Any

import keras
import numpy as np

from .._checks import InputError, check_integer, check_real


@keras.saving.register_keras_serializable(package="bigmodel_utils")
class ForgetBias(keras.initializers.Initializer):  # type: ignore[misc]
    r"""Initializer of an LSTM's bias under which its cells last as long as is asked.

    A cell is multiplied by its forget gate :math:`\sigma(b)` at every step, so after `n`
    steps :math:`\sigma(b)^n` of it is left. The bias `b` here makes that `kept`; for
    `kept` = 1/e it is close to :math:`\ln n`. The other gates begin at zero. To be passed
    as `bias_initializer`, with `unit_forget_bias=False`, which would add one to it.

    Args:
        distance: steps over which a cell is to last, at least 1.
        kept: share of the cell that is left after them, between 0 and 1.

    Attributes:
        bias: the bias of the forget gate.

    Raises:
        InputError: if `distance` is below 1 or `kept` is not between 0 and 1.

    Limits:
        Holds before training, and as far as inputs and the state move the gate little.

    Example:
        >>> round(ForgetBias(100).bias, 2), round(math.log(100), 2)
        (4.6, 4.61)
        >>> layer = keras.layers.LSTM(
        ...     8, unit_forget_bias=False, bias_initializer=ForgetBias(100))
        >>> layer(np.zeros((1, 3, 2), "float32")).shape == (1, 8)
        True

    References:
        Tallec and Ollivier, Can Recurrent Neural Networks Warp Time?, ICLR 2018, section 3,
        which draws the distance of each cell at random; Gers, Schmidhuber and Cummins,
        Learning to Forget, Neural Computation 12, 2000.
    """

    def __init__(self, distance: int, *, kept: float = math.exp(-1)) -> None:
        self.distance = check_integer("distance", distance, at_least=1)
        self.kept = check_real("kept", kept)
        if not 0 < self.kept < 1:
            raise InputError("kept", "must lie between 0 and 1", kept, "pass a share such as 0.5")
        # The logit of the gate kept ** (1 / distance), without the rounding of 1 minus it.
        per_step = math.log(self.kept) / self.distance
        self.bias = per_step - math.log(-math.expm1(per_step))

    def __call__(self, shape: tuple[int, ...], dtype: Any = None) -> Any:
        """Makes the bias of an LSTM; its gates stand in the order input, forget, cell, output."""
        if len(shape) != 1 or shape[0] % 4:
            raise InputError(
                "shape", "must be that of an LSTM's bias, (4 · units,)", shape, "use it there"
            )
        bias = np.zeros((4, shape[0] // 4))
        bias[1] = self.bias
        return keras.ops.convert_to_tensor(bias.ravel(), dtype=dtype or keras.config.floatx())

    def get_config(self) -> dict[str, Any]:
        """Returns what makes an equal initializer; called by Keras when it saves a model."""
        return {"distance": self.distance, "kept": self.kept}
