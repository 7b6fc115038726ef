"""Models that read tokens, cut where the tokens have become vectors that have gradients."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .._checks import InputError, check_integer


@dataclass(frozen=True)
class CutModel:
    """A model in two parts, for gradients with respect to what passes between them.

    Attributes:
        embed: takes ids `(num_examples, length)` and returns vectors
            `(num_examples, length, width)`.
        head: takes the vectors and returns outputs `(num_examples, num_outputs)`. Both take and
            return tensors of the backend, in inference mode.

    Example:
        >>> import keras
        >>> table = keras.layers.Embedding(9, 4)
        >>> cut = CutModel(table, lambda vectors: keras.ops.mean(vectors, axis=1))
        >>> cut.head(cut.embed(keras.ops.ones((2, 3), "int32"))).shape == (2, 4)
        True
    """

    embed: Callable[[Any], Any]
    head: Callable[[Any], Any]


def build_cut_model(model: Any, embedding_layer: str, *, position: int | None = None) -> CutModel:
    """Cuts a functional model behind its embedding; weights are shared, nothing is copied.

    Args:
        model: a functional or sequential Keras model with one input of ids and one output.
        embedding_layer: name of the layer that takes the ids.
        position: for outputs of shape `(num_examples, length, num_outputs)`, as of a language
            model, which position is explained; -1 is the last, the next token's.

    Returns:
        The two parts.

    Raises:
        InputError: if the model is no graph of layers, has no such layer, the ids go elsewhere
            too, or the embedding hides padding behind a mask.

    Limits:
        A subclassed model has no graph to cut: write its two parts yourself, as a `CutModel`.

    Example:
        >>> import keras
        >>> ids = keras.Input((5,), dtype="int32")
        >>> vectors = keras.layers.Embedding(9, 4, name="table")(ids)
        >>> model = keras.Model(ids, keras.layers.Dense(3)(vectors))
        >>> cut = build_cut_model(model, "table", position=-1)
        >>> cut.head(cut.embed(keras.ops.ones((2, 5), "int32"))).shape == (2, 3)
        True
    """
    graph = getattr(model, "_functional", None) or model
    if not hasattr(graph, "_run_through_graph") or len(graph.inputs) != 1:
        raise InputError(
            "model",
            "must be a functional or sequential model with one input",
            type(model).__name__,
            "pass `CutModel(embed=…, head=…)` to the explainer instead",
        )
    layer = _find_layer(model, embedding_layer)
    rank = len(graph.outputs[0].shape)
    if (position is None) != (rank == 2) or rank not in (2, 3):
        raise InputError(
            "position",
            "must be given where outputs have shape (num_examples, length, num_outputs) only",
            f"{position} for outputs of shape {graph.outputs[0].shape}",
            "pass -1 for the next token" if rank == 3 else "leave it out",
        )
    if position is not None:
        check_integer("position", position)

    def head(vectors: Any) -> Any:
        outputs = _run_from(graph, layer, vectors)
        return outputs if position is None else outputs[:, position]

    return CutModel(layer, head)


def _find_layer(model: Any, name: str) -> Any:
    found = [layer for layer in model.layers if layer.name == name]
    if not found:
        names = ", ".join(layer.name for layer in model.layers[:6])
        raise InputError(
            "embedding_layer", "must name a layer of the model", name, f"one of {names}"
        )
    if getattr(found[0], "mask_zero", False):
        raise InputError(
            "embedding_layer",
            "must not mask padding, since vectors carry no mask",
            "`mask_zero=True`",
            "pass texts of one length to a model without the mask, or a `CutModel`",
        )
    return found[0]


def _run_from(graph: Any, layer: Any, vectors: Any) -> Any:
    """The graph's output with the layer's own output replaced.

    A model from the vectors to the output would leave nodes behind in every layer of the one
    explained; running the graph does not.
    """
    import keras

    ids = keras.ops.zeros(vectors.shape[:-1], dtype="int32")

    def replace(operation: Any) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            if not any(each is ids for each in args):
                return operation(*args, **options)
            if operation is layer:
                return vectors
            raise InputError(
                "model",
                "must use the ids in the embedding alone",
                f"`{operation.name}` reads them too",
                "pass a `CutModel` whose head does without them",
            )

        return call

    outputs = graph._run_through_graph([ids], operation_fn=replace)
    return outputs[0] if isinstance(outputs, list | tuple) else outputs
