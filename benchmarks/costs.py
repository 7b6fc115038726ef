"""The cost model beside what is known: published sizes and times, Keras, XLA, the rule of 6ND.

Prints one table for each claim and writes one JSON for this backend. On JAX it also compiles
language models and sets the estimates beside XLA's own account of operations and memory.
"""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path
from statistics import median
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np

from bigmodel_utils import costs, models

RESULTS = Path(__file__).parent / "results"
BACKEND = keras.backend.backend()
WIDE = models.LanguageModelSettings(
    vocabulary_size=1024,
    num_layers=4,
    width=256,
    num_heads=4,
    feedforward_width=704,
    context_length=512,
)
PROGRAMS = {
    "swiglu": ({}, 8, 256),
    "gelu, layer normalization": ({"activation": "gelu", "normalization": "layer"}, 8, 256),
    "two key heads": ({"num_key_value_heads": 2}, 8, 256),
    "sixteen heads": ({"num_heads": 16}, 8, 256),
    "512 tokens": ({}, 4, 512),
    "64 tokens": ({}, 4, 64),
    "width 512": ({"width": 512, "feedforward_width": 1408, "num_heads": 8}, 4, 256),
}


def main() -> None:
    """Prints every table and writes them to one file."""
    report: dict[str, Any] = {"backend": BACKEND, "keras": keras.__version__}
    report["parameters"] = compare_parameters()
    report["keras_models"] = compare_keras_models()
    report["six_nd"] = compare_six_nd()
    report["runs"] = compare_runs()
    report["scaling_laws"] = compare_laws()
    if BACKEND == "jax":
        report["xla"] = compare_programs()
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"costs-{BACKEND}.json"
    path.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    print(f"written to benchmarks/results/{path.name}")


def compare_parameters() -> list[dict[str, Any]]:
    """Counted parameters beside what publishers state."""
    print("\nparameters: counted, stated, error")
    rows = []
    for model in costs.PUBLISHED_MODELS.values():
        count = costs.count_parameters(model.architecture)
        row = {"model": model.name, "counted": count.total, "stated": model.stated_parameters}
        row |= {"is_exact": model.stated_to == 1, "active": count.active, "note": model.note}
        rows.append(row)
        error = count.total / model.stated_parameters - 1
        shown = "exact" if count.total == model.stated_parameters else f"{error:+.2%}"
        print(f"  {model.name:<18}{count.total:>17,}{model.stated_parameters:>17,}  {shown}")
    return rows


def compare_keras_models() -> list[dict[str, Any]]:
    """Counted parameters of models built here beside Keras' own count."""
    print("\nmodels built here: counted parameters, Keras' own, operations of one example")
    built = {
        "language model": (models.build_language_model(WIDE), 256),
        "article's network": (models.build_image_classifier("spatial"), None),
        "LSTM classifier": (models.build_lstm_classifier(2048, num_classes=4), 256),
    }
    rows = []
    for name, (model, length) in built.items():
        counted, flops = costs.count_parameters(model), costs.estimate_flops(model, length=length)
        row = {"model": name, "counted": counted.total, "keras": model.count_params()}
        rows.append(row | {"flops": flops.total, "not_counted": list(flops.not_counted)})
        print(f"  {name:<18}{counted.total:>12,}{model.count_params():>12,}{flops.total:>16,}")
    return rows


def compare_six_nd() -> list[dict[str, Any]]:
    """The rule of 6ND over the products that training does."""
    print("\n6ND over the operations of training, by tokens per sequence")
    lengths = (2048, 8192, 131_072)
    print(f"  {'':<18}" + "".join(f"{length:>10,}" for length in lengths))
    rows = []
    for name in ("GPT-2 small", "Gemma 3 1B", "Llama 3 8B", "Llama 3 405B", "DeepSeek-V3"):
        shape = costs.find_published_model(name).architecture
        ratios = []
        for length in lengths:
            flops = costs.estimate_training_flops(
                shape, num_tokens=length, sequence_length=length, attention_pairs="seen"
            )
            ratios.append(flops.six_nd / flops.model_flops)
        rows.append({"model": name, "ratio": dict(zip(map(str, lengths), ratios, strict=True))})
        print(f"  {name:<18}" + "".join(f"{ratio:>10.2f}" for ratio in ratios))
    return rows


