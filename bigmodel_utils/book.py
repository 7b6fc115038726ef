"""What a notebook says to its reader: numbers that prose can bind, verdicts, figures.

`show` prints measured or exact values and makes them available to the text of the page;
`check` bounds a value and prints a verdict without digits, so that it compares equal on
every machine; `figure` draws for light and dark pages alike. All of it also works in a plain
script or in Colab, where there is no book around.
"""

from __future__ import annotations

import html
import io
import json
import math
import os
import re
from pathlib import Path
from typing import Any

from ._checks import InputError, import_extra
from .hardware import TIERS, resolve_tier

# Matplotlib writes these colours into the SVG; the page's style sheet decides what they
# look like. The second value is used where there is no style sheet.
_INK = "#010203"
_PAGE_COLOURS = {
    _INK: "currentColor",
    "#0072b2": "var(--bm-blue, #0072b2)",
    "#d55e00": "var(--bm-orange, #d55e00)",
    "#009e73": "var(--bm-green, #009e73)",
    "#cc3311": "var(--bm-red, #cc3311)",
    "#aa4499": "var(--bm-purple, #aa4499)",
    "#808080": "var(--bm-grey, #808080)",
}
COLOURS = {
    "ink": _INK,
    "blue": "#0072b2",
    "orange": "#d55e00",
    "green": "#009e73",
    "red": "#cc3311",
    "purple": "#aa4499",
    "grey": "#808080",
}
"""Colours of figures by name: distinct to colour-blind readers, legible on light and dark."""


class CheckFailed(AssertionError):  # noqa: N818  (reads as a verdict)
    """A value on a page lies outside the bounds the page promises."""


def show(**values: Any) -> None:
    """Prints values under their names and hands them to the text of the page.

    Prose cites a value with the role ``{glue:text}`name```; nothing is typed twice.

    Args:
        **values: numbers (printed with 4 significant digits), intervals or text.

    Example:
        >>> show(accuracy=0.98765, examples=1797)
        accuracy  0.9877
        examples  1797
    """
    width = max(map(len, values), default=0)
    for name, value in values.items():
        text = _format(value)
        print(f"{name:<{width}}  {text}")  # noqa: T201
        _glue(name, text)


def check(
    claim: str,
    value: Any,
    *,
    at_least: float | None = None,
    at_most: float | None = None,
    equals: Any = None,
    tolerance: float = 0.0,
) -> None:
    """Holds a value against its bounds and prints the claim as a verdict.

    Args:
        claim: one sentence without digits that is true if the bounds hold.
        value: the number, or any value for `equals`.
        at_least: smallest value allowed.
        at_most: largest value allowed.
        equals: value required, to within `tolerance`.
        tolerance: absolute difference from `equals` that is allowed.

    Raises:
        InputError: if the claim holds a digit or no bound is given.
        CheckFailed: if the value lies outside the bounds or is not finite.

    Example:
        >>> check("the accuracy beats chance", 0.98, at_least=0.5)
        ✓ the accuracy beats chance
    """
    if re.search(r"\d", claim):
        raise InputError("claim", "must hold no digits", repr(claim), "bind the number instead")
    bounds = {"at_least": at_least, "at_most": at_most, "equals": equals}
    stated = {name: bound for name, bound in bounds.items() if bound is not None}
    if not stated:
        raise InputError("claim", "needs a bound", "none", "pass at_least, at_most or equals")
    _log_check(claim, value, stated | ({"tolerance": tolerance} if tolerance else {}))
    if not _holds(value, at_least, at_most, equals, tolerance):
        wanted = ", ".join(f"{name} {bound}" for name, bound in stated.items())
        raise CheckFailed(f"{claim}: wanted {wanted}, received {value}")
    print(f"✓ {claim}")  # noqa: T201


def figure(drawing: Any, *, name: str, alt: str, caption: str = "") -> None:
    """Shows a Matplotlib figure as inline SVG that follows the page's light or dark mode.

    Args:
        drawing: the `matplotlib.figure.Figure`; it is closed afterwards.
        name: identifier of the figure, unique on its page.
        alt: what the figure shows, in words, for readers who cannot see it.
        caption: sentence below the figure.

    Raises:
        InputError: if the alternative text is missing.

    Example:
        >>> with figure_style():
        ...     drawing, axes = make_figure()
        >>> figure(drawing, name="empty", alt="An empty pair of axes.")
        [figure empty: An empty pair of axes.]
    """
    if len(alt.strip()) < 20:
        raise InputError("alt", "must describe the figure in words", repr(alt), "write a sentence")
    pyplot = import_extra("matplotlib.pyplot", extra="explain")
    buffer = io.StringIO()
    with figure_style():
        pyplot.rcParams["svg.hashsalt"] = name  # the same drawing gives the same file
        drawing.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    pyplot.close(drawing)
    markup = _adapt_svg(buffer.getvalue(), name, alt)
    below = f"<figcaption>{html.escape(caption)}</figcaption>" if caption else ""
    _display(
        {
            # A narrow page scrolls the figure alone: the keyboard must reach it.
            "text/html": f'<figure class="bm-figure" id="figure-{name}" tabindex="0">'
            f"{markup}{below}</figure>",
            "text/plain": f"[figure {name}: {alt}]",
        },
        # The page may show it elsewhere too: ```{glue} figure_NAME```.
        {"scrapbook": {"name": f"figure_{name}", "mime_prefix": ""}},
    )


