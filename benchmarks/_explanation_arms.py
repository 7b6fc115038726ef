"""Arms in turns, and how a time grows: what every part of the explanation benchmark shares."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from bigmodel_utils import benchmark

OWN, FLOOR = "bigmodel_utils", "passes alone"
Arms = dict[str, Callable[[], Any]]


def compare(name: str, arms: Arms, num_rounds: int) -> dict[str, Any]:
    """Times the arms in turns; the ratio of each to the library's own."""
    slow = {arm: run for arm, run in arms.items() if "documented" in arm}
    fast = {arm: run for arm, run in arms.items() if arm not in slow}
    measured = benchmark.measure_latency(fast, num_warmup=1, num_rounds=num_rounds)
    found: dict[str, Any] = {}
    print(f"{name}, over the time of {OWN} [95 %]")
    for arm, latency in measured.items():
        ratio = benchmark.compare_latency(latency, measured[OWN])
        found[arm] = {"seconds": float(np.median(latency.seconds)), "ratio": ratio.to_dict()}
        print(f"  {arm:<28}{found[arm]['seconds']:8.4f} s   {ratio:.2f}", flush=True)
    floor = benchmark.compare_latency(measured[OWN], measured[FLOOR])
    found["over_floor"] = floor.to_dict()
    print(f"  over the {FLOOR}: {floor:.2f}")
    for arm, run in slow.items():
        again = benchmark.measure_latency({arm: run, OWN: arms[OWN]}, num_warmup=0, num_rounds=2)
        ratio = benchmark.compare_latency(again[arm], again[OWN])
        seconds = float(np.median(again[arm].seconds))
        found[arm] = {"seconds": seconds, "ratio": ratio.to_dict()}
        print(f"  {arm:<28}{seconds:8.4f} s   {ratio:.1f}", flush=True)
    return found


def fit_growth(
    name: str, make_run: Callable[[int], Callable[[], Any]], sizes: list[int], num_rounds: int
) -> dict[str, Any]:
    """Times one engine at several sizes; the slope of log time over log size, over rounds."""
    runs = {str(size): make_run(size) for size in sizes}
    measured = benchmark.measure_latency(runs, num_warmup=1, num_rounds=num_rounds)
    seconds = np.array([measured[size].seconds for size in runs])
    slopes = np.polyfit(np.log(sizes), np.log(seconds), 1)[0]
    slope = benchmark.bootstrap_interval(slopes, statistic=np.median)
    medians = np.median(seconds, axis=1)
    print(f"  {name:<36}{medians[0]:8.4f} to {medians[-1]:.4f} s   slope {slope:.2f}", flush=True)
    return {"sizes": sizes, "seconds": medians.tolist(), "slope": slope.to_dict()}
