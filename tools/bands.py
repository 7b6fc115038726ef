"""Records how checked values spread over seeds: ``python -m tools.bands [PAGE ...]``.

A page runs once per set of seeds; ``NAME.bands.json`` beside it keeps every value that a
check saw, with its bounds. A reader sees how far a bound lies from what was measured, and
the gate test sees a bound that the record breaks.
"""

from __future__ import annotations

import argparse
import datetime
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from bigmodel_utils._checks import InputError

from . import notebooks
from .notebooks import PageFailedError

BOUNDS = ("at_least", "at_most", "equals", "tolerance")
NUM_RUNS = 5


def main(arguments: Sequence[str] | None = None) -> int:
    """Records the bands of the pages named, or of all; returns the exit status."""
    parser = argparse.ArgumentParser(description="Record checked values over several seeds.")
    parser.add_argument("page", nargs="*", help="such as chapters/04_code/training; default: all")
    parser.add_argument("--runs", type=int, default=NUM_RUNS, help="runs per page (%(default)s)")
    options = parser.parse_args(arguments)
    try:
        paths = notebooks.select_pages(options.page)
    except InputError as error:
        parser.error(str(error))
    console = Console()
    failed = 0
    for path in paths:
        try:
            bands = record_bands(path, num_runs=options.runs, console=console)
        except (InputError, PageFailedError) as error:
            failed += 1
            console.print(f"[red]✗[/] {notebooks.page_name(path)}: nothing written")
            console.print(f"  {error}", markup=False, highlight=False)
            continue
        text = json.dumps(bands, indent=2, ensure_ascii=False) + "\n"
        notebooks.write_files({path.with_suffix(".bands.json"): text})
        summary = f"{notebooks.page_name(path)}: {len(bands['checks'])} checks"
        console.print(f"[green]✓[/] {summary}", highlight=False)
    return 1 if failed else 0


def record_bands(path: Path, *, num_runs: int, console: Console) -> dict[str, Any]:
    """Runs a page once per set of seeds and gathers what its checks saw.

    A page without the parameter `first_seed` draws nothing at random and runs once.

    Raises:
        InputError: if the runs do not make the same checks, or a claim is made twice.
        PageFailedError: if a run fails; the message names its seed.
    """
    has_seed = "first_seed" in notebooks.find_parameters(notebooks.load_notebook(path))
    seeds = [100 * (1 + n) for n in range(num_runs)] if has_seed else []
    runs = []
    for parameters in [{"first_seed": seed} for seed in seeds] or [{}]:
        name = f"{notebooks.page_name(path)} {parameters or 'without seeds'}"
        console.print(name, highlight=False)
        try:
            runs.append(notebooks.run_notebook(path, parameters=parameters).checks)
        except PageFailedError as error:
            raise PageFailedError(
                error.cell_id, error.error_name, f"{error.error_value} ({name})"
            ) from error
    return {
        "made": {
            "how": "every check of the page, one run per entry of `seeds` as `first_seed`",
            "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
            "machine": notebooks.describe_machine(),
            "seeds": seeds,
        },
        "checks": gather_checks(runs),
    }


def gather_checks(runs: Sequence[Sequence[dict[str, Any]]]) -> dict[str, Any]:
    """Returns for each claim its values over the runs and its bounds.

    A bound that is the same in all runs is kept once, one that follows from the data as a
    list with one entry per run.

    Raises:
        InputError: if the runs do not make the same checks, or a claim is made twice.
    """
    claims = [[check["claim"] for check in run] for run in runs]
    twice = sorted({claim for claim in claims[0] if claims[0].count(claim) > 1})
    if twice:
        raise InputError("claim", "must be made once on a page", twice, "tell the claims apart")
    if any(other != claims[0] for other in claims):
        raise InputError("checks", "must be the same for all seeds", claims, "check always")
    gathered = {}
    for entries in zip(*runs, strict=True):
        band: dict[str, Any] = {"values": [entry["value"] for entry in entries]}
        for bound in BOUNDS:
            limits = [entry.get(bound) for entry in entries]
            if any(limit is not None for limit in limits):
                constant = all(limit == limits[0] for limit in limits)
                band[bound] = limits[0] if constant else limits
        gathered[entries[0]["claim"]] = band
    return gathered


def find_breaches(band: dict[str, Any], stated: dict[str, Any]) -> list[str]:
    """Returns the recorded numbers that leave the bounds.

    Args:
        band: a recorded check, as `gather_checks` returns it.
        stated: the bounds that the page states now; they replace recorded constants.
    """
    breaches = []
    for position, value in enumerate(band["values"]):
        if isinstance(value, bool) or not isinstance(value, int | float):
            continue  # equality of other things was judged when it ran
        bounds: dict[str, float] = {}
        for name in BOUNDS:
            limit = band.get(name)
            limit = limit[position] if isinstance(limit, list) else stated.get(name, limit)
            if isinstance(limit, int | float):
                bounds[name] = limit
        below = "at_least" in bounds and not value >= bounds["at_least"]
        above = "at_most" in bounds and not value <= bounds["at_most"]
        slack = bounds.get("tolerance", 0.0)
        unequal = "equals" in bounds and not abs(value - bounds["equals"]) <= slack
        if below or above or unequal:
            breaches.append(f"{value} leaves {bounds}")
    return breaches


if __name__ == "__main__":
    sys.exit(main())
