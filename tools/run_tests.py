"""Runs the test suite in parts: ``python -m tools.run_tests [PART ...]``.

All parts run even if one fails; the table at the end says how long each took.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parent.parent
# Property tests draw the same examples each time here; a bare `pytest` draws new ones.
PYTEST = ("-m", "pytest", "-q", "--hypothesis-profile=ci")

# What must hold on every backend.
JAX_TESTS = (
    *("tests/test_training.py", "tests/test_checkpoints.py", "tests/test_models.py"),
    *("tests/test_transformer.py", "tests/test_generation.py", "tests/test_jax.py"),
    *("tests/test_costs.py", "tests/test_costs_published.py", "tests/test_costs_keras.py"),
    *("tests/test_costs_jax.py", "tests/test_costs_utilization.py"),
    *("tests/test_compression_result.py", "tests/test_pruning.py", "tests/test_structured.py"),
    *("tests/test_quantization.py", "tests/test_gptq.py", "tests/test_distillation.py"),
    *("tests/test_lora.py", "tests/test_low_rank.py", "tests/test_freezing.py"),
    *(
        "tests/test_depth.py",
        "tests/test_loading.py",
        "tests/test_explanation.py",
        "tests/test_faithfulness.py",
    ),
    *("tests/test_lime.py", "tests/test_lime_fit.py", "tests/test_lime_text.py"),
    *("tests/test_kernel_shap.py", "tests/test_gradients.py"),
    *("bigmodel_utils/training", "bigmodel_utils/models", "bigmodel_utils/generation.py"),
    *("bigmodel_utils/costs", "bigmodel_utils/compression"),
    # Of explanation, what does not go through shap.
    *(
        f"bigmodel_utils/explanation/_{name}.py"
        for name in (
            *("predict", "result", "lime", "lime_tabular", "lime_image", "lime_text"),
            *("coalitions", "kernel_shap", "cut", "gradients", "similarity", "faithfulness"),
        )
    ),
)
INTERPRETERS = {"jax": ".venv-jax/bin/python"}
ENVIRONMENTS = {"jax": {"KERAS_BACKEND": "jax"}}

# Each command is what follows the Python interpreter. Pytest ends with status 5 if it
# collected nothing, so a part that has gone empty fails.
PARTS: dict[str, tuple[tuple[str, ...], ...]] = {
    "lint": (
        ("-m", "ruff", "check", "."),
        ("-m", "ruff", "format", "--check", "."),
        ("-m", "mypy"),
        ("-m", "codespell_lib"),
    ),
    "unit": ((*PYTEST, "-m", "not browser and not slow", "-n", "2"),),
    # Keras on JAX in an environment without TensorFlow: see INTERPRETERS.
    "jax": ((*PYTEST, "-m", "not browser and not slow", "-n", "2", *JAX_TESTS),),
    "slow": ((*PYTEST, "-m", "slow and not browser"),),
    "notebook values": (
        (
            *PYTEST,
            "chapters",
            *("-o", "addopts=--strict-markers -ra"),  # no doctests: there are no modules here
            "--nbval",
            "--nbval-current-env",
            *("--nbval-sanitize-with", "tests/sanitize.cfg"),
            *("--nbval-cell-timeout", "300"),
            # The cells of a page share a kernel, so they must share a worker.
            *("-n", "2", "--dist", "loadscope"),
        ),
    ),
    "browser": ((*PYTEST, "-m", "browser"),),
}


def run_part(name: str) -> bool:
    """Runs the commands of a part, all of them, and returns whether each succeeded."""
    python = INTERPRETERS.get(name, sys.executable)
    environment = {**os.environ, **ENVIRONMENTS.get(name, {})}
    succeeded = True
    for command in PARTS[name]:
        print("$", INTERPRETERS.get(name, "python"), *command, flush=True)
        status = subprocess.run(
            [python, *command], cwd=ROOT, env=environment, check=False
        ).returncode
        succeeded = succeeded and status == 0
    return succeeded


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the parts named, or all; returns the exit status."""
    parser = argparse.ArgumentParser(description="Run the test suite in parts.")
    parser.add_argument("part", nargs="*", help=f"{', '.join(map(repr, PARTS))}; default: all")
    names = parser.parse_args(arguments).part or list(PARTS)
    unknown = [name for name in names if name not in PARTS]
    if unknown:
        parser.error(f"no part {unknown[0]!r}; use one of {', '.join(map(repr, PARTS))}")
    console = Console()
    table = Table("part", "outcome")
    table.add_column("seconds", justify="right")
    failed, total = False, 0.0
    for name in names:
        console.rule(name)
        started = time.perf_counter()
        succeeded = run_part(name)
        seconds = time.perf_counter() - started
        failed, total = failed or not succeeded, total + seconds
        outcome = "[green]passed[/]" if succeeded else "[red]FAILED[/]"
        table.add_row(name, outcome, f"{seconds:.1f}")
    table.add_section()
    table.add_row("total", "", f"{total:.1f}")
    console.print(table)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
