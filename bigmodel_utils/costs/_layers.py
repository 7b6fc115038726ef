"""Operations of a Keras model, counted layer by layer as a traced pass meets them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from typing import Any

from .._checks import InputError, check_integer
from .._report import Report, format_count

Shape = tuple[int, ...]
Rule = Callable[[Any, list[Shape], Shape], int]


@dataclass(frozen=True)
class LayerFlops(Report):
    """Operations of one forward pass of a Keras model: its products and convolutions.

    Attributes:
        layers: operations by layer; a layer that is used twice counts twice.
        not_counted: layers whose operations are not known; what they do is missing above.
    """

    layers: dict[str, int]
    not_counted: tuple[str, ...]

    @property
    def total(self) -> int:
        """Operations of the layers that are counted."""
        return sum(self.layers.values())

    def _list_rows(self) -> list[tuple[str, str]]:
        rows = {name: flops for name, flops in self.layers.items() if flops}
        rows["total"] = self.total
        shown = [(name, format_count(flops)) for name, flops in rows.items()]
        return [*shown, ("not counted", ", ".join(self.not_counted) or "none")]


def estimate_flops(model: Any, *, batch_size: int = 1, length: int | None = None) -> LayerFlops:
    r"""Estimates the operations of a Keras model's forward pass, layer by layer.

    The model is traced on inputs of a given shape, without being run, and each layer is
    counted by its equation: a `Dense` layer from `n` to `m` numbers does `2nm` operations per
    vector, a convolution `2knm` per output position with a kernel of `k` positions.

    Args:
        model: a Keras model of any kind, whose inputs have a known shape.
        batch_size: examples in the batch.
        length: stands for every dimension of the inputs, besides the batch, that is `None`.

    Returns:
        The operations of products and convolutions by layer, and the layers that could not be
        counted by name.

    Raises:
        InputError: if the shapes of the inputs are not known, or `length` is missing.

    Limits:
        Elementwise operations are left out. Counts what is computed before masking and
        skipping. Known are the layers of Keras that most models are made of and
        `RotaryAttention`; a layer or a subclassed model with operations of its own is named,
        while the known layers inside it count. Convolutions with `"same"` padding count the
        padding too, as compilers do.

    Example:
        >>> import keras
        >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4)])
        >>> estimate_flops(model, batch_size=2).total == 2 * 2 * 8 * 4
        True

    References:
        Molchanov et al., Pruning Convolutional Neural Networks for Resource Efficient
        Inference (2017), appendix A.1; Hochreiter and Schmidhuber, Long Short-Term Memory
        (1997), for the gates.
    """
    import keras

    size = check_integer("batch_size", batch_size, at_least=1)
    if not getattr(model, "inputs", None):
        raise InputError(
            "model",
            "must have inputs of a known shape",
            f"{type(model).__name__} without inputs",
            "make it functional or sequential with `keras.Input`",
        )
    inputs = [
        keras.KerasTensor((size, *_fill(tensor.shape[1:], length)), dtype=tensor.dtype)
        for tensor in model.inputs
    ]
    is_sequential = isinstance(model, keras.Sequential)
    packed = inputs[0] if is_sequential else keras.tree.pack_sequence_as(model.input, inputs)
    layers: dict[str, int] = {}
    unknown: dict[str, None] = {}

    def record(name: str, layer: Any, shapes: list[Shape], output: Shape) -> None:
        rule = _find_rule(layer)
        if rule is None:
            unknown[name] = None
        else:
            layers[name] = layers.get(name, 0) + rule(layer, shapes, output)

    class Trace(keras.Layer):  # type: ignore[misc]
        def call(self, inputs: Any) -> Any:
            return model(inputs)

    with _watch(list(_walk(model)), record):
        # A functional model would infer shapes layer by layer; this traces it as a whole.
        Trace().compute_output_spec(packed)
    unknown |= dict.fromkeys(_list_unknown_containers(model))
    return LayerFlops(layers, tuple(unknown))


@contextmanager
def _watch(named: list[tuple[str, Any]], record: Callable[..., None]) -> Iterator[None]:
    """Calls `record` with the shapes that pass through each layer while the block runs."""

    def wrap(name: str, layer: Any) -> Callable[..., Any]:
        call = layer.call

        def watched(*args: Any, **options: Any) -> Any:
            outputs = call(*args, **options)
            shapes = _list_shapes([*args, *options.values()])
            record(name, layer, shapes, _list_shapes([outputs])[0])
            return outputs

        return watched

    try:
        for name, layer in named:
            object.__setattr__(layer, "call", wrap(name, layer))
        yield
    finally:
        for _, layer in named:
            layer.__dict__.pop("call", None)


def _walk(layer: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Layers with operations of their own: not those that only call others."""
    for part in layer._flatten_layers(include_self=False, recursive=False):
        name = f"{prefix}{part.name}"
        if not hasattr(part, "layers") and not _is_keras(part, _WRAPPERS):
            yield name, part
        if not _is_keras(part, _OPAQUE):
            yield from _walk(part, f"{name}/")


