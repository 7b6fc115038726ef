"""Published models: their shapes, and what their publishers say of their size."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from typing import Any

from .._checks import check_choice
from ._architecture import Architecture, Experts, LatentAttention


@dataclass(frozen=True)
class PublishedModel:
    """A published model.

    Attributes:
        name: by which `find_published_model` finds it.
        architecture: its shape.
        stated_parameters: what its publisher says.
        stated_to: the unit to which that is rounded; 1 where it is exact.
        source: publication, and where the exact count stands.
        stated_active: parameters that one token meets, where they are stated.
        stated_active_to: the unit to which that is rounded.
        is_active_without_embedding: whether the embedding is left out of it.
        note: where number and source do not agree, and why.
    """

    name: str
    architecture: Architecture
    stated_parameters: int
    stated_to: int
    source: str
    stated_active: int | None = None
    stated_active_to: int = 1
    is_active_without_embedding: bool = False
    note: str = ""


def find_published_model(name: str) -> PublishedModel:
    """Finds a published model.

    Args:
        name: such as "GPT-3" or "Llama 3 8B"; the keys of `PUBLISHED_MODELS`.

    Returns:
        The model.

    Raises:
        InputError: if the table does not hold it, listing what it holds.

    Example:
        >>> find_published_model("GPT-3").architecture.num_layers
        96
    """
    return PUBLISHED_MODELS[check_choice("name", name, PUBLISHED_MODELS)]


def make_architecture(fields: Mapping[str, Any]) -> Architecture:
    """Makes an architecture of a table of its fields."""
    values = dict(fields)
    for name, kind in (("experts", Experts), ("latent", LatentAttention)):
        if name in values:
            values[name] = kind(**values[name])
    return Architecture(**values)


def load_table(file_name: str) -> dict[str, Any]:
    """Reads a table that ships with this package."""
    text = resources.files(__package__).joinpath(file_name).read_text(encoding="utf-8")
    return tomllib.loads(text)


def _load_models() -> dict[str, PublishedModel]:
    models = {}
    for name, fields in load_table("models.toml").items():
        architecture = make_architecture(fields.pop("architecture"))
        models[name] = PublishedModel(name=name, architecture=architecture, **fields)
    return models


PUBLISHED_MODELS: Mapping[str, PublishedModel] = _load_models()
"""Published models by name."""
