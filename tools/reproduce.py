"""Runs a page here and compares with its record: ``python -m tools.reproduce PAGE [--out FILE]``.

``bigmodel reproduce PAGE`` does the same from the root of a checkout. Every value that a check
of the page saw is placed in its band, the range of the recorded runs over seeds and of the run
that the book shows. A value outside the band can still keep the bound of its check: bands are
of one kind of machine, bounds are meant for all.
"""

from __future__ import annotations

import argparse
import datetime
import json
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bigmodel_utils import __version__
from bigmodel_utils._checks import InputError

from . import notebooks
from .notebooks import PageFailedError

SLACK = 1e-6
"""What a number may lie outside a band by, as a share of its size: the rounding of float32."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Reproduces one page; returns 0 if every check holds here."""
    parser = argparse.ArgumentParser(description="Run a page and compare with its record.")
    parser.add_argument("page", help="such as chapters/04_code/training")
    parser.add_argument("--out", type=Path, help="file for the comparison, as JSON")
    options = parser.parse_args(arguments)
    try:
        (path,) = notebooks.select_pages([options.page])
        report = reproduce_page(path)
    except InputError as error:
        parser.error(str(error))
    print(write_summary(report))
    if options.out:
        text = json.dumps(report, indent=2, ensure_ascii=False) + "\n"
        notebooks.write_files({options.out: text})
    return 0 if report["failure"] is None else 1


def reproduce_page(path: Path) -> dict[str, Any]:
    """Runs a page and says of each of its checks where the value lies.

    Returns:
        A dictionary ready for JSON: `page`, `version`, `date`, `machine`, `source_sha256` of
        the page's code, `lock_sha256` of the tested versions, `seconds`, `failure`, `None` or
        the cell and error that ended the run, and `checks` as `compare_checks` returns them.

    Raises:
        InputError: if the page has no record yet.
    """
    recorded = {}
    for kind in ("bands", "run"):
        file = path.with_suffix(f".{kind}.json")
        if not file.is_file():
            raise InputError("page", "must have a record", f"no {file.name}", "run `make execute`")
        recorded[kind] = json.loads(file.read_text(encoding="utf-8"))
    notebook = notebooks.load_notebook(path)
    report: dict[str, Any] = {
        "page": notebooks.page_name(path),
        "version": __version__,
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "machine": notebooks.describe_machine(),
        "source_sha256": notebooks.source_sha256(notebook),
        "lock_sha256": notebooks.lock_sha256(),
    }
    try:
        execution = notebooks.run_notebook(path, on_cell=_tell_cell)
    except PageFailedError as error:
        return report | {"seconds": None, "failure": str(error), "checks": []}
    shown = {check["claim"]: check["value"] for check in recorded["run"]["checks"]}
    checks = compare_checks(execution.checks, recorded["bands"]["checks"], shown)
    return report | {"seconds": execution.seconds, "failure": None, "checks": checks}


def compare_checks(
    seen: Sequence[Mapping[str, Any]],
    bands: Mapping[str, Mapping[str, Any]],
    shown: Mapping[str, Any],
) -> list[dict[str, Any]]:
    """Places what the checks of a run saw in the bands of the record.

    Args:
        seen: `claim` and `value` of each check of the run.
        bands: recorded `values` by claim.
        shown: the value that the book shows, by claim.

    Returns:
        For each check `claim`, `value`, `low` and `high` of its band, `None` where it is no
        number, and `place`: `"inside"`, `"outside"`, `"equal"` or `"different"` for what is no
        number, or `"not recorded"`.
    """
    compared = []
    for check in seen:
        claim, value = check["claim"], check["value"]
        known = [*bands.get(claim, {}).get("values", [])]
        known += [shown[claim]] if claim in shown else []
        low = high = None
        if not known:
            place = "not recorded"
        elif all(map(_is_number, [value, *known])):
            low, high = min(known), max(known)
            slack = SLACK * max(abs(low), abs(high))
            place = "inside" if low - slack <= value <= high + slack else "outside"
        else:
            place = "equal" if value in known else "different"
        compared.append({"claim": claim, "value": value, "low": low, "high": high, "place": place})
    return compared


def write_summary(report: Mapping[str, Any]) -> str:
    """Writes the comparison for people: what lies elsewhere, then the counts."""
    if report["failure"] is not None:
        return f"{report['page']} does not hold here: {report['failure']}"
    checks = report["checks"]
    lines = [
        f"{check['place']}: {check['claim']}, {check['value']:.4g}"
        f" for {check['low']:.4g} to {check['high']:.4g}"
        if check["place"] == "outside"
        else f"{check['place']}: {check['claim']}"
        for check in checks
        if check["place"] not in ("inside", "equal")
    ]
    num_alike = len(checks) - len(lines)
    lines.append(f"{report['page']} holds here: {len(checks)} checks, {num_alike} as recorded")
    return "\n".join(lines)


def _is_number(value: Any) -> bool:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and math.isfinite(value)


def _tell_cell(position: int, count: int, name: str) -> None:
    print(f"\rcell {position} of {count} {name:<40}", end="", file=sys.stderr)
    if position == count:
        print(file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
