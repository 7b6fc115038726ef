"""What an accuracy hides: slices, calibration, robustness, paired comparison, worst errors.

Arrays in, frozen reports out. A function needs to know what was predicted and what is true,
not which library made the prediction.
"""

from ._calibration import (
    Calibration,
    CalibrationBin,
    apply_temperature,
    fit_temperature,
    measure_calibration,
)
from ._comparison import (
    Comparison,
    FlipRate,
    compare_accuracy,
    estimate_num_test_examples,
    measure_flip_rate,
)
from ._consistency import Consistency, measure_consistency
from ._load import (
    LoadReport,
    count_misattributed,
    estimate_percentile_interval,
    measure_load,
)
from ._recall import Recall, measure_recall
from ._robustness import Robustness, measure_robustness
from ._seeds import SeedComparison, compare_over_seeds
from ._slices import (
    SliceReport,
    count_confusions,
    find_worst_errors,
    measure_batch_size_spread,
    measure_slices,
)

__all__ = [
    "Calibration",
    "CalibrationBin",
    "Comparison",
    "Consistency",
    "FlipRate",
    "LoadReport",
    "Recall",
    "Robustness",
    "SeedComparison",
    "SliceReport",
    "apply_temperature",
    "compare_accuracy",
    "compare_over_seeds",
    "count_confusions",
    "count_misattributed",
    "estimate_num_test_examples",
    "estimate_percentile_interval",
    "find_worst_errors",
    "fit_temperature",
    "measure_batch_size_spread",
    "measure_calibration",
    "measure_consistency",
    "measure_flip_rate",
    "measure_load",
    "measure_recall",
    "measure_robustness",
    "measure_slices",
]
