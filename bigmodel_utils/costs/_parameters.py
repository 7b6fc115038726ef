"""Parameters: of an architecture by equation, of a Keras model by walking its layers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from typing import Any

from .._report import Report, format_count
from ._architecture import Architecture, list_weights


@dataclass(frozen=True)
class ParameterCount(Report):
    """The numbers that a model learns.

    Attributes:
        total: all of them.
        active: those that one token meets: all but the experts that the router passes over.
        parts: numbers by part of the architecture, or by layer of a Keras model.
        not_counted: layers of a Keras model that have no weights yet.
    """

    total: int
    active: int
    parts: dict[str, int]
    not_counted: tuple[str, ...] = ()

    @property
    def active_without_embedding(self) -> int:
        """Active parameters less the embedding, which is looked up and not multiplied."""
        return self.active - self.parts.get("embedding", 0)

    def _list_rows(self) -> list[tuple[str, str]]:
        rows = [(part, f"{size:,}") for part, size in self.parts.items()]
        rows += [("total", f"{self.total:,} ({format_count(self.total)})")]
        if self.active != self.total:
            rows += [("active", f"{self.active:,} ({format_count(self.active)})")]
        if self.not_counted:
            rows += [("not counted", ", ".join(self.not_counted))]
        return rows


def count_parameters(model: Any) -> ParameterCount:
    r"""Counts parameters, exactly.

    Of a dense block without biases, with `d` numbers per token, `h` heads of `w` numbers, of
    which `k` for keys and for values, and a gated feed-forward layer of `f` numbers:
    :math:`2dhw + 2dkw + 3df` and the scales of the normalizations.

    Args:
        model: an `Architecture`, or a Keras model. Of the latter every weight counts once,
            trainable or not, however often its layer is used.

    Returns:
        The count, by part of the architecture or by layer.

    Limits:
        An architecture is a language model's: nothing that reads images or sound. A Keras
        layer that has not seen its input's shape has no weights and is named in
        `not_counted`. Of a Keras model all parameters count as active.

    Example:
        >>> shape = Architecture(
        ...     vocabulary_size=50257,
        ...     num_layers=12,
        ...     width=768,
        ...     num_heads=12,
        ...     feedforward_width=3072,
        ...     activation="gelu",
        ...     normalization="layer",
        ...     has_biases=True,
        ...     is_tied=True,
        ...     num_positions=1024,
        ... )
        >>> count_parameters(shape).total  # the smallest GPT-2
        124439808

    References:
        Kaplan et al., Scaling Laws for Neural Language Models (2020), table 1, without its
        approximation; DeepSeek-AI, DeepSeek-V2 (2024), equations 9 to 19, for latent
        attention; Fedus et al., Switch Transformers (2021), section 2, for experts.
    """
    if not isinstance(model, Architecture):
        return _count_keras(model)
    parts: dict[str, int] = {}
    idle = 0
    for weight in list_weights(model):
        parts[weight.part] = parts.get(weight.part, 0) + weight.size
        if weight.part == "experts":
            idle += prod(weight.shape) * (weight.copies - weight.active)
    total = sum(parts.values())
    return ParameterCount(total, total - idle, parts)


def _count_keras(model: Any) -> ParameterCount:
    parts: dict[str, int] = {}
    not_counted = []
    seen: set[int] = set()

    def add(name: str, variables: Any) -> None:
        fresh = {id(variable): prod(variable.shape) for variable in variables}
        size = sum(size for key, size in fresh.items() if key not in seen)
        seen.update(fresh)
        if size:
            parts[name] = parts.get(name, 0) + size

    for name, layer in walk_layers(model):
        if layer.built:
            add(name, layer.weights)
        else:
            not_counted.append(name)
    add(f"{model.name} itself", model.weights)
    total = sum(parts.values())
    return ParameterCount(total, total, parts, tuple(not_counted))


def walk_layers(model: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yields the layers of a Keras model with their names, those of nested models too."""
    for layer in model.layers:
        name = f"{prefix}{layer.name}"
        if hasattr(layer, "layers"):
            yield from walk_layers(layer, f"{name}/")
        else:
            yield name, layer
