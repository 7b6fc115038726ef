"""What a release says of its model's cost, beside what the shape of the model says."""

from __future__ import annotations

from dataclasses import dataclass

from .._checks import InputError, check_integer, check_real
from .._report import Report, format_bytes, format_count
from ._architecture import Architecture
from ._flops import estimate_training_flops
from ._memory import count_kv_cache_bytes, count_weight_bytes
from ._parameters import count_parameters


@dataclass(frozen=True)
class CostStatement(Report):
    """The numbers by which a release says what its model costs; `None` where it is silent.

    Attributes:
        total_parameters: all that the model learnt.
        active_parameters: those that one token meets.
        training_flops: operations of training, forward and backward.
        serving_memory_bytes: weights, and the cache of one text of full length.

    Raises:
        InputError: if a number is negative or not finite.
    """

    total_parameters: float | None = None
    active_parameters: float | None = None
    training_flops: float | None = None
    serving_memory_bytes: float | None = None

    def __post_init__(self) -> None:
        for name, value in self.to_dict().items():
            if value is not None:
                check_real(name, value, at_least=0)

    def _list_rows(self) -> list[tuple[str, str]]:
        rows = []
        for name, value in self.to_dict().items():
            write = format_bytes if name.endswith("_bytes") else format_count
            rows.append((_label(name), "not stated" if value is None else write(value)))
        return rows


@dataclass(frozen=True)
class StatementErrors(Report):
    """How far each number of a statement is from that of the shape.

    Attributes:
        errors: stated over counted, less one; -1 for a number that is not stated.
        worst: name of the number that is farthest off.
    """

    errors: dict[str, float]
    worst: str

    @property
    def largest(self) -> float:
        """Absolute error of the worst number: the metric of the clause."""
        return abs(self.errors[self.worst])

    def _list_rows(self) -> list[tuple[str, str]]:
        rows = [(_label(name), f"{error:+.1%}") for name, error in self.errors.items()]
        return [*rows, ("worst", _label(self.worst))]


def estimate_cost_statement(
    architecture: Architecture,
    *,
    num_tokens: int,
    training_length: int,
    context_length: int,
    dtype: str = "bfloat16",
) -> CostStatement:
    """Estimates the four numbers that a release owes its reader, from the shape.

    Parameters and bytes are exact. Operations are three times the matrix products of a
    forward pass, over the pairs of tokens that attention sees.

    Args:
        architecture: the shape.
        num_tokens: tokens that it was trained on.
        training_length: tokens of each sequence in training.
        context_length: tokens of the text that is served.
        dtype: format of weights and cache in service.

    Returns:
        The statement, complete.

    Raises:
        InputError: if a number is below 1 or the format is unknown.

    Limits:
        Operations of the last run only, in one pass and without recomputation; bytes without
        buffers, fragmentation and the runtime's own.

    Example:
        >>> from bigmodel_utils.costs import find_published_model
        >>> shape = find_published_model("Llama 3 8B").architecture
        >>> print(
        ...     estimate_cost_statement(
        ...         shape,
        ...         num_tokens=15_000_000_000_000,
        ...         training_length=8192,
        ...         context_length=8192,
        ...     )
        ... )
        total parameters   8.03 billion
        active parameters  8.03 billion
        training flops     7.721e+23
        serving memory     15.96 GiB

    References:
        Mitchell et al., Model Cards for Model Reporting (2019); Patterson et al., Carbon
        Emissions and Large Neural Network Training (2021).
    """
    check_integer("context_length", context_length, at_least=1)
    count = count_parameters(architecture)
    flops = estimate_training_flops(
        architecture,
        num_tokens=num_tokens,
        sequence_length=training_length,
        attention_pairs="seen",
    )
    cache = count_kv_cache_bytes(architecture, sequence_length=context_length, dtype=dtype)
    return CostStatement(
        total_parameters=count.total,
        active_parameters=count.active,
        training_flops=flops.model_flops,
        serving_memory_bytes=count_weight_bytes(architecture, dtype=dtype) + cache,
    )


def measure_statement_errors(stated: CostStatement, counted: CostStatement) -> StatementErrors:
    """Measures how far a release's statement of cost is from what its shape says.

    Args:
        stated: what the release says.
        counted: what follows from the shape, as `estimate_cost_statement` gives it.

    Returns:
        The relative error of each number; one that is not stated is off by all of itself.

    Raises:
        InputError: if `counted` lacks a number or holds a zero.

    Limits:
        A number that is right may still be the wrong one: it says nothing of quality.

    Example:
        >>> counted = CostStatement(8.03e9, 8.03e9, 7.724e23, 17.1e9)
        >>> stated = CostStatement(8e9, 8e9, 7.2e23, 16e9)
        >>> report = measure_statement_errors(stated, counted)
        >>> report.worst, round(report.largest, 3)
        ('training_flops', 0.068)
    """
    said, wanted = stated.to_dict(), counted.to_dict()
    missing = [name for name, value in wanted.items() if not value]
    if missing:
        fix = "pass what `estimate_cost_statement` returns"
        raise InputError("counted", "must hold every number, above zero", f"no {missing[0]}", fix)
    errors = {name: (said[name] or 0) / value - 1 for name, value in wanted.items()}
    return StatementErrors(errors, max(errors, key=lambda name: abs(errors[name])))


def _label(name: str) -> str:
    return name.removesuffix("_bytes").replace("_", " ")
