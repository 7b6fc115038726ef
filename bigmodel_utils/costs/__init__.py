"""What a model costs, from its shape: parameters, operations, memory, time, money.

Shapes go in, numbers with units come out; nothing is run, and nothing is loaded but for a
Keras model that is passed in. `count_` is exact, `estimate_` follows a cited equation, and
what an equation leaves out is said.
"""

from ._architecture import Architecture, Experts, LatentAttention
from ._flops import (
    ForwardFlops,
    InferenceFlops,
    TrainingFlops,
    estimate_forward_flops,
    estimate_inference_flops,
    estimate_training_flops,
)
from ._layers import LayerFlops, estimate_flops
from ._memory import (
    MemoryReport,
    count_checkpoint_bytes,
    count_kv_cache_bytes,
    count_weight_bytes,
    estimate_memory,
)
from ._money import (
    Prices,
    StorageReport,
    TrainingCost,
    estimate_storage,
    estimate_training_cost,
)
from ._parameters import ParameterCount, count_parameters
from ._plan import PRECISIONS, Parallelism, Precision, TrainingPlan
from ._published import PUBLISHED_MODELS, PublishedModel, find_published_model
from ._runs import (
    PUBLISHED_RUNS,
    PublishedRun,
    RunPrediction,
    fit_utilization,
    predict_runs,
    split_runs,
)
from ._scaling import (
    CHINCHILLA,
    CHINCHILLA_REFITTED,
    Allocation,
    ScalingFit,
    ScalingLaw,
    find_compute_optimal,
    fit_scaling_law,
    measure_forecast_error,
)
from ._statement import (
    CostStatement,
    StatementErrors,
    estimate_cost_statement,
    measure_statement_errors,
)
from ._time import (
    Cluster,
    StepTime,
    estimate_step_time,
    estimate_token_time,
    find_smallest_cluster,
)
from ._utilization import estimate_utilization
from ._width import find_width

__all__ = [
    "CHINCHILLA",
    "CHINCHILLA_REFITTED",
    "PRECISIONS",
    "PUBLISHED_MODELS",
    "PUBLISHED_RUNS",
    "Allocation",
    "Architecture",
    "Cluster",
    "CostStatement",
    "Experts",
    "ForwardFlops",
    "InferenceFlops",
    "LatentAttention",
    "LayerFlops",
    "MemoryReport",
    "Parallelism",
    "ParameterCount",
    "Precision",
    "Prices",
    "PublishedModel",
    "PublishedRun",
    "RunPrediction",
    "ScalingFit",
    "ScalingLaw",
    "StatementErrors",
    "StepTime",
    "StorageReport",
    "TrainingCost",
    "TrainingFlops",
    "TrainingPlan",
    "count_checkpoint_bytes",
    "count_kv_cache_bytes",
    "count_parameters",
    "count_weight_bytes",
    "estimate_cost_statement",
    "estimate_flops",
    "estimate_forward_flops",
    "estimate_inference_flops",
    "estimate_memory",
    "estimate_step_time",
    "estimate_storage",
    "estimate_token_time",
    "estimate_training_cost",
    "estimate_training_flops",
    "estimate_utilization",
    "find_compute_optimal",
    "find_published_model",
    "find_smallest_cluster",
    "find_width",
    "fit_scaling_law",
    "fit_utilization",
    "measure_forecast_error",
    "measure_statement_errors",
    "predict_runs",
    "split_runs",
]
