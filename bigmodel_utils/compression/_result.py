"""What a transformation returns: a new model, and what it changed, measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from .._checks import InputError
from .._report import Report, format_bytes, format_count, render_html, render_text
from ..costs import estimate_flops
from ._models import check_examples, predict


@dataclass(frozen=True)
class Agreement(Report):
    """How far the outputs of two models lie apart on the same examples.

    Attributes:
        largest_difference: largest absolute difference of an output.
        mean_difference: mean absolute difference.
        same_choice: share of predictions whose largest entry is the same one; a prediction is
            a vector along the last axis.
        num_predictions: number of predictions compared.
    """

    largest_difference: float
    mean_difference: float
    same_choice: float
    num_predictions: int

    def _list_rows(self) -> list[tuple[str, str]]:
        return [
            ("same choice", f"{self.same_choice:.1%} of {self.num_predictions}"),
            ("mean difference", f"{self.mean_difference:.2g}"),
            ("largest difference", f"{self.largest_difference:.2g}"),
        ]


@dataclass(frozen=True)
class ModelSize(Report):
    """What a model weighs.

    Attributes:
        num_parameters: numbers in its weights; those packed two to a byte count as two.
        num_nonzero: how many of them are not zero.
        weight_bytes: bytes of the weights in memory.
        num_flops: operations of one forward pass of one example; `None` where a layer cannot
            be counted, a quantized one above all, or the inputs have no fixed length.
    """

    num_parameters: int
    num_nonzero: int
    weight_bytes: int
    num_flops: int | None

    def _list_rows(self) -> list[tuple[str, str]]:
        flops = "not counted" if self.num_flops is None else format_count(self.num_flops)
        return [
            ("parameters", format_count(self.num_parameters)),
            ("not zero", format_count(self.num_nonzero)),
            ("weights", format_bytes(self.weight_bytes)),
            ("operations per example", flops),
        ]


@dataclass(frozen=True)
class CompressionReport:
    """What a transformation did to a model.

    Attributes:
        method: what was done, in a few words.
        before: size of the model that was passed in.
        after: size of the new model.
        agreement: outputs of the two on the examples that were passed in.
        left_out: layers that stayed as they were, by name, and why.
    """

    method: str
    before: ModelSize
    after: ModelSize
    agreement: Agreement
    left_out: Mapping[str, str] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Returns the fields as plain data, ready for JSON."""
        return asdict(self)

    def _make_table(self) -> tuple[list[str], list[list[str]]]:
        rows = [
            [label, before, after]
            for (label, before), (_, after) in zip(
                self.before._list_rows(), self.after._list_rows(), strict=True
            )
        ]
        rows += [[label, "", value] for label, value in self.agreement._list_rows()]
        rows += [[f"left out: {name}", "", why] for name, why in self.left_out.items()]
        return [self.method, "before", "after"], rows

    def __str__(self) -> str:
        return render_text(*self._make_table())

    def _repr_html_(self) -> str:
        return render_html(*self._make_table())


@dataclass(frozen=True)
class Compressed:
    """A new model and what was done to make it; the model passed in is as it was."""

    model: Any = field(repr=False)
    report: CompressionReport


def measure_agreement(model: Any, other: Any, *, examples: Any) -> Agreement:
    """Compares the outputs of two models on the same examples.

    Args:
        model: a Keras model with one output.
        other: another, with an output of the same shape.
        examples: inputs of shape `(num_examples, …)`.

    Returns:
        Differences, and the share of predictions whose largest entry is the same.

    Raises:
        InputError: if there are no examples or the outputs differ in shape.

    Limits:
        Agreement is not quality: a model can disagree and be right.

    Example:
        >>> import keras
        >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(3)])
        >>> measure_agreement(model, model, examples=np.eye(2)).same_choice
        1.0
    """
    inputs = check_examples(examples)
    return compare_outputs(predict(model, inputs), predict(other, inputs))


def compare_outputs(expected: np.ndarray, received: np.ndarray) -> Agreement:
    """Compares two arrays of outputs of one shape.

    Raises:
        InputError: if their shapes differ.

    Example:
        >>> compare_outputs(np.eye(2), np.eye(2)).largest_difference
        0.0
    """
    if expected.shape != received.shape:
        raise InputError(
            "other",
            f"must give outputs of shape {expected.shape}",
            received.shape,
            "compare models that do the same task",
        )
    difference = np.abs(received - expected)
    same = expected.argmax(axis=-1) == received.argmax(axis=-1)
    return Agreement(
        float(difference.max()), float(difference.mean()), float(same.mean()), int(same.size)
    )


def measure_size(model: Any, *, length: int | None = None) -> ModelSize:
    """Counts the parameters, bytes and operations of a Keras model.

    Args:
        model: a built `keras.Model`, quantized or not.
        length: tokens of an example, for a model with inputs of free length.

    Returns:
        The size of the model in memory.

    Raises:
        InputError: if `length` is below 1.

    Limits:
        A file can be larger, by its description and the optimizer's state, or smaller, where
        it is packed. Operations of a quantized model are not counted.

    Example:
        >>> import keras
        >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4, use_bias=False)])
        >>> measure_size(model).weight_bytes
        128
    """
    import keras

    packed = {
        id(layer._kernel): layer.kernel
        for layer in model._flatten_layers(include_self=False)
        if getattr(layer, "quantization_mode", None) == "int4" and hasattr(layer, "_kernel")
    }
    arrays = [keras.ops.convert_to_numpy(variable) for variable in model.weights]
    counted = [
        keras.ops.convert_to_numpy(packed.get(id(variable), variable)) for variable in model.weights
    ]
    return ModelSize(
        num_parameters=sum(array.size for array in counted),
        num_nonzero=sum(int(np.count_nonzero(array)) for array in counted),
        weight_bytes=sum(array.nbytes for array in arrays),
        num_flops=_count_flops(model, length),
    )


def make_report(
    model: Any,
    changed: Any,
    *,
    method: str,
    examples: Any,
    left_out: Mapping[str, str] | None = None,
) -> CompressionReport:
    """Measures a model and what was made of it on the same examples.

    Args:
        model: the model as it was.
        changed: the new model.
        method: what was done, in a few words.
        examples: inputs of shape `(num_examples, …)`.
        left_out: layers that stayed as they were, by name, and why.

    Returns:
        The report of the transformation.
    """
    inputs = check_examples(examples)
    length = inputs.shape[1]
    before, after = (measure_size(each, length=length) for each in (model, changed))
    if _is_quantized(changed):
        # As many operations as before, of another kind, which Keras does not let count.
        after = replace(after, num_flops=before.num_flops)
    agreement = measure_agreement(model, changed, examples=inputs)
    return CompressionReport(method, before, after, agreement, dict(left_out or {}))


def _is_quantized(model: Any) -> bool:
    return any(
        getattr(layer, "quantization_mode", None) is not None
        for layer in model._flatten_layers(include_self=False)
    )


def _count_flops(model: Any, length: int | None) -> int | None:
    if _is_quantized(model):
        return None
    has_free_length = any(None in tensor.shape[1:] for tensor in model.inputs)
    if has_free_length and length is None:
        return None
    flops = estimate_flops(model, length=length)
    return None if flops.not_counted else flops.total
