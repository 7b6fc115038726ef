"""Which channels of a network belong together, so that they are kept or cut as one.

Every channel of every tensor in the graph gets a label. Where an operation ties channels
together, as an addition does, their labels are united. What remains are units: sets of labels
that can be cut without touching the rest. A channel of which an operation cannot say what it
becomes is held, with the reason.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

Labels = np.ndarray
Shape = tuple[int | None, ...]
Cut = dict[int, Labels]
"""For the axes of a weight that run over channels, the labels of these channels."""


@dataclass
class ChannelMap:
    """The labels of a network.

    Attributes:
        cuts: layer to the labels of its weights' axes, one entry per weight.
        uses: layer to the labels of its first use: those of its inputs, and of its output.
        producers: layers that make new channels, in the order of the graph.
        held: label of a unit that must stay to the reason.
        parents: label to the label it was united with.
    """

    cuts: dict[str, list[Cut]] = field(default_factory=dict)
    uses: dict[str, tuple[list[Labels], Labels]] = field(default_factory=dict)
    producers: list[str] = field(default_factory=list)
    held: dict[int, str] = field(default_factory=dict)
    parents: list[int] = field(default_factory=list)

    def make(self, count: int) -> Labels:
        """Returns that many new labels."""
        first = len(self.parents)
        self.parents.extend(range(first, first + count))
        return np.arange(first, first + count)

    def find(self, label: int) -> int:
        """The label that stands for all that are united with this one."""
        while self.parents[label] != label:
            self.parents[label] = self.parents[self.parents[label]]
            label = self.parents[label]
        return label

    def find_all(self, labels: Labels) -> Labels:
        """`find` of each label."""
        return np.array([self.find(label) for label in labels], dtype=np.int64)

    def unite(self, first: Labels, second: Labels) -> None:
        """Unites labels pair by pair."""
        for one, other in zip(first.tolist(), second.tolist(), strict=True):
            one_root, other_root = self.find(one), self.find(other)
            if one_root != other_root:
                self.parents[other_root] = one_root
                if other_root in self.held:
                    self.held.setdefault(one_root, self.held.pop(other_root))

    def hold(self, labels: Labels, reason: str) -> Labels:
        """Marks units as ones that must stay."""
        for root in np.unique(self.find_all(labels)).tolist():
            self.held.setdefault(root, reason)
        return labels


def map_channels(model: Any) -> ChannelMap:
    """Labels the channels of a functional or sequential model: the last axis of each tensor."""
    graph = getattr(model, "_functional", model)
    channels = ChannelMap()
    labels: dict[int, Labels] = {}
    for depth in sorted(graph._nodes_by_depth, reverse=True):
        for node in graph._nodes_by_depth[depth]:
            inputs = [labels[id(tensor)] for tensor in node.input_tensors]
            step = _Step(channels, node.operation, inputs, [t.shape for t in node.input_tensors])
            for tensor in node.outputs:
                labels[id(tensor)] = _follow(step, tensor.shape)
    for tensor in graph.outputs:
        channels.hold(labels[id(tensor)], "it is an output of the model")
    return channels


@dataclass(frozen=True)
class _Step:
    """One use of a layer: what flows in, and where it is written down."""

    channels: ChannelMap
    layer: Any
    inputs: list[Labels]
    shapes: list[tuple[int | None, ...]]

    def produce(self, count: int) -> Labels:
        """New channels, which the layer makes."""
        self.channels.producers.append(self.layer.name)
        return self.channels.make(count)

    def cut(self, *cuts: Cut) -> None:
        """Notes the axes of the layer's weights, a bias that is not there left out."""
        self.channels.cuts[self.layer.name] = list(cuts[: len(self.layer.weights)])

    def hold(self, reason: str, shape: Shape) -> Labels:
        """Holds what flows in and what comes out."""
        for labels in self.inputs:
            self.channels.hold(labels, reason)
        return self.channels.hold(self.channels.make(_count(shape)), reason)


def _follow(step: _Step, shape: Shape) -> Labels:
    """Labels of a layer's output."""
    channels, name, kind = step.channels, step.layer.name, type(step.layer).__name__
    if not step.inputs:
        return step.hold("it is an input of the model", shape)
    if kind not in _RULES:
        return step.hold(f"{name!r} is a {kind}, which cannot be rewired", shape)
    if getattr(step.layer, "data_format", None) == "channels_first":
        return step.hold(f"{name!r} has its channels first", shape)
    if name in channels.cuts:  # used again: its channels are those of its first use
        inputs, output = channels.uses[name]
        for known, here in zip(inputs, step.inputs, strict=True):
            channels.unite(known, here)
        return output
    output = _RULES[kind](step, shape)
    channels.uses.setdefault(name, (step.inputs, output))
    return output


def _pass(step: _Step, shape: Shape) -> Labels:
    labels = step.inputs[0]
    if getattr(getattr(step.layer, "activation", None), "__name__", "") in _MIXING:
        return step.hold(f"{step.layer.name!r} mixes its channels", shape)
    return labels


