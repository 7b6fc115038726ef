"""Renders the book from its stored outputs: ``python -m tools.build_book``.

Nothing is executed. Every warning is an error: a page that renders badly is not published.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def main(arguments: Sequence[str] | None = None) -> int:
    """Builds the book and prints where it lies; returns 0 if all went well."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--source", type=Path, default=ROOT, help="folder with _config.yml")
    parser.add_argument("--output", type=Path, help="folder that gets _build (default: source)")
    options = parser.parse_args(arguments)
    output = options.output or options.source
    status = build_book(options.source, output)
    if status == 0:
        print(f"The book is at {(output / '_build' / 'html' / 'index.html').resolve()}")
    return status


def build_book(source: Path, output: Path) -> int:
    """Renders the site to `_build/html` below `output` and returns the exit status.

    It starts afresh each time: a page that left the table of contents must not survive.
    """
    for leftover in ("html", ".doctrees"):
        shutil.rmtree(output / "_build" / leftover, ignore_errors=True)
    start = "import sys; from jupyter_book.cli.main import main; sys.exit(main())"
    options = ["--path-output", str(output), "--all", "--quiet", "-W", "--keep-going"]
    command = [sys.executable, "-c", start, "build", str(source), *options]
    return subprocess.run(command, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
