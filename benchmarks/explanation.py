"""What an explanation costs beside what `lime` and `shap` take for the same.

Each peer is fed a compiled function, so that the engines are compared; "as documented" it calls
`Model.predict`, which is what people write. LIME's arms take the same draws, and the largest
difference of their coefficients is printed; those beside `shap` take as many draws. The floor is
the time of the forward passes alone, and for gradients of the backward passes with them. Times
are of one thread, medians of arms in turns; a ratio above 1 says how many times faster the
library is. Errors are against values from all coalitions.

What limits the ratios: fed a compiled function, `shap` spends most of its time for KernelSHAP on
the same forward passes, and expected gradients run at their floor, one backward pass for each
output. Tried without a gain in evaluations for equal error over all games: sampling by leverage
scores without replacement (Musco and Witter, Provably Accurate Shapley Value Estimation via
Leverage Score Sampling, ICLR 2025), and the kernel's own shares without replacement. For the
gradients, smaller batches and one tiled pass for all outputs gained nothing.
"""

from __future__ import annotations

import argparse
import json
import os
from importlib.metadata import version
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import keras
import tensorflow as tf
from _explanation_arms import compare
from _explanation_growth import measure_growth
from _explanation_lime import time_images, time_tables, time_texts
from _explanation_shap import measure_errors, time_gradients, time_kernel_shap

from bigmodel_utils import hardware

RESULTS = Path(__file__).parent / "results"
KINDS = {
    "LIME, image": time_images,
    "LIME, table, 20 rows": lambda: time_tables(20),
    "LIME, table, 1 row": lambda: time_tables(1),
    "LIME, text, 10 words": lambda: time_texts(10),
    "LIME, text, 25 words": lambda: time_texts(25),
    "LIME, text, 60 words": lambda: time_texts(60),
    "KernelSHAP, 10 rows": time_kernel_shap,
    "expected gradients, 4 images": lambda: time_gradients(4),
    "expected gradients, 20 images": lambda: time_gradients(20),
}


def main() -> None:
    """Prints the ratios of every kind and writes them to one file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seeds", type=int, default=40, help="of the errors")
    parser.add_argument("--documented", action="store_true", help="time `Model.predict` too")
    parser.add_argument("--only", choices=("times", "errors", "growth"))
    options = parser.parse_args()
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    keras.utils.set_random_seed(0)
    device = hardware.detect_devices()[-1]
    slug = "".join(c if c.isalnum() else "-" for c in device.name.lower()).strip("-")
    path = RESULTS / f"explanation-{slug}.json"
    # A part that is not measured this time stays as it was.
    report: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else {}
    names = ("keras", "tensorflow", "lime", "shap", "numpy")
    report |= {
        "device": device.name,
        "cpu_features": hardware.list_cpu_features(),
        "versions": {name: version(name) for name in names},
        "rounds": options.rounds,
    }
    if options.only in (None, "times"):
        report["times"] = measure_times(options.rounds, documented=options.documented)
    if options.only in (None, "errors"):
        report["errors"] = measure_errors(options.seeds)
    if options.only in (None, "growth"):
        report["growth"] = measure_growth(options.rounds)
    RESULTS.mkdir(exist_ok=True)
    path.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    print(f"written to benchmarks/results/{path.name}")


def measure_times(num_rounds: int, *, documented: bool) -> dict[str, Any]:
    """Each kind's arms in turns, and by how much the two explanations differ."""
    found: dict[str, Any] = {}
    for name, prepare in KINDS.items():
        arms, difference = prepare()
        if not documented:
            arms = {arm: run for arm, run in arms.items() if "documented" not in arm}
        found[name] = {"largest_difference": difference, **compare(name, arms, num_rounds)}
        print(f"  largest difference of a value: {difference:.1e}", flush=True)
    return found


if __name__ == "__main__":
    main()