def _dense(step: _Step, shape: Shape) -> Labels:
    if getattr(step.layer, "groups", 1) != 1:
        return step.hold(f"{step.layer.name!r} is convolved in groups", shape)
    output = step.produce(_count(shape))
    kernel = step.layer.weights[0]
    axis = len(kernel.shape) - 2
    step.cut({axis: step.inputs[0], axis + 1: output}, {0: output})
    if step.layer.activation.__name__ in _MIXING:
        step.channels.hold(output, f"the activation of {step.layer.name!r} mixes its channels")
    return output


def _depthwise(step: _Step, _shape: Shape) -> Labels:
    axis = len(step.layer.weights[0].shape) - 2
    output = np.repeat(step.inputs[0], step.layer.depth_multiplier)
    step.cut({axis: step.inputs[0]}, {0: output})
    return output


def _separable(step: _Step, shape: Shape) -> Labels:
    axis = len(step.layer.weights[0].shape) - 2
    inner = np.repeat(step.inputs[0], step.layer.depth_multiplier)
    output = step.produce(_count(shape))
    step.cut({axis: step.inputs[0]}, {axis: inner, axis + 1: output}, {0: output})
    return output


def _normalize_channel(step: _Step, shape: Shape) -> Labels:
    if step.layer.axis not in (-1, len(shape) - 1):
        return step.hold(f"{step.layer.name!r} has its channels first", shape)
    step.cut(*[{0: step.inputs[0]}] * len(step.layer.weights))
    return step.inputs[0]


def _normalize_together(step: _Step, shape: Shape) -> Labels:
    return step.hold(f"{step.layer.name!r} normalizes all its channels together", shape)


def _unite(step: _Step, shape: Shape) -> Labels:
    first, *others = step.inputs
    if any(len(labels) != len(first) for labels in others):
        return step.hold(f"{step.layer.name!r} combines tensors of unequal width", shape)
    for labels in others:
        step.channels.unite(first, labels)
    return first


def _concatenate(step: _Step, shape: Shape) -> Labels:
    if step.layer.axis in (-1, len(shape) - 1):
        return np.concatenate(step.inputs)
    return _unite(step, shape)


def _flatten(step: _Step, shape: Shape) -> Labels:
    return np.tile(step.inputs[0], _count(shape) // len(step.inputs[0]))


def _reshape(step: _Step, shape: Shape) -> Labels:
    if shape[-1] != step.shapes[0][-1]:
        return step.hold(f"{step.layer.name!r} moves numbers between channels", shape)
    return step.inputs[0]


def _attend(step: _Step, _shape: Shape) -> Labels:
    """One unit for each head of keys: its queries, its key, its value, what comes out of it."""
    layer, labels = step.layer, step.inputs[0]
    width, num_groups = layer.head_width, layer.num_key_value_heads
    query = layer.num_heads // num_groups * width
    queries, keys, values = np.split(
        labels, [layer.num_heads * width, (layer.num_heads + num_groups) * width]
    )
    for group in range(num_groups):
        part = slice(group * width, (group + 1) * width)
        members = np.concatenate(
            [queries[group * query : (group + 1) * query], keys[part], values[part]]
        )
        step.channels.unite(np.repeat(members[:1], len(members)), members)
    return queries


def _count(shape: Shape) -> int:
    return int(shape[-1] or 0) if len(shape) > 1 else 1


Rule = Callable[[_Step, Shape], Labels]
_MIXING = frozenset({"softmax", "log_softmax", "glu", "sparsemax", "sparse_plus"})
_PASSING = """Activation ReLU LeakyReLU ELU Dropout SpatialDropout1D SpatialDropout2D
    SpatialDropout3D GaussianNoise GaussianDropout Identity MaxPooling1D MaxPooling2D MaxPooling3D
    AveragePooling1D AveragePooling2D AveragePooling3D GlobalAveragePooling1D
    GlobalAveragePooling2D GlobalAveragePooling3D GlobalMaxPooling1D GlobalMaxPooling2D
    GlobalMaxPooling3D UpSampling1D UpSampling2D UpSampling3D ZeroPadding1D ZeroPadding2D
    ZeroPadding3D Cropping1D Cropping2D Cropping3D"""
_RULES: dict[str, Rule] = {
    **dict.fromkeys(_PASSING.split(), _pass),
    **dict.fromkeys(("Add", "Multiply", "Subtract", "Average", "Maximum", "Minimum"), _unite),
    **dict.fromkeys(("Dense", "Conv1D", "Conv2D", "Conv3D"), _dense),
    **dict.fromkeys(("DepthwiseConv1D", "DepthwiseConv2D"), _depthwise),
    **dict.fromkeys(("SeparableConv1D", "SeparableConv2D"), _separable),
    **dict.fromkeys(("LayerNormalization", "RMSNormalization"), _normalize_together),
    **dict.fromkeys(("GroupNormalization", "UnitNormalization"), _normalize_together),
    "BatchNormalization": _normalize_channel,
    "Concatenate": _concatenate,
    "Flatten": _flatten,
    "Reshape": _reshape,
    "RotaryAttention": _attend,
}
