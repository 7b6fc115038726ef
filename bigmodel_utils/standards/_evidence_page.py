"""The bundle as a page that a person reads: one file, no script, nothing from elsewhere."""

from __future__ import annotations

import base64
import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .._report import format_bytes, render_html
from ._cards import DataSheet, ModelCard, _Card
from ._clauses import get_clause
from ._digests import ReleasedFile
from ._release import ClauseVerdict, ReleaseReport

IMAGE_TYPES = {".png": "image/png", ".jpg": "image/jpeg", ".svg": "image/svg+xml"}
"""Media type by suffix of what a page can show."""

# The policy makes a browser hold the promise that nothing is fetched and nothing runs.
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"

_STYLE = """
:root { color-scheme: light dark; --line: light-dark(#d0d7de, #3d444d);
  --soft: light-dark(#f6f8fa, #161b22); --good: light-dark(#116329, #57d173);
  --bad: light-dark(#a40e26, #ff8a80); --quiet: light-dark(#57606a, #9ea7b3); }
* { box-sizing: border-box; }
body { font: 16px/1.55 system-ui, sans-serif; max-width: 68rem; margin: 0 auto;
  padding: 2rem 1.25rem 4rem; background: light-dark(#fff, #0d1117);
  color: light-dark(#1f2328, #e6edf3); }
h1 { font-size: 1.7rem; line-height: 1.25; margin: 0 0 .5rem; }
h2 { font-size: 1.3rem; margin: 2.5rem 0 .75rem; padding-top: .75rem;
  border-top: 1px solid var(--line); }
h3 { font-size: 1.05rem; margin: 1.5rem 0 .4rem; }
p { margin: .4rem 0 .8rem; max-width: 46rem; white-space: pre-line; overflow-wrap: anywhere; }
.verdict { font-size: 1.15rem; font-weight: 600; padding: .6rem .9rem; max-width: none;
  border-left: .35rem solid; background: var(--soft); }
.passed { color: var(--good); } .open { color: var(--bad); } .quiet { color: var(--quiet); }
.wide { overflow-x: auto; } .wide table { min-width: 40rem; }
table { border-collapse: collapse; width: 100%; font-size: .9rem; margin: .25rem 0 1rem; }
th, td { text-align: left; vertical-align: top; padding: .4rem .7rem .4rem 0;
  border-bottom: 1px solid var(--line); }
th { color: var(--quiet); font-weight: 600; }
td:first-child { white-space: nowrap; font-weight: 600; }
code, .hash td:nth-child(3) { font-family: ui-monospace, monospace; font-size: .85em;
  overflow-wrap: anywhere; }
figure { margin: 1rem 0; } figcaption { color: var(--quiet); font-size: .9rem; }
img { max-width: 100%; height: auto; background: #fff; padding: .5rem; border-radius: .25rem; }
summary { cursor: pointer; color: var(--quiet); margin: .5rem 0; }
"""


@dataclass(frozen=True)
class EvidencePage:
    """What the page shows; `write` gives it as HTML."""

    report: ReleaseReport
    model_card: ModelCard
    data_sheet: DataSheet
    released: Mapping[str, ReleasedFile]
    pictures: Mapping[str, bytes]
    environment: Mapping[str, Any]

    def write(self) -> str:
        """Returns the page."""
        card = self.model_card
        title = html.escape(f"Evidence for {card.name} {card.version}")
        parts = (
            _write_heading(self.report),
            _write_clauses(self.report),
            _write_released(self.released),
            _write_figures(self.pictures),
            _write_card(card),
            _write_card(self.data_sheet),
            _write_environment(self.environment),
            _VERIFICATION,
        )
        return (
            '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
            '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
            f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
            f"<title>{title}</title>\n<style>{_STYLE}</style>\n</head>\n"
            f"<body>\n<main>\n<h1>{title}</h1>\n{''.join(parts)}</main>\n</body>\n</html>\n"
        )


_VERIFICATION = """<h2>Is this what was written?</h2>
<p>A page cannot vouch for itself. The hash of <code>manifest.json</code>, which holds the \
hashes of all files in this folder, was given to whoever wrote them. Compare it with \
<code>sha256sum manifest.json</code>, or run \
<code>bigmodel_utils.standards.verify_evidence(folder, digest=…)</code>, which checks every \
file. If the folder was signed, pass <code>public_key=…</code> instead.</p>
"""


