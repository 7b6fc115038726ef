"""LIME for images: segments hidden and shown, the same masks for every image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from .._checks import InputError, check_array, check_choice, check_integer, check_real
from ._lime import (
    check_num_samples,
    check_num_segments,
    check_varied,
    fit_surrogates,
    make_explanation,
    make_state,
    weigh_masks,
)
from ._predict import PredictFn, build_predict_fn
from ._result import Explanation, choose_targets

BATCH_SIZE = 256


@dataclass(frozen=True, eq=False)
class ImageSegments:
    """A map of the parts of an image that are hidden together, and what hides them.

    Attributes:
        labels: `(height, width)`, integers; made to run from 0 in their own order.
        hide_value: `"mean"`, of each segment and channel, or one number for all.

    Raises:
        InputError: if the map has fewer than five segments, or the value is neither.

    Limits:
        What hides is a choice that changes the answer: a segment hidden by its own mean keeps
        its brightness, and black is the background itself in many images.

    Example:
        >>> ImageSegments(np.arange(12).reshape(3, 4) // 2, hide_value=0.0).num_segments
        6
    """

    labels: np.ndarray
    hide_value: float | str = "mean"

    def __post_init__(self) -> None:
        labels = check_array("labels", self.labels, shape=(None, None))
        if labels.dtype.kind not in "iu":
            raise InputError(
                "labels", "must be integers", f"dtype {labels.dtype}", "number the segments"
            )
        numbers, labels = np.unique(labels, return_inverse=True)
        fix = "make segments smaller: `make_grid_segments(shape, 4)`"
        check_num_segments("labels", len(numbers), row=0, fix=fix)
        if isinstance(self.hide_value, str):
            check_choice("hide_value", self.hide_value, ("mean",))
        else:
            check_real("hide_value", self.hide_value)
        object.__setattr__(self, "labels", labels.reshape(np.shape(self.labels)))

    @property
    def num_segments(self) -> int:
        """How many segments there are."""
        return int(self.labels.max()) + 1

    def hide(self, images: np.ndarray) -> np.ndarray:
        """Returns the images `(num_rows, height, width, …)` with every segment hidden."""
        if self.hide_value != "mean":
            return np.full_like(images, self.hide_value)
        segments = range(self.num_segments)
        means = [images[:, self.labels == each].mean(axis=1, dtype=float) for each in segments]
        return np.stack(means, axis=1)[:, self.labels].astype(images.dtype)

    def paint(self, values: np.ndarray) -> np.ndarray:
        """Gives each pixel the value of its segment.

        Args:
            values: `(num_rows, num_segments, num_targets)`.

        Returns:
            `(num_rows, height, width, num_targets)`.
        """
        known = check_array("values", values, shape=(None, self.num_segments, None))
        return np.asarray(known[:, self.labels])


def make_grid_segments(
    shape: tuple[int, int], size: int, *, hide_value: float | str = "mean"
) -> ImageSegments:
    """Cuts an image into squares; those at the right and lower edges may be smaller.

    Args:
        shape: height and width in pixels.
        size: side of a square in pixels.
        hide_value: see `ImageSegments`.

    Raises:
        InputError: if fewer than five squares come out, or a size is not positive.

    Example:
        >>> make_grid_segments((4, 6), 2).labels.tolist()
        [[0, 0, 1, 1, 2, 2], [0, 0, 1, 1, 2, 2], [3, 3, 4, 4, 5, 5], [3, 3, 4, 4, 5, 5]]
    """
    height, width = (check_integer("shape", side, at_least=1) for side in shape)
    side = check_integer("size", size, at_least=1)
    across = -(-width // side)
    labels = np.arange(height)[:, None] // side * across + np.arange(width) // side
    return ImageSegments(labels, hide_value=hide_value)


def explain_with_lime_image(
    model: Any,
    inputs: np.ndarray,
    *,
    segments: ImageSegments,
    num_samples: int = 1000,
    targets: int | Sequence[int] | None = None,
    seed: int = 0,
) -> Explanation:
    """Explains images by hiding segments: how much each adds to an output where it is shown.

    All images share the segments, the masks, and the factorized fit.

    Args:
        model: a Keras model, or a function of images.
        inputs: images `(num_rows, height, width)` or `(num_rows, height, width, channels)`.
        segments: what is hidden together and how; `make_grid_segments` makes squares.
        num_samples: masks drawn, the one that shows all counted among them.
        targets: outputs to explain; all by default.
        seed: of the draws. The process's own random state is not touched.

    Returns:
        `values` are the coefficients `(num_rows, num_segments, num_targets)`, which
        `segments.paint` turns into images; `base_values` the intercepts, `standard_errors` the
        spread over other draws, `additivity_errors` the surrogate's error at the image itself.
        In `diagnostics`: `r2`; `num_segments`; `stability`, the mean Jaccard index of the top
        five on two halves of the draws; two seeds agree at least as well.

    Raises:
        InputError: if an argument cannot be used, or an output is the same on all draws.

    Limits:
        Half-hidden images are unlike those the model knows. A high `r2` is no sign of meaning:
        hidden by their means, segments may hardly move the output and yet be fitted well. With
        the same masks the coefficients are those of `lime`.

    Example:
        >>> images = np.random.default_rng(0).random((2, 8, 8, 1))
        >>> found = explain_with_lime_image(
        ...     lambda x: x[:, :2, :2].mean(axis=(1, 2)), images,
        ...     segments=make_grid_segments((8, 8), 2, hide_value=0.0))
        >>> found.values[..., 0].argmax(axis=1).tolist()
        [0, 0]

    References:
        M. T. Ribeiro, S. Singh, C. Guestrin, "Why Should I Trust You?", KDD, 2016.
    """
    images = check_array("inputs", inputs)
    if images.ndim < 3 or images.shape[1:3] != segments.labels.shape:
        height, width = segments.labels.shape
        raise InputError(
            "inputs",
            f"must be images (num_rows, {height}, {width}, …) as the segments are",
            f"shape {images.shape}",
            "pass `image[None]`, or segments of this shape",
        )
    count = check_num_samples(num_samples, num_segments=segments.num_segments)
    state = make_state(seed)
    masks = state.randint(0, 2, count * segments.num_segments).reshape(count, -1)
    masks[0] = 1
    predictions = _predict_masked(build_predict_fn(model), images, segments=segments, masks=masks)
    chosen = choose_targets(targets, num_outputs=predictions.shape[2])
    predictions = predictions[:, :, chosen]
    check_varied(predictions, chosen, fix="explain another output, or use another `hide_value`")
    fit = fit_surrogates(masks, predictions, weights=weigh_masks(masks), seed=seed)
    method = f"LIME on {count:,} masks of {segments.num_segments} segments"
    found = make_explanation(method, [fit], inputs=images, outputs=predictions[0], targets=chosen)
    return replace(found, groups=segments.labels)


def _predict_masked(
    predict: PredictFn, images: np.ndarray, *, segments: ImageSegments, masks: np.ndarray
) -> np.ndarray:
    """Outputs `(num_draws, num_rows, num_outputs)`, a batch of masked images at a time."""
    hidden = segments.hide(images)
    parts = []
    for start in range(0, len(masks), BATCH_SIZE):
        shown = masks[start : start + BATCH_SIZE].astype(bool)[:, segments.labels]
        shown = shown.reshape(*shown.shape, *[1] * (images.ndim - 3))
        pairs = zip(images, hidden, strict=True)
        parts.append(np.stack([predict(np.where(shown, *pair)) for pair in pairs], axis=1))
    return np.concatenate(parts)
