"""Published runs: what share of the peak they reached, and what that predicts of others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from .._checks import InputError
from .._report import Report
from ._architecture import Architecture
from ._flops import estimate_training_flops
from ._published import PUBLISHED_MODELS, load_table, make_architecture


@dataclass(frozen=True)
class PublishedRun:
    """A run of training whose time is published.

    Attributes:
        name: model, and what tells the run from others of it.
        architecture: the model's shape.
        device: such as "NVIDIA A100".
        dtype: format of most products.
        scope: `"step"` for steady steps, `"run"` for a whole run with its restarts.
        flops: operations of the device for one token, with recomputation.
        device_seconds: of one device for one token.
        peak_flops: of the device in this format.
        source: publication and place.
    """

    name: str
    architecture: Architecture
    device: str
    dtype: str
    scope: str
    flops: float
    device_seconds: float
    peak_flops: float
    source: str

    @property
    def group(self) -> tuple[str, str, str]:
        """Device, format and scope: runs that one utilization stands for."""
        return (self.device, self.dtype, self.scope)

    @property
    def utilization(self) -> float:
        """Share of the peak that was reached, recomputation included ("HFU")."""
        return self.flops / (self.device_seconds * self.peak_flops)


@dataclass(frozen=True)
class RunPrediction(Report):
    """The time of a published run, and what the calibration says of it.

    Attributes:
        name: the run's.
        is_calibration: it was used to calibrate.
        measured_device_hours: of one device for a billion tokens, as published.
        predicted_device_hours: the same, as predicted.
        utilization: share of the peak that it reached.
        source: publication and place.
    """

    name: str
    is_calibration: bool
    measured_device_hours: float
    predicted_device_hours: float
    utilization: float
    source: str

    @property
    def error(self) -> float:
        """Predicted over measured, less one."""
        return self.predicted_device_hours / self.measured_device_hours - 1

    def _list_rows(self) -> list[tuple[str, str]]:
        return [
            (self.name, "calibrates" if self.is_calibration else "predicted"),
            ("device hours per billion tokens, published", f"{self.measured_device_hours:.4g}"),
            ("device hours per billion tokens, predicted", f"{self.predicted_device_hours:.4g}"),
            ("error", f"{self.error:+.1%}"),
        ]


def split_runs(
    runs: Sequence[PublishedRun] | None = None,
) -> tuple[tuple[PublishedRun, ...], tuple[PublishedRun, ...]]:
    """Splits runs by a rule that looks at no time: every other one of each group calibrates.

    Args:
        runs: `PUBLISHED_RUNS` by default.

    Returns:
        Those that calibrate and those to predict, in the order given.

    Example:
        >>> calibration, held_out = split_runs()
        >>> abs(len(calibration) - len(held_out)) < 8
        True
    """
    counts: dict[tuple[str, str, str], int] = {}
    halves: tuple[list[PublishedRun], list[PublishedRun]] = ([], [])
    for run in PUBLISHED_RUNS if runs is None else runs:
        counts[run.group] = counts.get(run.group, 0) + 1
        halves[(counts[run.group] - 1) % 2].append(run)
    return tuple(halves[0]), tuple(halves[1])


def fit_utilization(runs: Sequence[PublishedRun]) -> dict[tuple[str, str, str], float]:
    """Fits what share of the peak training reaches, by device, format and scope: the median.

    Args:
        runs: that calibrate, as `split_runs` gives them.

    Returns:
        The utilization of each group, from 0 to 1, recomputation included.

    Raises:
        InputError: if there are no runs.

    Limits:
        One number for models from 2 to 1000 billion parameters and for any number of devices.
        Small models, long contexts and new hardware reach less.

    Example:
        >>> fit = fit_utilization(split_runs()[0])
        >>> 0.4 < fit["NVIDIA A100", "bfloat16", "step"] < 0.55
        True

    References:
        Chowdhery et al., PaLM (2022), section 4.1 and appendix B, for utilization.
    """
    if not runs:
        raise InputError("runs", "must hold at least one run", 0, "pass PUBLISHED_RUNS")
    groups: dict[tuple[str, str, str], list[float]] = {}
    for run in runs:
        groups.setdefault(run.group, []).append(run.utilization)
    return {group: median(values) for group, values in groups.items()}


def predict_runs(
    runs: Sequence[PublishedRun] | None = None, *, is_swapped: bool = False
) -> tuple[RunPrediction, ...]:
    """Predicts the time of published runs from the utilization of every other one.

    Args:
        runs: `PUBLISHED_RUNS` by default.
        is_swapped: the other half calibrates.

    Returns:
        A prediction of each run, calibrating or not, in the order given; those of groups that
        nothing calibrates are left out.

    Raises:
        InputError: if there are no runs.

    Limits:
        A run that is alone in its group calibrates it and is no test.

    Example:
        >>> held_out = [run for run in predict_runs() if not run.is_calibration]
        >>> max(abs(run.error) for run in held_out) < 0.25
        True
    """
    chosen = PUBLISHED_RUNS if runs is None else tuple(runs)
    calibration = split_runs(chosen)[is_swapped]
    fit = fit_utilization(calibration)
    predictions = []
    for run in chosen:
        if run.group in fit:
            seconds = run.flops / (run.peak_flops * fit[run.group])
            prediction = RunPrediction(
                name=run.name,
                is_calibration=run in calibration,
                measured_device_hours=run.device_seconds * 1e9 / 3600,
                predicted_device_hours=seconds * 1e9 / 3600,
                utilization=run.utilization,
                source=run.source,
            )
            predictions.append(prediction)
    return tuple(predictions)


def _load_runs() -> tuple[PublishedRun, ...]:
    table = load_table("runs.toml")
    shapes = {name: make_architecture(fields) for name, fields in table["shapes"].items()}
    shapes |= {name: model.architecture for name, model in PUBLISHED_MODELS.items()}
    return tuple(_make_run(fields, table, shapes[fields["shape"]]) for fields in table["runs"])


def _make_run(
    fields: dict[str, Any], table: dict[str, Any], architecture: Architecture
) -> PublishedRun:
    length = fields["sequence_length"]
    flops = (
        estimate_training_flops(
            architecture,
            num_tokens=length,
            sequence_length=length,
            recomputation=fields["recomputation"],
        ).total
        / length
    )
    if "device_flops" in fields:
        seconds = flops / float(fields["device_flops"])
    elif "device_hours" in fields:
        seconds = 3600 * fields["device_hours"] / fields["num_tokens"]
    else:
        seconds = fields["seconds"] * fields["num_devices"] / fields["num_tokens"]
    peaks = table["devices"][fields["device"]]["peak_flops"]
    return PublishedRun(
        name=fields["name"],
        architecture=architecture,
        device=fields["device"],
        dtype=fields["dtype"],
        scope=fields["scope"],
        flops=flops,
        device_seconds=seconds,
        peak_flops=float(peaks[fields["dtype"]]),
        source=table["sources"][fields["source"]],
    )


PUBLISHED_RUNS: tuple[PublishedRun, ...] = _load_runs()
"""Published runs, in the order of their sources."""