def _list_unknown_containers(model: Any) -> Iterator[str]:
    """Models whose `call` is their own, and operations between layers that multiply."""
    import keras

    if not isinstance(model, keras.Sequential) and not hasattr(model, "operations"):
        yield model.name
    for operation in getattr(model, "operations", ()):
        if isinstance(operation, keras.Layer):
            if hasattr(operation, "layers"):
                yield from _list_unknown_containers(operation)
        elif type(operation).__name__ in _MULTIPLYING_OPERATIONS:
            yield operation.name


def _find_rule(layer: Any) -> Rule | None:
    import keras

    # By class and not by name: a user's subclass may do more than what it is made of.
    for name, rule in _RULES.items():
        if _is_keras(layer, (name,)):
            return rule
    if _is_keras(layer, _FREE):
        return _count_nothing
    return _OWN_RULES.get(keras.saving.get_registered_name(type(layer)))


def _is_keras(layer: Any, names: Collection[str]) -> bool:
    import keras

    return any(getattr(keras.layers, name, None) is type(layer) for name in names)


def _fill(shape: Sequence[int | None], length: int | None) -> Iterator[int]:
    for dimension in shape:
        if dimension is None and length is None:
            raise InputError(
                "length",
                "must be given for a model with inputs of free length",
                "None",
                "pass the tokens of a sequence, or the pixels of a side",
            )
        yield check_integer("length", length if dimension is None else dimension, at_least=1)


def _list_shapes(values: Sequence[Any]) -> list[Shape]:
    import keras

    flat = keras.tree.flatten(list(values))
    return [tuple(value.shape) for value in flat if hasattr(value, "shape")]


def _count_nothing(_layer: Any, _inputs: list[Shape], _output: Shape) -> int:
    return 0


def _count_dense(layer: Any, inputs: list[Shape], _output: Shape) -> int:
    return int(2 * prod(inputs[0]) * layer.units)


def _count_einsum(layer: Any, inputs: list[Shape], output: Shape) -> int:
    # Every letter of the equation is looped over once: those of the output, and those of the
    # input that are summed.
    sources, target = layer.equation.split("->")
    letters = sources.split(",")[0].replace("...", "")
    summed = [
        size
        for letter, size in zip(letters[::-1], inputs[0][::-1], strict=False)
        if letter not in target
    ]
    return 2 * prod(output) * prod(summed)


def _count_convolution(layer: Any, inputs: list[Shape], output: Shape) -> int:
    channels = -1 if layer.data_format == "channels_last" else 1
    positions = prod(output) // output[channels]
    per_filter = prod(layer.kernel_size) * inputs[0][channels] // layer.groups
    return int(2 * positions * layer.filters * per_filter)


def _count_depthwise(layer: Any, _inputs: list[Shape], output: Shape) -> int:
    return int(2 * prod(output) * prod(layer.kernel_size))


def _count_separable(layer: Any, inputs: list[Shape], output: Shape) -> int:
    channels = -1 if layer.data_format == "channels_last" else 1
    inner = inputs[0][channels] * layer.depth_multiplier
    positions = prod(output) // output[channels]
    return int(2 * positions * inner * (prod(layer.kernel_size) + layer.filters))


def _count_transposed(layer: Any, inputs: list[Shape], _output: Shape) -> int:
    # Every input number meets the kernel once. Compilers that insert zeros count those too.
    return int(2 * prod(inputs[0]) * prod(layer.kernel_size) * layer.filters)


def _count_recurrent(num_gates: int) -> Rule:
    def count(layer: Any, inputs: list[Shape], _output: Shape) -> int:
        batch, length, width = inputs[0]
        return int(2 * batch * length * num_gates * layer.units * (width + layer.units))

    return count


def _count_reversible(_layer: Any, inputs: list[Shape], output: Shape) -> int:
    # Looked up, the output has one dimension more than the tokens; reversed, as many.
    return 2 * prod(inputs[0]) * output[-1] if len(output) == len(inputs[0]) else 0


