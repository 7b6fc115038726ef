"""Reference models that several pages share: shipped, or trained once and cached, never stale.

A model comes with its provenance: what data it saw, which code and versions made it, how its
loss fell, and the hash of its weights.
"""

from ._ladder import LadderRun, ScalingLadder, load_scaling_ladder, train_ladder_model
from ._language import load_corpus_windows
from ._reference import (
    ReferenceModel,
    find_stale_parts,
    list_reference_models,
    load_reference_model,
    train_reference_model,
)

__all__ = [
    "LadderRun",
    "ReferenceModel",
    "ScalingLadder",
    "find_stale_parts",
    "list_reference_models",
    "load_corpus_windows",
    "load_reference_model",
    "load_scaling_ladder",
    "train_ladder_model",
    "train_reference_model",
]
