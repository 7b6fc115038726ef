"""One table, as HTML for a notebook and as plain text for a terminal."""

from __future__ import annotations

import html
from collections.abc import Sequence

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
