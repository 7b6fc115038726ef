"""What the rendered site carries: MathJax of its own, the icons it uses, nothing idle."""

from __future__ import annotations

import json
import re
import shutil
from importlib import metadata
from pathlib import Path

from sphinx.application import Sphinx
from sphinx.errors import ExtensionError

MATHJAX = "sphinx-mathjax-offline"
# One component sets all of TeX; the fonts and rarer macro packages load when a page uses them,
# each from a file of its own: the one with all packages together is for who asks for it.
MATHJAX_PARTS = re.compile(
    r"static/mathjax/(tex-chtml\.js|output/chtml/fonts/woff-v2/.*"
    r"|input/tex/extensions/(?!all-packages\.js).*)$"
)
# Source maps, the theme's translations and templates, and fonts that no browser asks for.
IDLE = ("**/*.map", "locales", "*webpack-macros.html", "vendor/fontawesome/webfonts/*.ttf")

# A rule such as `html[data-theme="dark"] .highlight .kn { color: #ABC }`, or without a class.
_COLOR = re.compile(r"(\[data-theme=[^\]]*\])?\s*\.highlight\s*(?:\.(\w+))?\s*\{([^}]*)\}")
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
    drop_plain_spans(Path(app.outdir))
    write_notebooks_compactly(Path(app.outdir))
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


def drop_plain_spans(site: Path) -> None:
    """Drops the markup of code that looks like what stands around it, half of its volume."""
    plain = find_plain_classes((site / "_static" / "pygments.css").read_text(encoding="utf-8"))
    if not plain:
        return
    span = re.compile(rf'<span class="(?:{"|".join(sorted(plain))})">([^<]*)</span>')
    for page in site.rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        page.write_text(span.sub(r"\1", text), encoding="utf-8")


def write_notebooks_compactly(site: Path) -> None:
    """Writes the notebooks for download without the blanks that make their JSON readable."""
    for path in site.glob("_sources/**/*.ipynb"):
        notebook = json.loads(path.read_text(encoding="utf-8"))
        text = json.dumps(notebook, ensure_ascii=False, separators=(",", ":"))
        path.write_text(text, encoding="utf-8")


def find_plain_classes(style: str) -> set[str]:
    """Classes of code whose one rule in each theme is the color of all code.

    Args:
        style: the style sheet that Pygments wrote for the site.

    Returns:
        Names such as `n`, a name, and `p`, a bracket or comma.
    """
    looks: dict[str, dict[str, str]] = {}
    for theme, name, body in _COLOR.findall(style):
        rules = dict(rule.split(":", 1) for rule in body.replace(" ", "").split(";") if rule)
        if name:
            looks.setdefault(name, {})[theme] = str(rules)
        else:
            looks.setdefault("", {})[theme] = str({"color": rules.get("color")})
    base = looks.pop("", {})
    return {name for name, seen in looks.items() if base and seen == base}
