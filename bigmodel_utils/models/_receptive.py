"""How much of the input a unit of a convolutional network can see."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from .._checks import InputError

# Layers by the names of their window's size and step; these have no window.
_POINTWISE = {"Activation", "BatchNormalization", "Dropout", "LeakyReLU", "PReLU", "ReLU"}
_POINTWISE |= {"InputLayer", "LayerNormalization", "Rescaling", "SpatialDropout2D", "ZeroPadding2D"}
_WINDOWED = {"Conv2D": "kernel_size", "DepthwiseConv2D": "kernel_size"}
_WINDOWED |= {"SeparableConv2D": "kernel_size"}
_WINDOWED |= {"MaxPooling2D": "pool_size", "AveragePooling2D": "pool_size"}
# Behind these every unit sees everything.
_END = {"Flatten", "GlobalAveragePooling2D", "GlobalMaxPooling2D"}


@dataclass(frozen=True)
class ReceptiveField:
    """What one unit of a layer can see.

    Attributes:
        layer: the layer's name.
        size: height and width of the part of the input, in pixels.
        stride: pixels of the input between neighbours of the layer, down and to the right.
    """

    layer: str
    size: tuple[int, int]
    stride: tuple[int, int]

    def to_dict(self) -> dict[str, Any]:
        """Returns the fields as a plain dictionary."""
        return asdict(self)


def count_receptive_field(model: Any) -> tuple[ReceptiveField, ...]:
    r"""Counts the pixels that a unit of each layer can see, by the formula.

    A layer with windows of `k` positions that are `d` apart and move by `s` makes a field of
    :math:`r_l = r_{l-1} + d\,(k - 1)\,j_{l-1}` pixels, with neighbours
    :math:`j_l = s\, j_{l-1}` pixels apart.

    Args:
        model: a Keras model whose layers follow one another, up to the layer behind which
            every unit sees everything, such as `Flatten`.

    Returns:
        The field of every convolution and pooling, in their order.

    Raises:
        InputError: if a layer is not known here, such as one that joins two branches.

    Limits:
        An upper bound, reached only if no weight on the way is zero. How much of it matters
        is another question: the gradient is concentrated in its middle.

    Example:
        >>> from bigmodel_utils.models import build_small_image_classifier
        >>> [field.size[0] for field in count_receptive_field(build_small_image_classifier())]
        [3, 4, 8, 10]

    References:
        Araujo, Norris and Sim, Computing Receptive Fields of Convolutional Neural Networks,
        Distill 4, 2019; Luo et al., Understanding the Effective Receptive Field in Deep
        Convolutional Neural Networks, NIPS 2016.
    """
    fields: list[ReceptiveField] = []
    size, stride = (1, 1), (1, 1)
    for layer in model.layers:
        kind = type(layer).__name__
        if kind in _END:
            break
        if kind in _POINTWISE:
            continue
        if kind not in _WINDOWED:
            known = ", ".join(sorted(_WINDOWED))
            raise InputError("model", "must have known layers", f"{kind} {layer.name!r}", known)
        window = getattr(layer, _WINDOWED[kind])
        gaps = getattr(layer, "dilation_rate", (1, 1))
        size = _combine(lambda r, k, d, j: r + d * (k - 1) * j, size, window, gaps, stride)
        stride = _combine(lambda j, s: j * s, stride, layer.strides)
        fields.append(ReceptiveField(layer.name, size, stride))
    return tuple(fields)


def _combine(rule: Any, *pairs: Any) -> tuple[int, int]:
    down, right = (int(rule(*numbers)) for numbers in zip(*pairs, strict=True))
    return down, right
