"""Builds the same sources with plain Sphinx: ``python -m tools.build_sphinx``.

The exit from Jupyter Book, kept open: its settings are written out once as a `conf.py`, its
own extensions are dropped, and Sphinx must render every page without a warning.
"""

from __future__ import annotations

import argparse
import pprint
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jupyter_book.config import get_final_config

ROOT = Path(__file__).resolve().parent.parent
OURS = ("jupyter_book", "sphinx_jupyterbook_latex")


def main(arguments: Sequence[str] | None = None) -> int:
    """Builds the book with Sphinx alone; returns 0 if there was no warning."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=ROOT / "_build" / "sphinx")
    output = parser.parse_args(arguments).output.resolve()
    shutil.rmtree(output, ignore_errors=True)
    output.mkdir(parents=True)
    (output / "conf.py").write_text(write_configuration(read_settings()), encoding="utf-8")
    command = [sys.executable, "-m", "sphinx", "-b", "html", "-W", "--keep-going", "-q"]
    command += ["-c", str(output), "-d", str(output / "doctrees"), str(ROOT), str(output / "html")]
    status = subprocess.run(command, check=False).returncode
    if status == 0:
        print(f"Plain Sphinx built the book: {output / 'html' / 'index.html'}")
    return status


def read_settings() -> dict[str, Any]:
    """Returns what Jupyter Book would hand to Sphinx, without its own extensions."""
    settings, _ = get_final_config(
        user_yaml=ROOT / "_config.yml",
        sourcedir=ROOT,
        cli_config={"latex_individualpages": False},
    )
    settings["extensions"] = [name for name in settings["extensions"] if name not in OURS]
    # These are settings of the extensions dropped, or of ones this book never loads.
    return {
        name: value
        for name, value in settings.items()
        if not name.startswith(("latex", "jupyterbook_latex", "use_jupyterbook_latex"))
    }


def write_configuration(settings: dict[str, Any]) -> str:
    """Returns the text of a `conf.py` that holds the settings."""
    lines = ["import sys", f"sys.path.insert(0, {str(ROOT / '_ext')!r})"]
    for name, value in sorted(settings.items()):
        stated = value
        if name in {"templates_path", "html_static_path", "bibtex_bibfiles"}:
            stated = [str(ROOT / path) for path in value]  # Sphinx reads them from conf.py
        elif name in {"html_favicon", "external_toc_path"} and value:
            stated = str(ROOT / value)
        lines.append(f"{name} = {pprint.pformat(stated)}")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
