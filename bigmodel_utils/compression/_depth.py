"""Fewer layers: residual branches that are left out, so that what they add to is passed on."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from .._checks import InputError
from ._models import check_examples, check_model, compile_alike
from ._result import Compressed, make_report


def prune_branches(model: Any, examples: Any, *, residuals: Collection[str]) -> Compressed:
    """Leaves whole residual branches out of a network.

    A residual `Add` layer gives `x + f(x)`. Without its branch `f` it gives `x`, and the layers
    of the branch go. A block of a transformer is two such branches.

    Args:
        model: a functional `keras.Model`, not quantized.
        examples: inputs of shape `(num_examples, …)`, on which the two models are compared.
        residuals: names of the `Add` layers whose branches are left out, such as
            `"block_1_attention_residual"`.

    Returns:
        The smaller model, compiled as the first, and its report.

    Raises:
        InputError: if a name is that of no layer, or of one that does not add a branch to the
            tensor that the branch starts from.

    Limits:
        The model is worse until it has been trained again. Which branches matter least is to
        be measured: leave one out at a time and look at `report.agreement`.

    Example:
        >>> import keras, numpy as np
        >>> x = keras.Input((3,))
        >>> branch = keras.layers.Dense(3, name="branch")(x)
        >>> model = keras.Model(x, keras.layers.Add(name="residual")([x, branch]))
        >>> smaller = prune_branches(model, np.ones((1, 3)), residuals=["residual"]).model
        >>> smaller.count_params()
        0

    References:
        Veit, Wilber and Belongie, Residual Networks Behave Like Ensembles of Relatively Shallow
        Networks (2016), section 4.
    """
    import keras

    check_model(model)
    inputs = check_examples(examples)
    kept = {name: _find_trunk(model, name) for name in residuals}

    def call(layer: Any, *tensors: Any, **options: Any) -> Any:
        return tensors[0][kept[layer.name]] if layer.name in kept else layer(*tensors, **options)

    # A functional model without the compilation: its own would not fit before all is renamed.
    walked = keras.Model(model.input, model.output, name=model.name)
    smaller = keras.models.clone_model(walked, call_function=call)
    for layer in filter(lambda layer: layer.weights, smaller.layers):
        layer.set_weights(model.get_layer(layer.name).get_weights())
    compile_alike(smaller, model)
    method = f"{len(kept)} residual branches left out"
    return Compressed(smaller, make_report(model, smaller, method=method, examples=inputs))


def _find_trunk(model: Any, name: str) -> int:
    """Which input of a residual `Add` is passed on: the one that the other was made from."""
    named = {layer.name: layer for layer in model.layers}
    if name not in named:
        raise _make_error(name, "no such layer")
    layer = named[name]
    if type(layer).__name__ != "Add" or len(layer._inbound_nodes) != 1:
        raise _make_error(name, type(layer).__name__)
    tensors = layer._inbound_nodes[0].input_tensors
    for index, tensor in enumerate(tensors):
        others = [other for place, other in enumerate(tensors) if place != index]
        if len(others) == 1 and _descends(others[0], tensor):
            return index
    raise _make_error(name, "an Add of tensors of which neither comes from the other")


def _descends(tensor: Any, ancestor: Any) -> bool:
    """Whether a tensor of the graph was computed from another."""
    waiting, seen = [tensor], set()
    while waiting:
        here = waiting.pop()
        if here is ancestor:
            return True
        if id(here) not in seen:
            seen.add(id(here))
            history = here._keras_history
            node = history.operation._inbound_nodes[history.node_index]
            waiting += node.input_tensors
    return False


def _make_error(name: str, received: str) -> InputError:
    return InputError(
        "residuals",
        "must name `Add` layers of a branch and the tensor that it starts from",
        f"{name!r}: {received}",
        "look at `model.summary()`",
    )
