"""Compiled functions of a model, kept for as long as the model itself."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class _Kept:
    """What was compiled, and the weights that the model had then."""

    compiled: Any
    weights: tuple[weakref.ref[Any], ...]

    def fits(self, weights: list[Any]) -> bool:
        """Whether the model still has these weights, whatever their values."""
        found = [reference() for reference in self.weights]
        return len(found) == len(weights) and all(map(lambda a, b: a is b, found, weights))


_KEPT: weakref.WeakKeyDictionary[Any, dict[Hashable, _Kept]] = weakref.WeakKeyDictionary()


def compile_once(model: Any, key: Hashable, *, build: Callable[[Callable[[], Any]], Any]) -> Any:
    """Returns what `build` made of this model and key before, or lets it.

    A model with other weights than then, as after quantization or LoRA, is compiled anew. Other
    values of the same weights must need no compiling: nothing that is compiled may hold them.

    Args:
        model: a Keras model.
        key: what else the result depends on.
        build: is given a function that returns the model. It may keep that function but not the
            model, which would never be freed.

    Returns:
        What `build` returned.

    Limits:
        An attribute of a layer that is changed by hand, such as its activation, goes unnoticed,
        as it does in `Model.predict`.
    """
    kept = _KEPT.setdefault(model, {})
    weights = list(model.weights)
    if key not in kept or not kept[key].fits(weights):
        kept[key] = _Kept(build(weakref.ref(model)), tuple(map(weakref.ref, weights)))
    return kept[key].compiled
