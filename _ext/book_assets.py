"""What the rendered site carries: MathJax of its own, the icons it uses, nothing idle."""

from __future__ import annotations

import re
import shutil
from importlib import metadata
from pathlib import Path

from sphinx.application import Sphinx
from sphinx.errors import ExtensionError

MATHJAX = "sphinx-mathjax-offline"
# One component sets all of TeX; the fonts and rarer macro packages load when a page uses them.
MATHJAX_PARTS = re.compile(
    r"static/mathjax/(tex-chtml\.js|output/chtml/fonts/woff-v2/.*|input/tex/extensions/.*)$"
)
# Source maps, the theme's translations and templates, and fonts that no browser asks for.
IDLE = ("**/*.map", "locales", "*webpack-macros.html", "vendor/fontawesome/webfonts/*.ttf")

_ICON_NAME = re.compile(r"\bfa-([a-z0-9-]+)")
# `"name":[width,height,["alias"],"code",path]`, a path being a string or a list of them.
_ICON = re.compile(
    r'(?:"([\w-]+)"|\b(\w+)):\[\d+,\d+,\[([^\]]*)\],"[0-9a-f]+",(?:"[^"]*"|\[[^\]]*\])\],?'
)


def finish_assets(app: Sphinx, error: Exception | None) -> None:
    """Completes and slims `_static` after a build of HTML pages."""
    if error is not None or app.builder.format != "html":
        return
    static = Path(app.outdir) / "_static"
    copy_mathjax(static / "mathjax")
    keep_used_icons(Path(app.outdir))
    for pattern in IDLE:
        for path in list(static.glob(pattern)):
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()


def copy_mathjax(destination: Path) -> None:
    """Copies the parts of MathJax that the site needs from the installed package.

    Raises:
        ExtensionError: if the package does not hold them.
    """
    copied = 0
    for file in metadata.files(MATHJAX) or []:
        part = MATHJAX_PARTS.search(file.as_posix())
        if part:
            target = destination / part[1]
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file.locate(), target)
            copied += 1
    if not (destination / "tex-chtml.js").is_file():
        raise ExtensionError(f"`{MATHJAX}` must hold tex-chtml.js. Received: {copied} parts of it")


def keep_used_icons(site: Path) -> None:
    """Drops from the theme's script of some two thousand icons those that no page names."""
    script = site / "_static" / "scripts" / "fontawesome.js"
    readers = [path for path in site.rglob("*") if path.suffix in {".html", ".js"}]
    used: set[str] = set()
    for path in readers:
        if path != script and "mathjax" not in path.parts:
            used |= set(_ICON_NAME.findall(path.read_text(encoding="utf-8")))

    def keep(icon: re.Match[str]) -> str:
        names = {icon[1] or icon[2], *re.findall(r'"([^"]+)"', icon[3])}
        return icon[0] if names & used else ""

    script.write_text(_ICON.sub(keep, script.read_text(encoding="utf-8")), encoding="utf-8")
