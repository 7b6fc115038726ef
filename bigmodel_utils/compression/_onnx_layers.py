"""A language model as a graph of ONNX, one operator for each layer.

A converter of traced graphs takes a layer apart: rotary attention becomes some fifty
operators. ONNX has had operators for attention, rotary embedding and RMS normalization since
its operator set 23, so the layers of a transformer can be written as what they are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .._checks import InputError, import_extra

OPERATOR_SET = 23
FORMAT_VERSION = 11  # of the file, the first that holds operator set 23


def can_write_layers(model: Any) -> bool:
    """Whether `build_onnx_graph` knows every layer of a model.

    Example:
        >>> import keras
        >>> can_write_layers(keras.Sequential([keras.Input((2, 3)), keras.layers.GRU(1)]))
        False
    """
    return hasattr(model, "_nodes_by_depth") and not list(_find_unknown(model))


def build_onnx_graph(model: Any) -> Any:
    """Writes a functional language model layer by layer as an ONNX model.

    Args:
        model: a functional `keras.Model` from tokens `(batch, time)` to numbers, made of
            embeddings, `Dense`, normalization, `RotaryAttention`, `Add` and `Multiply`, such as
            `build_language_model`'s.

    Returns:
        An `onnx.ModelProto` of operator set 23 with free batch and time, whose output has the
        name of the model's last layer.

    Raises:
        InputError: if a layer or an activation is not known here, by name.
        MissingExtraError: if onnx is not installed.

    Limits:
        Inference only; dropout is left out. Weights are written in float32.

    Example:
        >>> from bigmodel_utils.models import LanguageModelSettings, build_language_model
        >>> settings = LanguageModelSettings(
        ...     vocabulary_size=16,
        ...     num_layers=1,
        ...     width=8,
        ...     num_heads=2,
        ...     feedforward_width=8,
        ...     context_length=4,
        ... )
        >>> model = build_language_model(settings)
        >>> graph = build_onnx_graph(model).graph                     # doctest: +SKIP
        >>> [node.op_type for node in graph.node].count("Attention")  # doctest: +SKIP
        1

    References:
        ONNX Operators, operator set 23: Attention, RotaryEmbedding, RMSNormalization
        (onnx.ai, 2025).
    """
    import_extra("onnx", extra="edge")
    unknown = list(_find_unknown(model))
    if unknown:
        raise InputError(
            "model",
            f"must be made of {', '.join(sorted(_WRITERS))}",
            ", ".join(unknown),
            "export it by its traced graph",
        )
    writer = _Writer()
    names = {id(model.inputs[0]): writer.name_input(model.inputs[0])}
    for depth in sorted(model._nodes_by_depth, reverse=True):
        for node in model._nodes_by_depth[depth]:
            layer = node.operation
            if type(layer).__name__ != "InputLayer":
                inputs = [names[id(tensor)] for tensor in node.input_tensors]
                output = _WRITERS[type(layer).__name__](writer, layer, inputs)
                names[id(node.outputs[0])] = output
    return writer.finish(names[id(model.outputs[0])], model.layers[-1].name)


@dataclass
class _Writer:
    """A graph in the making: operators, weights and the names of what flows between them."""

    nodes: list[Any] = field(default_factory=list)
    weights: dict[str, np.ndarray] = field(default_factory=dict)
    tokens: Any = None

    def name_input(self, tensor: Any) -> str:
        """Begins the graph with its input."""
        from onnx import TensorProto, helper

        self.tokens = helper.make_tensor_value_info(
            tensor.name, TensorProto.INT32, ["batch", "time"]
        )
        return str(tensor.name)

    def add(
        self, operator: str, inputs: list[str], *, output: str | None = None, **attributes: Any
    ) -> str:
        """Adds an operator and returns the name of its output."""
        from onnx import helper

        name = output or f"{operator}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, inputs, [name], name=name, **attributes))
        return name

    def split(self, tensor: str, sizes: list[int]) -> list[str]:
        """Splits the last axis into parts of the given sizes."""
        from onnx import helper

        name = f"Split_{len(self.nodes)}"
        parts = [f"{name}_{index}" for index in range(len(sizes))]
        sizes_name = self.keep(f"{name}_sizes", np.asarray(sizes, dtype=np.int64))
        self.nodes.append(
            helper.make_node("Split", [tensor, sizes_name], parts, name=name, axis=-1)
        )
        return parts

    def keep(self, name: str, array: Any) -> str:
        """Keeps a weight, once under each name."""
        import keras

        self.weights[name] = np.ascontiguousarray(keras.ops.convert_to_numpy(array))
        return name

    def finish(self, output: str, name: str) -> Any:
        """Closes the graph over its output."""
        from onnx import TensorProto, helper, numpy_helper

        self.nodes.append(helper.make_node("Identity", [output], [name], name=name))
        graph = helper.make_graph(
            self.nodes,
            "model",
            [self.tokens],
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", "time", None])],
            [numpy_helper.from_array(array, key) for key, array in self.weights.items()],
        )
        sets = [helper.make_opsetid("", OPERATOR_SET)]
        return helper.make_model(graph, opset_imports=sets, ir_version=FORMAT_VERSION)


def _write_embedding(writer: _Writer, layer: Any, inputs: list[str]) -> str:
    table = writer.keep(f"{layer.name}_table", layer.embeddings)
    return writer.add("Gather", [table, inputs[0]])


def _write_reversible(writer: _Writer, layer: Any, inputs: list[str]) -> str:
    if inputs[0] == writer.tokens.name:
        return _write_embedding(writer, layer, inputs)
    import keras

    # A table of its own, turned once and for all: a product by its rows would be turned anew
    # at each call.
    turned = keras.ops.convert_to_numpy(layer.embeddings).T
    return writer.add("MatMul", [inputs[0], writer.keep(f"{layer.name}_turned", turned)])


def _write_dense(writer: _Writer, layer: Any, inputs: list[str]) -> str:
    flow = writer.add("MatMul", [inputs[0], writer.keep(f"{layer.name}_kernel", layer.kernel)])
    if layer.use_bias:
        flow = writer.add("Add", [flow, writer.keep(f"{layer.name}_bias", layer.bias)])
    return _ACTIVATIONS[layer.activation.__name__](writer, flow)


def _write_activation(writer: _Writer, layer: Any, inputs: list[str]) -> str:
    return _ACTIVATIONS[layer.activation.__name__](writer, inputs[0])


def _write_rms(writer: _Writer, layer: Any, inputs: list[str]) -> str:
    scale = writer.keep(f"{layer.name}_scale", layer.scale)
    return writer.add("RMSNormalization", [inputs[0], scale], axis=-1, epsilon=layer.epsilon)


def _write_layer_norm(writer: _Writer, layer: Any, inputs: list[str]) -> str:
    scale = writer.keep(f"{layer.name}_scale", layer.gamma)
    shift = writer.keep(f"{layer.name}_shift", layer.beta)
    return writer.add(
        "LayerNormalization", [inputs[0], scale, shift], axis=-1, epsilon=layer.epsilon
    )


def _write_attention(writer: _Writer, layer: Any, inputs: list[str]) -> str:
    heads = {"q_num_heads": layer.num_heads, "kv_num_heads": layer.num_key_value_heads}
    widths = [layer.head_width * count for count in (*heads.values(), layer.num_key_value_heads)]
    query, key, value = writer.split(inputs[0], widths)
    tables = [
        writer.keep(f"{layer.name}_{name}", turn[:, 0].astype(np.float32))
        for name, turn in zip(("cosine", "sine"), layer._turns, strict=True)
    ]
    places = _write_places(writer)
    query, key = (
        writer.add("RotaryEmbedding", [part, *tables, places], num_heads=count)
        for part, count in zip((query, key), heads.values(), strict=True)
    )
    return writer.add("Attention", [query, key, value], is_causal=1, **heads)


def _write_places(writer: _Writer) -> str:
    """Places of the tokens, `(batch, time)`: written at the first attention, shared by all."""
    name = "places"
    if not any(name in node.output for node in writer.nodes):
        ones = writer.keep("one", np.asarray(1, dtype=np.int64))
        shape = writer.add("Shape", [writer.tokens.name])
        ranks = writer.add("Expand", [ones, shape])
        axis = writer.keep("axis", np.asarray(1, dtype=np.int64))
        writer.add("CumSum", [ranks, axis], output=name, exclusive=1)
    return name


def _write_add(writer: _Writer, _layer: Any, inputs: list[str]) -> str:
    return _fold(writer, "Add", inputs)


def _write_multiply(writer: _Writer, _layer: Any, inputs: list[str]) -> str:
    return _fold(writer, "Mul", inputs)


def _fold(writer: _Writer, operator: str, inputs: list[str]) -> str:
    flow = inputs[0]
    for other in inputs[1:]:
        flow = writer.add(operator, [flow, other])
    return flow


def _write_nothing(_writer: _Writer, _layer: Any, inputs: list[str]) -> str:
    return inputs[0]


def _write_silu(writer: _Writer, flow: str) -> str:
    return writer.add("Mul", [flow, writer.add("Sigmoid", [flow])])


_LayerWriter = Callable[[_Writer, Any, list[str]], str]
_WRITERS: dict[str, _LayerWriter] = {
    "Activation": _write_activation,
    "Add": _write_add,
    "Dense": _write_dense,
    "Dropout": _write_nothing,
    "Embedding": _write_embedding,
    "LayerNormalization": _write_layer_norm,
    "Multiply": _write_multiply,
    "RMSNormalization": _write_rms,
    "ReversibleEmbedding": _write_reversible,
    "RotaryAttention": _write_attention,
}
_ACTIVATIONS: dict[str, Callable[[_Writer, str], str]] = {
    "linear": lambda _writer, flow: flow,
    "relu": lambda writer, flow: writer.add("Relu", [flow]),
    "silu": _write_silu,
    "softmax": lambda writer, flow: writer.add("Softmax", [flow], axis=-1),
    "approximate_gelu": lambda writer, flow: writer.add("Gelu", [flow], approximate="tanh"),
    "gelu": lambda writer, flow: writer.add("Gelu", [flow]),
}


def _find_unknown(model: Any) -> Iterator[str]:
    """Layers that cannot be written, with their class and, if it is to blame, activation."""
    for layer in model.layers:
        kind = type(layer).__name__
        if kind == "InputLayer":
            continue
        activation = getattr(getattr(layer, "activation", None), "__name__", "linear")
        is_quantized = getattr(layer, "quantization_mode", None) is not None
        is_plain = getattr(layer, "axis", -1) in (-1, [-1]) or not kind.endswith("Normalization")
        if kind not in _WRITERS or is_quantized or activation not in _ACTIVATIONS or not is_plain:
            yield f"{layer.name!r} ({kind}, {activation})"
