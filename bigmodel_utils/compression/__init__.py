"""Smaller and faster models: pruning, quantization, distillation, adapters, export.

A transformation takes a model and examples, and returns a new model with a report of what
changed; the model passed in stays as it was. What it cannot change it names.
"""

from ._calibration import find_clipping_range, round_to_grid
from ._depth import prune_branches
from ._distillation import build_distiller, find_output_kind
from ._distiller import Distiller, compute_soft_loss
from ._export import ExportReport, load_runner
from ._freezing import freeze_layers, unfreeze_gradually
from ._gptq import IntegerKernel, quantize_to_nearest, quantize_with_gptq
from ._litert import LITERT_PRECISIONS, export_litert
from ._lora import add_adapters, load_adapters, merge_adapters, merge_kernel, write_adapters
from ._low_rank import factorize_layers, find_directions
from ._masks import PruningSchedule, hold_zeros, prune_magnitude, prune_while_training
from ._onnx import CALIBRATIONS, ONNX_PRECISIONS, export_onnx
from ._quantization import Coverage, count_coverage, quantize_weights
from ._quantized_files import load_quantized, write_quantized
from ._result import (
    Agreement,
    Compressed,
    CompressionReport,
    ModelSize,
    measure_agreement,
    measure_size,
)
from ._runtime_table import RuntimeRow, RuntimeTable
from ._runtimes import measure_runtimes
from ._structured import list_prunable_units, prune_units
from ._written import write_examples

__all__ = [
    "CALIBRATIONS",
    "LITERT_PRECISIONS",
    "ONNX_PRECISIONS",
    "Agreement",
    "Compressed",
    "CompressionReport",
    "Coverage",
    "Distiller",
    "ExportReport",
    "IntegerKernel",
    "ModelSize",
    "PruningSchedule",
    "RuntimeRow",
    "RuntimeTable",
    "add_adapters",
    "build_distiller",
    "compute_soft_loss",
    "count_coverage",
    "export_litert",
    "export_onnx",
    "factorize_layers",
    "find_clipping_range",
    "find_directions",
    "find_output_kind",
    "freeze_layers",
    "hold_zeros",
    "list_prunable_units",
    "load_adapters",
    "load_quantized",
    "load_runner",
    "measure_agreement",
    "measure_runtimes",
    "measure_size",
    "merge_adapters",
    "merge_kernel",
    "prune_branches",
    "prune_magnitude",
    "prune_units",
    "prune_while_training",
    "quantize_to_nearest",
    "quantize_weights",
    "quantize_with_gptq",
    "round_to_grid",
    "unfreeze_gradually",
    "write_adapters",
    "write_examples",
    "write_quantized",
]