def compare_runs() -> dict[str, Any]:
    """Predicted times of published runs, each half calibrating the other."""
    found: dict[str, Any] = {"utilization": {}, "halves": []}
    fit = costs.fit_utilization(costs.split_runs()[0])
    found["utilization"] = {", ".join(group): value for group, value in fit.items()}
    for is_swapped in (False, True):
        predictions = costs.predict_runs(is_swapped=is_swapped)
        held_out = [run for run in predictions if not run.is_calibration]
        errors = [abs(run.error) for run in held_out]
        within = sum(error <= 0.25 for error in errors)
        print(
            f"\nhours per billion tokens{', halves exchanged' if is_swapped else ''}: "
            f"{within} of {len(errors)} held-out runs within 25 %, median {median(errors):.1%}"
        )
        for run in predictions:
            role = "calibrates" if run.is_calibration else "predicted"
            print(
                f"  {run.name:<49}{role:<11}{run.measured_device_hours:>11.1f}"
                f"{run.predicted_device_hours:>11.1f}{run.error:>+8.1%}"
            )
        rows = [run.to_dict() | {"error": run.error} for run in predictions]
        summary = {"within_a_quarter": within, "held_out": len(errors), "median": median(errors)}
        found["halves"].append({"is_swapped": is_swapped, **summary, "runs": rows})
    return found


def compare_laws() -> dict[str, Any]:
    """The laws beside the tables of the Chinchilla paper, and a fit beside the law it is of."""
    print("\nbest tokens for a size: Hoffmann et al. approach 1, 3; law as published, refitted")
    table = ((1e9, 20.2e9, 27.1e9), (10e9, 205.1e9, 410.1e9), (67e9, 1.5e12, 4.1e12))
    rows = []
    for size, first, third in table:
        tokens = [
            find_best_tokens(size, law) for law in (costs.CHINCHILLA, costs.CHINCHILLA_REFITTED)
        ]
        rows.append({"size": size, "approach_1": first, "approach_3": third, "laws": tokens})
        print(f"  {size:>8.2g}" + "".join(f"{value:>12.3g}" for value in (first, third, *tokens)))
    law, generator = costs.CHINCHILLA_REFITTED, np.random.default_rng(0)
    sizes = np.exp(generator.uniform(np.log(5e7), np.log(2e10), 100))
    tokens_seen = np.exp(generator.uniform(np.log(1e9), np.log(5e11), 100))
    losses = law.predict_loss(sizes, tokens_seen) * np.exp(generator.normal(0, 0.003, 100))
    fit = costs.fit_scaling_law(sizes, tokens_seen, losses=losses)
    print("  fit to 100 runs drawn from the refitted law, noise of 0.3 %: value [interval], truth")
    for name, interval in fit.intervals.items():
        print(f"    {name:<18}{interval:.4g}   {getattr(law, name):.4g}")
    return {"tables": rows, "fit": fit.to_dict()}


def find_best_tokens(size: float, law: costs.ScalingLaw) -> float:
    """Tokens for which a size is the best, by bisection of the budget."""
    low, high = 1e15, 1e32
    while high / low > 1 + 1e-9:
        middle = (low * high) ** 0.5
        if costs.find_compute_optimal(middle, law=law).num_parameters < size:
            low = middle
        else:
            high = middle
    return costs.find_compute_optimal(low, law=law).num_tokens


def compare_programs() -> list[dict[str, Any]]:
    """Operations and activations of language models beside XLA's account, on JAX."""
    import jax
    import jax.numpy as jnp

    print("\nXLA: operations over its count; activations over what it sets aside")
    rows = []
    for name, (changes, batch_size, length) in PROGRAMS.items():
        settings = dataclasses.replace(WIDE, **changes)
        model = models.build_language_model(settings)
        weights = [variable.value for variable in model.trainable_variables]
        tokens = jnp.zeros((batch_size, length), "int32")

        def forward(weights: Any, x: Any, model: Any = model) -> Any:
            return model.stateless_call(weights, [], x, training=True)[0]

        def loss(weights: Any, x: Any, model: Any = model, forward: Any = forward) -> Any:
            return model.loss(x, forward(weights, x))

        counted = jax.jit(forward).lower(weights, tokens).cost_analysis()["flops"]
        step = jax.jit(jax.value_and_grad(loss)).lower(weights, tokens).compile()
        held = step.memory_analysis().temp_size_in_bytes
        shape = costs.Architecture.from_settings(settings)
        flops = costs.estimate_forward_flops(shape, sequence_length=length, batch_size=batch_size)
        plan = costs.TrainingPlan(batch_size=batch_size, sequence_length=length)
        memory = costs.estimate_memory(shape, plan)
        row = {"program": name, "flops": flops.total, "xla_flops": counted}
        rows.append(row | {"activation_bytes": memory.activations, "xla_bytes": held})
        ratios = (flops.total / counted, memory.activations / held)
        print(f"  {name:<27}{ratios[0]:>8.3f}{ratios[1]:>8.3f}")
    return rows


if __name__ == "__main__":
    main()
