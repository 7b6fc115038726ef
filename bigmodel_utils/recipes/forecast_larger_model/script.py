"""Forecasts the loss of a planned language model from smaller runs.

The file lists one finished run per line under the heading
`num_parameters,num_tokens,loss`: parameters, tokens of training, final loss in nats per token
on files that chose nothing. Runs of the largest size are held out: the law must foretell them.
Without a file the script shows itself on runs made up from a published law.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bigmodel_utils import costs

COLUMNS = ("num_parameters", "num_tokens", "loss")


def make_example() -> np.ndarray:
    """Makes runs up from a published law, with the scatter of a tenth of a per cent."""
    sizes, tokens = (axis.ravel() for axis in np.meshgrid(np.logspace(7, 9, 5), [1e9, 1e10, 1e11]))
    scatter = np.exp(np.random.default_rng(0).normal(scale=0.001, size=len(sizes)))
    return np.stack(
        [sizes, tokens, costs.CHINCHILLA_REFITTED.predict_loss(sizes, tokens) * scatter]
    )


def read_runs(path: Path) -> np.ndarray:
    """Reads the columns of the file, shape `(3, num_runs)`."""
    table = np.genfromtxt(path, delimiter=",", names=True, encoding="utf-8")
    missing = [name for name in COLUMNS if name not in (table.dtype.names or ())]
    if missing:
        raise SystemExit(f"{path} has no column {missing[0]!r}: the first line names the columns")
    runs = np.stack([np.atleast_1d(table[name]) for name in COLUMNS])
    if not np.isfinite(runs).all():
        line = int(np.argmin(np.isfinite(runs).all(axis=0))) + 2
        raise SystemExit(f"{path}, line {line}: every run needs three numbers")
    return runs


def try_forecast(runs: np.ndarray) -> tuple[float, float]:
    """Fits all but the largest size; returns the law's worst miss there, and the size."""
    largest = runs[0].max()
    small, large = runs[:, runs[0] < largest], runs[:, runs[0] == largest]
    fit = costs.fit_scaling_law(small[0], small[1], losses=small[2], num_resamples=2)
    error = costs.measure_forecast_error(fit.law, large[0], num_tokens=large[1], losses=large[2])
    return error, float(largest)


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    """Prints the test, the law, the forecast and the best use of the budget."""
    parser = argparse.ArgumentParser(description="Forecast the loss of a larger model.")
    parser.add_argument("runs", type=Path, nargs="?", help="CSV with " + ",".join(COLUMNS))
    parser.add_argument("--parameters", type=float, default=1e10, help="of the planned model")
    parser.add_argument("--tokens", type=float, default=2e11, help="that it will be trained on")
    parser.add_argument("--allowed-error", type=float, default=0.03, help="of the test")
    options = parser.parse_args(arguments)
    runs = read_runs(options.runs) if options.runs else make_example()
    error, largest = try_forecast(runs)
    print(f"held out            {largest:,.0f} parameters, missed by {error:.1%}")
    if error > options.allowed_error:
        raise SystemExit(
            f"No forecast: the law misses a size it has not seen by {error:.1%}, and "
            f"{options.allowed_error:.1%} is allowed. Add sizes, seeds or a better schedule."
        )
    fit = costs.fit_scaling_law(runs[0], runs[1], losses=runs[2])
    loss = fit.predict_loss(options.parameters, options.tokens)
    best = costs.find_compute_optimal(6 * options.parameters * options.tokens, law=fit.law)
    print(fit)
    print(f"\nplanned             {loss:.3f} nats per token")
    print(f"beyond the runs     {options.parameters / largest:.1f} times the largest")
    print(f"\nthe same budget at its best\n{best}")
    return {"held_out_error": error, "loss": loss.to_dict(), "best": best.to_dict()}


if __name__ == "__main__":
    main()
