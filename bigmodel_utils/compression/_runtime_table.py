"""The table of `measure_runtimes`."""

from __future__ import annotations

import html
from dataclasses import asdict, dataclass
from typing import Any

from .._checks import InputError, check_real
from .._report import format_bytes, format_seconds, render_html, render_text
from ..benchmark import Interval
from ._result import Agreement

HEADERS = (
    "model",
    "runtime",
    "precision",
    "batch",
    "median",
    "p99",
    "speed",
    "same choice",
    "file",
)


@dataclass(frozen=True)
class RuntimeRow:
    """One way to run a model.

    Attributes:
        model: its name.
        runtime: what ran it.
        precision: `"as it is"` where the backend itself ran the model.
        batch_size: examples per call.
        file_bytes: size on disk, without an optimizer's state; `None` if there is no file.
        p50_seconds: median time of a call.
        p99_seconds: time that one call in a hundred exceeds.
        speedup: time of the baseline over this one's, paired by round, median with interval;
            the baseline is the first row of the same batch size.
        speedup_lower_quartile: what three calls in four reach or exceed.
        agreement: outputs against those of the first model.
        why_not: why there are no times.
    """

    model: str
    runtime: str
    precision: str
    batch_size: int
    file_bytes: int | None = None
    p50_seconds: float | None = None
    p99_seconds: float | None = None
    speedup: Interval | None = None
    speedup_lower_quartile: float | None = None
    agreement: Agreement | None = None
    why_not: str | None = None

    def __str__(self) -> str:
        return f"{self.model}, {self.runtime}, {self.precision}, batch {self.batch_size}"

    def _list_cells(self) -> list[str]:
        cells = [self.model, self.runtime, self.precision, str(self.batch_size)]
        if self.agreement is None or self.p50_seconds is None or self.p99_seconds is None:
            return [*cells, "", "", self.why_not or "", "", ""]
        return [
            *cells,
            format_seconds(self.p50_seconds),
            format_seconds(self.p99_seconds),
            f"{self.speedup:.2f}",
            f"{self.agreement.same_choice:.1%}",
            format_bytes(self.file_bytes or 0),
        ]


@dataclass(frozen=True)
class RuntimeTable:
    """Models in every runtime that is here.

    Attributes:
        rows: one for each model, runtime, precision and batch size.
        cpu_features: instructions of this CPU that decide how fast integers are; `None` if
            the system does not say.
        tensorflow_threads: threads that TensorFlow used, 0 for as many as it likes; the
            other runtimes used one.
        num_rounds: timed calls of each variant.
    """

    rows: tuple[RuntimeRow, ...]
    cpu_features: tuple[str, ...] | None
    tensorflow_threads: int | None
    num_rounds: int

    def find_winner(self, *, batch_size: int = 1, least_agreement: float = 0.95) -> RuntimeRow:
        """The fastest way to run, on this machine, that still gives the first model's answers.

        Args:
            batch_size: one that was measured.
            least_agreement: share of predictions that must be the first model's, from 0 to 1.

        Raises:
            InputError: if nothing was measured at that batch size, or nothing agrees so far.
        """
        share = check_real("least_agreement", least_agreement, at_least=0, at_most=1)
        found = [
            row
            for row in self.rows
            if row.batch_size == batch_size
            and row.agreement is not None
            and row.agreement.same_choice >= share
        ]
        if not found:
            raise InputError(
                "batch_size",
                f"must be one that was measured, with {share:.0%} of predictions the same",
                batch_size,
                "measure it, or ask for less agreement",
            )
        return max(found, key=lambda row: row.speedup.value if row.speedup else 0.0)

    def to_dict(self) -> dict[str, Any]:
        """Returns the fields as plain data, ready for JSON."""
        return asdict(self)

    def _list_notes(self) -> list[str]:
        features = "not known" if self.cpu_features is None else ", ".join(self.cpu_features)
        notes = [f"CPU: {features}"]
        if self.tensorflow_threads is not None:
            many = self.tensorflow_threads or "as many as it likes"
            notes.append(f"one thread; TensorFlow: {many}; {self.num_rounds} rounds in turns")
        for batch_size in dict.fromkeys(row.batch_size for row in self.rows):
            winner = self.find_winner(batch_size=batch_size)
            notes.append(f"fastest on this machine: {winner}")
        return notes

    def __str__(self) -> str:
        table = render_text(HEADERS, [row._list_cells() for row in self.rows])
        return "\n".join([table, *self._list_notes()])

    def _repr_html_(self) -> str:
        notes = "<br>".join(html.escape(note) for note in self._list_notes())
        return f"{render_html(HEADERS, [row._list_cells() for row in self.rows])}<p>{notes}</p>"
