"""Pictures of explanations: those of shap where they are good, own ones for images and tokens."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .._checks import InputError, check_integer, import_extra
from ._result import Explanation
from ._shap import import_shap

# Blue speaks for the output, orange against it: also for the color-blind. The gray of text has
# a contrast of more than four to one on white and on black.
FOR, AGAINST, INK = (0, 114, 178), (213, 94, 0), "#767676"


@dataclass(frozen=True)
class Markup:
    """HTML that a notebook shows, without scripts, styles or files from elsewhere.

    Attributes:
        html: the element.
    """

    html: str

    def _repr_html_(self) -> str:
        return self.html


def plot_waterfall(
    explanation: Explanation, *, row: int = 0, target: int | None = None, max_display: int = 10
) -> Any:
    """Draws how the values of one row lead from the base value to the output.

    Args:
        explanation: with one value for each named or numbered feature of a row.
        row: which row.
        target: index of the output; the first explained one by default.
        max_display: features drawn; the others are summed.

    Returns:
        A matplotlib figure, closed for `pyplot`, with text that is legible on white and black.

    Raises:
        InputError: if there is no such row or output, or a row has more than one axis.
        MissingExtraError: if shap or matplotlib is not installed.
    """
    _check_flat(explanation)
    check_integer("row", row, at_least=0, at_most=len(explanation.values) - 1)
    shap = import_shap()
    drawn = explanation.to_shap(target=target)[row]
    return _draw(lambda: shap.plots.waterfall(drawn, max_display=max_display, show=False))


def plot_beeswarm(
    explanation: Explanation, *, target: int | None = None, max_display: int = 10
) -> Any:
    """Draws the values of all rows, feature by feature, colored by the feature's own value.

    Args:
        explanation: of two rows or more, with one value for each feature.
        target: index of the output; the first explained one by default.
        max_display: features drawn.

    Returns:
        A matplotlib figure, closed for `pyplot`.

    Raises:
        InputError: if there is no such output, or a row has more than one axis.
        MissingExtraError: if shap or matplotlib is not installed.
    """
    _check_flat(explanation)
    shap = import_shap()
    drawn = explanation.to_shap(target=target)
    return _draw(
        lambda: shap.plots.beeswarm(drawn, max_display=max_display, show=False, plot_size=None)
    )


def plot_image(
    axes: Any, explanation: Explanation, *, row: int = 0, target: int | None = None
) -> None:
    """Draws an image in gray with its values over it: blue for the output, orange against.

    Args:
        axes: of matplotlib.
        explanation: with values of shape `(num_rows, height, width, …, num_targets)`.
        row: which row.
        target: index of the output; the first explained one by default.

    Raises:
        InputError: if there is no such row or output, or the rows are no images.
    """
    colors = import_extra("matplotlib.colors", extra="explain")
    values = _pick(explanation, row=row, target=target)
    if values.ndim not in (2, 3):
        raise InputError(
            "explanation", "must be of images", f"rows of shape {values.shape}", "plot_waterfall"
        )
    image = np.asarray(explanation.inputs[row], dtype=np.float64)
    image = image if image.ndim == 2 else image.mean(axis=-1)
    values = values if values.ndim == 2 else values.sum(axis=-1)
    against, speaks_for = (np.array(each) / 255 for each in (AGAINST, FOR))
    limit = np.abs(values).max() or 1.0
    strength = np.abs(values) / limit
    overlay = np.where((values > 0)[..., None], speaks_for, against)
    gray = colors.LinearSegmentedColormap.from_list("ink", ["w", "0.2"])
    # Else a browser would blur the pixels.
    axes.imshow(image, cmap=gray, interpolation="nearest")
    shades = np.concatenate([overlay, 0.85 * strength[..., None]], axis=-1)
    axes.imshow(shades, interpolation="nearest")
    axes.set(xticks=[], yticks=[])
    axes.grid(visible=False)


def render_tokens(
    explanation: Explanation,
    *,
    row: int = 0,
    target: int | None = None,
    tokens: Sequence[str] | None = None,
) -> Markup:
    """Writes a text with the value of each token behind it: blue for, orange against.

    Args:
        explanation: with one value for each token of a row.
        row: which row.
        target: index of the output; the first explained one by default.
        tokens: what to write for each; the inputs of the row by default.

    Returns:
        Markup of well under 50 kB for a thousand tokens; each token tells its value when
        pointed at. Colors are translucent, so the text stays legible on white and on black.

    Raises:
        InputError: if there is no such row or output, or the tokens are not as many as values.

    Example:
        >>> values = np.array([[0.5, -0.25]])[..., None]
        >>> zero = np.zeros((1, 1))
        >>> words = np.array([["good", "film"]])
        >>> shown = render_tokens(Explanation("known", values, zero, zero, words, (0,)))
        >>> "good" in shown.html and "+0.5" in shown.html
        True
    """
    values = _pick(explanation, row=row, target=target)
    written = [str(each) for each in (explanation.inputs[row] if tokens is None else tokens)]
    if values.ndim != 1 or len(written) != len(values):
        raise InputError(
            "tokens",
            f"must be one for each value, {values.shape}",
            f"{len(written)} tokens",
            "pass as many as the row has",
        )
    limit = np.abs(values).max() or 1.0
    parts = []
    for token, value in zip(written, values, strict=True):
        red, green, blue = FOR if value > 0 else AGAINST
        shade = f"rgba({red},{green},{blue},{0.6 * abs(value) / limit:.2f})"
        parts.append(
            f'<span style="background:{shade}" title="{value:+.3g}">{html.escape(token)}</span>'
        )
    return Markup(f'<p style="line-height:1.8;white-space:pre-wrap">{" ".join(parts)}</p>')


def _pick(explanation: Explanation, *, row: int, target: int | None) -> np.ndarray:
    check_integer("row", row, at_least=0, at_most=len(explanation.values) - 1)
    return np.asarray(explanation.values[row][..., explanation.find_target(target)])


def _check_flat(explanation: Explanation) -> None:
    if explanation.values.ndim != 3:
        raise InputError(
            "explanation",
            "must have one value for each feature of a row",
            f"values of shape {explanation.values.shape}",
            "plot_image draws images",
        )


def _draw(draw: Any) -> Any:
    """Lets shap draw on a figure of its own, and makes black text gray."""
    pyplot = import_extra("matplotlib.pyplot", extra="explain")
    colors = import_extra("matplotlib.colors", extra="explain")
    figure = pyplot.figure(figsize=(7.2, 4))
    draw()
    for axes in figure.axes:
        texts = [*axes.texts, *axes.get_xticklabels(), *axes.get_yticklabels()]
        for text in [*texts, axes.xaxis.label, axes.yaxis.label]:
            if max(colors.to_rgb(text.get_color())) < 0.7:  # neither white nor a signal color
                text.set_color(INK)
        for spine in axes.spines.values():
            spine.set_color(INK)
        axes.tick_params(color=INK)
    pyplot.close(figure)
    return figure
