"""What an explainer returns: a number for each feature, and what is needed to judge it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np

from .._checks import InputError, check_integer
from .._report import Report
from ._shap import import_shap


@dataclass(frozen=True)
class Explanation(Report):
    """What each feature of each input has to do with chosen outputs of a model.

    Attributes:
        method: what was done, in a few words.
        values: `(num_rows, *feature_shape, num_targets)`, in units of the output.
        base_values: `(num_rows, num_targets)`, the output where no feature is known; for a
            surrogate its intercept.
        outputs: `(num_rows, num_targets)`, the model's outputs for the rows.
        inputs: the rows themselves, of shape `(num_rows, *feature_shape)`; tokens may be text.
        targets: indices of the outputs explained.
        feature_names: names of a row's features, or none.
        standard_errors: of each value, where it was estimated from draws; else `None`.
        diagnostics: what the method says of itself, by name, each an array with one entry for
            each row and target: `r2`, `num_segments`, `completeness_error` …
        groups: number of each feature's group, `feature_shape`, where the values are those of
            groups that come and go together, `(num_rows, num_groups, num_targets)`.

    Limits:
        The values describe the model on its inputs. What the world does is another question.
    """

    method: str
    values: np.ndarray
    base_values: np.ndarray
    outputs: np.ndarray
    inputs: np.ndarray
    targets: tuple[int, ...]
    feature_names: tuple[str, ...] = ()
    standard_errors: np.ndarray | None = None
    diagnostics: Mapping[str, np.ndarray] = field(default_factory=dict)
    groups: np.ndarray | None = None

    @property
    def additivity_errors(self) -> np.ndarray:
        """`|base + sum of values - output|`, of shape `(num_rows, num_targets)`.

        Small is necessary for Shapley values and proves little: a method that shares the output
        out wrongly may add up to it exactly.
        """
        sums = self.values.reshape(len(self.values), -1, len(self.targets)).sum(axis=1)
        return np.asarray(np.abs(self.base_values + sums - self.outputs))

    def find_target(self, target: int | None = None) -> int:
        """Returns the place of an output among those explained; the first by default.

        Raises:
            InputError: if that output was not explained.
        """
        wanted = self.targets[0] if target is None else target
        if wanted not in self.targets:
            raise InputError(
                "target", f"must be one of {self.targets}", wanted, "explain this output too"
            )
        return self.targets.index(wanted)

    def to_dict(self) -> dict[str, Any]:
        """Returns the fields as plain data, ready for JSON."""
        return {each.name: _to_plain(getattr(self, each.name)) for each in fields(self)}

    def to_shap(self, *, target: int | None = None) -> Any:
        """Returns a `shap.Explanation` of one output, for the plots of that library.

        Values of groups are painted onto their features, so that images can be drawn; what is
        drawn then adds up to more than the output.

        Args:
            target: index of the output; the first explained one by default.

        Raises:
            InputError: if that output was not explained.
            MissingExtraError: if shap is not installed.
        """
        shap = import_shap()
        place = self.find_target(target)
        values = self.values[..., place]
        return shap.Explanation(
            values=values if self.groups is None else values[:, self.groups],
            base_values=self.base_values[:, place],
            data=self.inputs,
            feature_names=list(self.feature_names) or None,
        )

    def _list_rows(self) -> list[tuple[str, str]]:
        rows = [
            ("method", self.method),
            ("rows", str(len(self.values))),
            ("features", " × ".join(map(str, self.values.shape[1:-1]))),
            ("outputs explained", ", ".join(map(str, self.targets))),
            ("largest additivity error", f"{self.additivity_errors.max():.2g}"),
        ]
        if self.standard_errors is not None:
            rows.append(("largest standard error", f"{self.standard_errors.max():.2g}"))
        for name, each in self.diagnostics.items():
            label = name.replace("_", " ")
            rows.append((label, f"{np.min(each):.3g} to {np.max(each):.3g}"))
        return rows


def choose_targets(targets: int | Sequence[int] | None, *, num_outputs: int) -> tuple[int, ...]:
    """Returns the outputs to explain as a tuple; all of them for `None`.

    Raises:
        InputError: if one is no output of the model, or none is left.
    """
    if targets is None:
        return tuple(range(num_outputs))
    chosen = [targets] if isinstance(targets, int | np.integer) else list(targets)
    if not chosen:
        raise InputError("targets", "must name an output", "none", "pass its index")
    return tuple(
        check_integer("targets", each, at_least=0, at_most=num_outputs - 1) for each in chosen
    )


def _to_plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, Mapping):
        return {name: _to_plain(each) for name, each in value.items()}
    return list(value) if isinstance(value, tuple) else value