def by_tier(*, cpu: Any, gpu: Any = None, full: Any = None) -> Any:
    """Picks the size that fits the tier in force, so that a page's cells stay the same.

    Args:
        cpu: value at tier "cpu", the default.
        gpu: value at tier "gpu"; that of "cpu" if left out.
        full: value at tier "full"; that of "gpu" if left out.

    Returns:
        The value. The environment variable BIGMODEL_TIER decides.

    Raises:
        InputError: if BIGMODEL_TIER names no tier.

    Example:
        >>> by_tier(cpu=4, gpu=16)
        4
    """
    sizes = dict(zip(TIERS, (cpu, gpu, full), strict=True))
    upwards = TIERS[: TIERS.index(resolve_tier()) + 1]
    return next(sizes[tier] for tier in reversed(upwards) if sizes[tier] is not None)


def figure_style() -> Any:
    """Context manager with the book's figure style, a `matplotlib.rc_context`."""
    pyplot = import_extra("matplotlib.pyplot", extra="explain")
    return pyplot.rc_context(
        {
            "figure.constrained_layout.use": True,
            "font.size": 11,
            "font.family": "sans-serif",
            "svg.fonttype": "none",
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.titlelocation": "left",
            "axes.titlesize": 11,
            "axes.grid": True,
            "grid.alpha": 0.15,
            "grid.linewidth": 0.8,
            "lines.linewidth": 2.0,
            "legend.frameon": False,
            "axes.prop_cycle": pyplot.cycler(
                color=[COLOURS[c] for c in ("blue", "orange", "green", "purple", "red")]
            ),
            **dict.fromkeys(
                ("text.color", "axes.edgecolor", "axes.labelcolor", "grid.color"), _INK
            ),
            **dict.fromkeys(("xtick.color", "ytick.color"), _INK),
        }
    )


def make_figure(num_columns: int = 1, *, height: float = 3.2, **options: Any) -> Any:
    """Makes a figure of the page's width and its axes in the book's style.

    Args:
        num_columns: axes side by side.
        height: height in inches; the width is 7.2 inches.
        **options: passed to `matplotlib.pyplot.subplots`, such as `sharey`.

    Returns:
        The figure and its axes (one, or an array of shape `(num_columns,)`).

    Example:
        >>> drawing, axes = make_figure(2)
        >>> len(axes)
        2
    """
    pyplot = import_extra("matplotlib.pyplot", extra="explain")
    with figure_style():
        return pyplot.subplots(1, num_columns, figsize=(7.2, height), **options)


def _holds(
    value: Any, at_least: float | None, at_most: float | None, equals: Any, tolerance: float
) -> bool:
    if isinstance(value, float) and not math.isfinite(value):
        return False
    if equals is not None:
        equal = value == equals if tolerance == 0 else abs(value - equals) <= tolerance
        if not equal:
            return False
    return (at_least is None or value >= at_least) and (at_most is None or value <= at_most)


def _log_check(claim: str, value: Any, bounds: dict[str, Any]) -> None:
    """Appends the value to the file named in the environment, which gathers bands."""
    path = os.environ.get("BIGMODEL_CHECK_LOG")
    if path:
        plain = value.item() if hasattr(value, "item") else value
        with Path(path).open("a", encoding="utf-8") as log:
            log.write(json.dumps({"claim": claim, "value": plain, **bounds}, default=str) + "\n")


def _format(value: Any) -> str:
    if isinstance(value, bool | int | str):
        return str(value)
    return f"{value:.4g}"


def _glue(name: str, text: str) -> None:
    """Publishes a value the way MyST-NB's `glue` does, without needing it installed."""
    prefix = "application/papermill.record/"
    _display({f"{prefix}text/plain": text}, {"scrapbook": {"name": name, "mime_prefix": prefix}})


def _display(bundle: dict[str, str], metadata: dict[str, Any] | None = None) -> None:
    """Shows a bundle in a notebook; elsewhere prints its plain text, if it has one."""
    try:
        from IPython import get_ipython
        from IPython.display import publish_display_data
    except ModuleNotFoundError:
        running = None
    else:
        running = get_ipython()
    if running is not None:
        publish_display_data(bundle, metadata or {})
    elif "text/plain" in bundle:
        print(bundle["text/plain"])  # noqa: T201


def _adapt_svg(svg: str, name: str, alt: str) -> str:
    """Makes an SVG file an element of the page: no prologue, own ids, the page's colours."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    # Identifiers must be unique in the page, where several drawings meet.
    svg = re.sub(r'\b(id="|(?:xlink:)?href="#)', rf"\1{name}-", svg)
    svg = svg.replace("url(#", f"url(#{name}-")
    for colour, replacement in _PAGE_COLOURS.items():
        svg = re.sub(colour, replacement, svg, flags=re.IGNORECASE)
    # Scale with the column: the view box keeps the proportions.
    svg = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'(<svg[^>]*?) width="[^"]*"', r'\1 width="100%"', svg, count=1)
    label = html.escape(alt, quote=True)
    return svg.replace("<svg", f'<svg role="img" aria-label="{label}"', 1).strip()
