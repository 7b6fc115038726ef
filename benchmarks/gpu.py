"""Tokens per second of the language model on one accelerator, beside a compiled PyTorch GPT.

Both train the same shape on the same tokens in bfloat16 with weights and moments in float32,
Keras on JAX by the step of `training.train`, PyTorch through ``torch.compile``. Each reports
the loss once per round. Rounds are interleaved in one process, past compilation. Utilization
is the share of the device's published peak that the model's own operations make up; pairs
that a causal mask hides are not counted. ``--size tiny`` shows on a CPU that it runs.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("KERAS_BACKEND", "jax")
os.environ.setdefault("XLA_PYTHON_CLIENT_MEM_FRACTION", "0.5")  # the other half is the peer's

import keras
import numpy as np

from bigmodel_utils import benchmark, costs, hardware, models
from bigmodel_utils.training._prepare import make_variables
from bigmodel_utils.training._steps import make_step_runner

RESULTS = Path(__file__).parent / "results"
SIZES = {  # what fits half of an 80 GB device; and what a CPU compiles in seconds
    "large": (
        8,
        models.LanguageModelSettings(
            vocabulary_size=32_768,
            num_layers=16,
            width=1536,
            num_heads=12,
            feedforward_width=4096,
            context_length=2048,
        ),
    ),
    "tiny": (
        2,
        models.LanguageModelSettings(
            vocabulary_size=256,
            num_layers=2,
            width=64,
            num_heads=2,
            feedforward_width=128,
            context_length=32,
        ),
    ),
}
NUM_BATCHES = 8


def main() -> None:
    """Measures one size and writes one JSON for this device."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", choices=SIZES, default="large")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=20, help="optimizer steps in one round")
    options = parser.parse_args()
    batch_size, settings = SIZES[options.size]
    device = hardware.detect_devices()[-1]
    shape = (NUM_BATCHES, batch_size, settings.context_length + 1)
    tokens = np.random.default_rng(0).integers(0, settings.vocabulary_size, shape, dtype=np.int32)
    runs = {"keras on jax": make_keras_steps(tokens, settings, num_steps=options.steps)}
    if importlib.util.find_spec("torch") is not None:
        import _torch_peer

        runs["torch.compile"] = _torch_peer.make_language_steps(
            tokens, settings, num_steps=options.steps
        )
    measured = benchmark.measure_latency(runs, num_warmup=2, num_rounds=options.rounds)
    num_tokens = options.steps * batch_size * settings.context_length
    flops = count_training_flops(settings, num_tokens)
    peak = device.spec.peak_flops.get("bfloat16") if device.spec else None
    report: dict[str, Any] = {
        "device": device.name,
        "keras": keras.__version__,
        "size": options.size,
        "batch_size": batch_size,
        "settings": settings.to_dict(),
        "rounds": options.rounds,
        "steps_per_round": options.steps,
    }
    for name, latency in measured.items():
        seconds = latency.median
        report[name] = {
            "seconds": latency.to_dict(),
            "tokens_per_second": num_tokens / seconds,
            "utilization": None if peak is None else flops / seconds / peak,
        }
        used = "unknown" if peak is None else f"{flops / seconds / peak:.1%}"
        print(f"  {name:<14} {num_tokens / seconds:12,.0f} tokens/s, utilization {used}")
    if len(measured) == 2:
        ratio = benchmark.compare_latency(measured["torch.compile"], measured["keras on jax"])
        report["tokens per second over torch.compile"] = ratio.to_dict()
        print(f"  tokens per second over torch.compile: {ratio:.2f}")
    RESULTS.mkdir(exist_ok=True)
    slug = "".join(c if c.isalnum() else "-" for c in device.name.lower()).strip("-")
    path = RESULTS / f"gpu-{options.size}-{slug}.json"
    path.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    print(f"written to benchmarks/results/{path.name}")


def make_keras_steps(
    tokens: np.ndarray, settings: models.LanguageModelSettings, *, num_steps: int
) -> Callable[[], float]:
    """Returns a function that takes steps as `training.train` does on an accelerator."""
    keras.config.set_dtype_policy("mixed_bfloat16")
    model = models.build_language_model(settings)
    rows = tokens.reshape(-1, tokens.shape[-1])
    data = rows[:, :-1], rows[:, 1:]
    make_variables(model, (data[0][:1], data[1][:1]))
    run = make_step_runner(model, data, compile_mode="xla")
    batches = np.arange(len(rows)).reshape(tokens.shape[:2])
    taken = [batches[step % len(batches)] for step in range(num_steps)]
    return lambda: float(run(taken)[-1])


def count_training_flops(settings: models.LanguageModelSettings, num_tokens: int) -> int:
    """Operations that the model needs for so many tokens, without recomputation."""
    return costs.estimate_training_flops(
        costs.Architecture.from_settings(settings),
        num_tokens=num_tokens,
        sequence_length=settings.context_length,
        attention_pairs="seen",
    ).model_flops


if __name__ == "__main__":
    main()