def _write_heading(report: ReleaseReport) -> str:
    kind, word = ("passed", "✓ Passed") if report.passed else ("open", "✗ Not passed")
    counts = ", ".join(f"{number} {status}" for status, number in report.count_statuses().items())
    subjects = ", ".join(name.replace("_", " ") for name in report.subjects) or "none declared"
    return (
        f'<p class="verdict {kind}">{word} at level {report.level} on {report.checked_on}</p>\n'
        f'<p class="quiet">Clauses: {counts}. Released as: {html.escape(subjects)}.</p>\n'
    )


def _write_clauses(report: ReleaseReport) -> str:
    groups = (
        ("✗ Open", [verdict for verdict in report.verdicts if verdict.is_open]),
        ("Waived", [verdict for verdict in report.verdicts if verdict.status == "waived"]),
        ("✓ Passed", [verdict for verdict in report.verdicts if verdict.status == "passed"]),
    )
    parts = ["<h2>Clauses</h2>\n"]
    for heading, verdicts in groups:
        if verdicts:
            headers = ("Clause", "Requirement", "Measured", "Required", "Status")
            table = _write_table(headers, [_list_verdict(verdict) for verdict in verdicts])
            parts.append(f"<h3>{heading}: {len(verdicts)}</h3>\n{table}")
    others = [verdict for verdict in report.verdicts if verdict.status == "not applicable"]
    rows = [
        (verdict.clause_id, get_clause(verdict.clause_id).requirement, verdict.reason)
        for verdict in others
    ]
    table = _write_table(("Clause", "Requirement", "Why"), rows)
    parts.append(_fold(f"Not applicable: {len(others)}", table) if others else "")
    return "".join(parts)


def _list_verdict(verdict: ClauseVerdict) -> tuple[str, ...]:
    clause = get_clause(verdict.clause_id)
    reason = "" if verdict.reason == clause.requirement else verdict.reason
    status = f"{verdict.status}: {reason}" if reason else verdict.status
    measured = f"{verdict.metric}: {_write_measured(verdict, clause.unit)}"
    return verdict.clause_id, clause.requirement, measured, verdict.requirement, status


def _write_measured(verdict: ClauseVerdict, unit: str) -> str:
    measurement = verdict.measurement
    if measurement is None:
        return "not measured"
    text = f"{measurement.value:.4g} {unit}"
    if measurement.low is not None and measurement.high is not None:
        text += f", {measurement.low:.4g} to {measurement.high:.4g}"
    return text if measurement.measured_on is None else f"{text}, on {measurement.measured_on}"


def _write_released(released: Mapping[str, ReleasedFile]) -> str:
    rows = [
        (
            role,
            file.name,
            file.sha256,
            format_bytes(file.size_bytes),
            f"listing of {file.num_files} files" if file.is_folder else "file",
        )
        for role, file in released.items()
    ]
    table = _write_table(("Role", "Name", "SHA-256", "Size", "Hash of"), rows)
    return f'<h2>What is released</h2>\n<div class="hash">{table}</div>\n'


def _write_figures(pictures: Mapping[str, bytes]) -> str:
    if not pictures:
        return ""
    parts = ["<h2>Figures</h2>\n"]
    for name, content in pictures.items():
        path = Path(name)
        caption = html.escape(path.stem.replace("_", " ").replace("-", " "))
        source = f"data:{IMAGE_TYPES[path.suffix]};base64,{base64.b64encode(content).decode()}"
        parts.append(
            f'<figure><img alt="{caption}" src="{source}">'
            f"<figcaption>{caption}</figcaption></figure>\n"
        )
    return "".join(parts)


def _write_card(card: _Card) -> str:
    name = html.escape(f"{card.title}: {card.name} {card.version}")
    empty, total = len(card.empty_sections), len(card.headings)
    about = f"License: {card.license.strip() or 'not stated'}."
    if empty:
        about += f" {empty} of {total} sections are not stated."
    return f"<h2>{name}</h2>\n<p>{html.escape(about)}</p>\n{card._repr_html_()}\n"


def _write_environment(environment: Mapping[str, Any]) -> str:
    libraries = environment["libraries"]
    about = "{implementation} {python} on {system}, {machine}".format_map(environment)
    table = _write_table(("Library", "Version"), list(libraries.items()))
    return (
        f"<h2>Environment</h2>\n<p>{html.escape(about)}.</p>\n"
        f"{_fold(f'Installed libraries: {len(libraries)}', table)}"
    )


def _write_table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return f'<div class="wide" tabindex="0">{render_html(headers, rows)}</div>\n'


def _fold(summary: str, content: str) -> str:
    return f"<details><summary>{html.escape(summary)}</summary>\n{content}</details>\n"
