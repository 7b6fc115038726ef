"""Smaller and faster models: pruning, quantization, distillation, adapters, export.

A transformation takes a model and examples, and returns a new model with a report of what
changed; the model passed in stays as it was. What it cannot change it names.
"""

from ._depth import prune_branches
from ._result import (
    Agreement,
    Compressed,
    CompressionReport,
    ModelSize,
    measure_agreement,
    measure_size,
)

__all__ = [
    "Agreement",
    "Compressed",
    "CompressionReport",
    "ModelSize",
    "measure_agreement",
    "measure_size",
    "prune_branches",
]