def _count_attention(layer: Any, inputs: list[Shape], _output: Shape) -> int:
    query, value = inputs[0], inputs[1]
    key = inputs[2] if len(inputs) > 2 and len(inputs[2]) == 3 else value
    scores = query[-1] if getattr(layer, "score_mode", "concat") == "dot" else 0
    return 2 * prod(query[:-1]) * key[-2] * (scores + value[-1])


def _count_heads(layer: Any, inputs: list[Shape], _output: Shape) -> int:
    """The scores and the mixing; the projections are layers of their own."""
    query, value = inputs[0], inputs[1]
    heads = getattr(layer, "num_heads", None) or layer.num_query_heads
    key_width = getattr(layer, "key_dim", None) or layer.head_dim
    value_width = getattr(layer, "value_dim", None) or key_width
    return int(2 * prod(query[:-1]) * prod(value[1:-1]) * heads * (key_width + value_width))


def _count_rotary(layer: Any, inputs: list[Shape], _output: Shape) -> int:
    batch, length, width = inputs[0]
    cached = len(inputs) > 1
    keys = layer.context_length if cached else length
    head_width = width // (layer.num_heads + 2 * layer.num_key_value_heads)
    return int(4 * batch * length * keys * layer.num_heads * head_width)


_RULES: dict[str, Rule] = {
    "Dense": _count_dense,
    "EinsumDense": _count_einsum,
    "Conv1D": _count_convolution,
    "Conv2D": _count_convolution,
    "Conv3D": _count_convolution,
    "DepthwiseConv1D": _count_depthwise,
    "DepthwiseConv2D": _count_depthwise,
    "SeparableConv1D": _count_separable,
    "SeparableConv2D": _count_separable,
    "Conv1DTranspose": _count_transposed,
    "Conv2DTranspose": _count_transposed,
    "Conv3DTranspose": _count_transposed,
    "SimpleRNN": _count_recurrent(1),
    "GRU": _count_recurrent(3),
    "LSTM": _count_recurrent(4),
    "ReversibleEmbedding": _count_reversible,
    "Attention": _count_attention,
    "AdditiveAttention": _count_attention,
    "MultiHeadAttention": _count_heads,
    "GroupQueryAttention": _count_heads,
}
# Layers of this library, by the name under which they are saved.
_OWN_RULES: dict[str, Rule] = {"bigmodel_utils>RotaryAttention": _count_rotary}
# Layers of Keras without products: elementwise, pooling, reshaping, looking up.
_FREE_NAMES = """InputLayer Embedding Activation ReLU LeakyReLU PReLU ELU Softmax Identity Masking
    Flatten Reshape Permute RepeatVector Cropping1D Cropping2D Cropping3D ZeroPadding1D
    ZeroPadding2D ZeroPadding3D UpSampling1D UpSampling2D UpSampling3D Add Subtract Multiply
    Average Maximum Minimum Concatenate AveragePooling1D AveragePooling2D AveragePooling3D
    MaxPooling1D MaxPooling2D MaxPooling3D GlobalAveragePooling1D GlobalAveragePooling2D
    GlobalAveragePooling3D GlobalMaxPooling1D GlobalMaxPooling2D GlobalMaxPooling3D
    BatchNormalization LayerNormalization RMSNormalization GroupNormalization UnitNormalization
    Normalization Rescaling Dropout SpatialDropout1D SpatialDropout2D SpatialDropout3D
    GaussianDropout GaussianNoise AlphaDropout ActivityRegularization CategoryEncoding
    Discretization IntegerLookup StringLookup Hashing"""
_FREE = frozenset(_FREE_NAMES.split())
# Wrappers that do nothing but call what they wrap.
_WRAPPERS = frozenset({"Bidirectional"})
# Layers whose parts are not called once per use: counted whole by a rule, or named.
_OPAQUE = frozenset(
    {"SimpleRNN", "GRU", "LSTM", "RNN", "TimeDistributed", "ConvLSTM1D", "ConvLSTM2D", "ConvLSTM3D"}
)
_MULTIPLYING_NAMES = """Matmul Dot Vdot Inner Outer Einsum Tensordot Kron Conv ConvTranspose
    DepthwiseConv SeparableConv DotProductAttention Solve SolveTriangular"""
_MULTIPLYING_OPERATIONS = frozenset(_MULTIPLYING_NAMES.split())
