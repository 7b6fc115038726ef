"""The audit itself: load, measure, judge, and keep the evidence."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .._checks import InputError
from ..standards import (
    EvidenceBundle,
    ReleaseReport,
    check_release,
    find_stale_files,
    write_evidence,
)
from ._arrays import load_arrays
from ._declaration import Declaration
from ._measures import Case, Measure, list_measures
from ._model import load_audited_model


@dataclass(frozen=True)
class Audit:
    """What an audit found.

    Attributes:
        report: the verdict of the gate.
        measured: metrics that were measured here; the others were declared.
        left_out: why a metric was not measured, by metric.
    """

    report: ReleaseReport
    measured: tuple[str, ...]
    left_out: Mapping[str, str]

    def to_dict(self) -> dict[str, Any]:
        """Returns the fields as plain values, ready for JSON."""
        return {
            "report": self.report.to_dict(),
            "measured": list(self.measured),
            "left_out": dict(self.left_out),
        }

    def __str__(self) -> str:
        notes = [f"{metric} was not measured: {why}" for metric, why in self.left_out.items()]
        return "\n".join([str(self.report), *notes])


def audit_model(
    model: str | Path,
    data: str | Path,
    *,
    level: str,
    declaration: Declaration,
    progress: Callable[[str], None] = lambda _: None,
) -> Audit:
    """Measures a model file by the standard and judges it.

    Args:
        model: a `.keras`, `.onnx` or `.tflite` file.
        data: a file of `numpy.savez` with arrays named as in `ARRAYS`.
        level: strictness, one of `standards.LEVELS`.
        declaration: kinds of release, waivers, and measurements of what no file can show. A
            metric that is measured here is not taken from it.
        progress: called with the name of each metric before it is measured.

    Returns:
        The audit. What needs an array that is not there is left out, and the gate finds it
        missing unless it was declared. Where the model's answers are not finite, neither is
        what rests on them.

    Raises:
        InputError: if a file cannot be used, an array does not fit, or a name is unknown.
        MissingExtraError: if a library is not installed.

    Limits:
        Copies of training examples are found if they are exact. Corruptions and shifts are
        those of `data.corrupt_images` and of one pixel, for images with values from 0 to 1.

    Example:
        >>> audit_model(
        ...     "model.keras",
        ...     "data.npz",
        ...     level="production",
        ...     declaration=Declaration(("classifier",)),
        ... )  # doctest: +SKIP
    """
    # A wrong level, subject or declared metric is told before anything long begins.
    check_release(
        declaration.measurements,
        level,
        subjects=declaration.subjects,
        waivers=declaration.waivers,
    )
    case = Case(arrays=load_arrays(data), model=load_audited_model(model))
    measurements = dict(declaration.measurements)
    measured, left_out = [], {}
    if declaration.hashes:
        stale = find_stale_files(declaration.hashes, declaration.folder)
        measurements["stale_parts"] = len(stale)
        measured.append("stale_parts")
    for measure in list_measures(declaration.subjects):
        lacking = _find_lacking(measure, case)
        if lacking:
            if measure.metric not in measurements:
                left_out[measure.metric] = f"it needs {lacking}"
            continue
        progress(measure.metric)
        measurements[measure.metric] = _find(measure, case)
        measured.append(measure.metric)
    report = check_release(
        measurements, level, subjects=declaration.subjects, waivers=declaration.waivers
    )
    return Audit(report, tuple(measured), left_out)


def write_audit_evidence(
    directory: str | Path,
    audit: Audit,
    *,
    model: str | Path,
    data: str | Path,
    declaration: Declaration,
) -> EvidenceBundle:
    """Writes the evidence of an audit, with the hashes of the files that it read.

    Args:
        directory: where the bundle goes; it must not exist or be empty.
        audit: what `audit_model` found.
        model: the file that was audited.
        data: the arrays that it was audited on.
        declaration: as in the audit, with a model card and a data sheet. The files of its
            `hashes` are hashed as they are now.

    Returns:
        The bundle, with the digest to keep elsewhere.

    Raises:
        InputError: as `standards.write_evidence` does, or if a card is missing.
        MissingExtraError: without the libraries of the extra `evidence`.

    Example:
        >>> write_audit_evidence(
        ...     "evidence",
        ...     audit,
        ...     model="model.keras",
        ...     data="data.npz",
        ...     declaration=declaration,
        ... )  # doctest: +SKIP
    """
    model_card, data_sheet = declaration.check_cards()
    files = {name: declaration.folder / name for name in declaration.hashes}
    return write_evidence(
        directory,
        audit.report,
        model_card=model_card,
        data_sheet=data_sheet,
        files=files | {"weights": Path(model), "data": Path(data)},
    )


def _find(measure: Measure, case: Case) -> Any:
    try:
        return measure.find(case)
    except InputError:
        # Answers that nothing can be measured of are a fault of the model, not of the input.
        if np.isfinite(case.outputs).all():
            raise
        return math.nan


def _find_lacking(measure: Measure, case: Case) -> str:
    lacking = [name for name in measure.needs if name != "keras" and name not in case.arrays]
    if "keras" in measure.needs and case.model.keras_model is None:
        lacking.append("a Keras file")
    return " and ".join(lacking)
