"""What the reports of this package have in common: a table as text, as HTML, as a dictionary."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

DTYPE_BYTES = {
    "float64": 8,
    "float32": 4,
    "bfloat16": 2,
    "float16": 2,
    "float8": 1,
    "int8": 1,
    "int4": 0.5,
}
"""Bytes of one number by format."""


Row = Sequence[str]
Table = tuple[Row, Sequence[Row]]
"""Headers and rows."""


def render_html(headers: Row, rows: Sequence[Row]) -> str:
    """The table as HTML; cells are escaped."""
    head = "".join(f'<th scope="col">{html.escape(header)}</th>' for header in headers)
    body = "".join(
        "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in rows
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def render_text(headers: Row, rows: Sequence[Row]) -> str:
    """The table with aligned columns."""
    lines = [headers, *rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


class Report:
    """A frozen dataclass that shows itself as a table of labels and values."""

    def to_dict(self) -> dict[str, Any]:
        """Returns the fields as a plain dictionary, ready for JSON."""
        return asdict(self)  # type: ignore[call-overload, no-any-return]

    def _list_rows(self) -> list[tuple[str, str]]:
        raise NotImplementedError

    def __str__(self) -> str:
        rows = self._list_rows()
        width = max(len(label) for label, _ in rows)
        return "\n".join(f"{label:<{width}}  {value}" for label, value in rows)

    def _repr_html_(self) -> str:
        rows = "".join(
            f'<tr><th scope="row">{html.escape(label)}</th><td>{html.escape(value)}</td></tr>'
            for label, value in self._list_rows()
        )
        return f"<table>{rows}</table>"


Units = tuple[tuple[float, str], ...]

_COUNT_UNITS: Units = (
    (1e12, " trillion"),
    (1e9, " billion"),
    (1e6, " million"),
    (1e3, " thousand"),
)
_BYTE_UNITS: Units = (
    (2.0**50, " PiB"),
    (2.0**40, " TiB"),
    (2.0**30, " GiB"),
    (2.0**20, " MiB"),
    (2.0**10, " KiB"),
)
_SECOND_UNITS: Units = (
    (86400.0, " days"),
    (3600.0, " hours"),
    (60.0, " minutes"),
    (1.0, " seconds"),
    (1e-3, " milliseconds"),
    (1e-6, " microseconds"),
)


def format_count(value: float) -> str:
    """Writes a number with four digits that count: 124.4 million, 1.557 billion, 3.14e+23."""
    return f"{value:.4g}" if abs(value) >= 1e15 else _format(value, _COUNT_UNITS)


def format_bytes(value: float) -> str:
    """Writes bytes in powers of 1024."""
    return _format(value, _BYTE_UNITS) if abs(value) >= 2**10 else f"{value:.4g} B"


def format_seconds(value: float) -> str:
    """Writes a time in the unit that fits it."""
    return _format(value, _SECOND_UNITS)


def _format(value: float, units: Units) -> str:
    for size, unit in units:
        if abs(value) >= size:
            return f"{value / size:.4g}{unit}"
    return f"{value:.4g}"
