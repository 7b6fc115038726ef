"""Images made worse on purpose, by known amounts, to see when a model gives way."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .._checks import InputError, check_array, check_choice, check_integer

MAX_SEVERITY = 5


def corrupt_images(images: Any, kind: str, *, severity: int, seed: int = 0) -> np.ndarray:
    """Corrupts images by a kind and a severity from 0, unchanged, to 5.

    At severity `s`, *noise* adds normal noise of standard deviation `0.1 s`; *blur* smooths
    with a normal kernel of `0.5 s` pixels; *shift* moves each image `s` pixels in one of
    eight directions and fills with 0; *contrast* takes away `0.18 s` of the distance of
    each pixel from the image's mean; *occlusion* lays a grey square of `3 s` pixels, at
    most the whole image, somewhere. What is random in an image stays the same from one
    severity to the next, so that curves are smooth.

    Args:
        images: `(num_examples, height, width, 1)`, values in [0, 1].
        kind: one of `CORRUPTIONS`.
        severity: from 0 to 5.
        seed: seed of noise, directions and places. Another number of images draws others.

    Returns:
        A new float32 array of the same shape, values in [0, 1].

    Raises:
        InputError: if images have another shape or range, or a choice is unknown.

    Limits:
        Strengths are this project's own, set for 28 × 28 pixels, and do not compare with
        those of published corruption benchmarks.

    Example:
        >>> square = np.zeros((1, 5, 5, 1))
        >>> square[0, 2, 2] = 1
        >>> moved = corrupt_images(square, "shift", severity=1)
        >>> float(moved.sum()), float(moved[0, 2, 2, 0])
        (1.0, 0.0)

    References:
        Hendrycks and Dietterich, Benchmarking Neural Network Robustness to Common
        Corruptions and Perturbations, ICLR 2019.
    """
    given = check_array("images", images, shape=(None, None, None, 1)).astype(np.float32)
    check_choice("kind", kind, CORRUPTIONS)
    strength = check_integer("severity", severity, at_least=0, at_most=MAX_SEVERITY)
    check_integer("seed", seed, at_least=0)
    if given.min() < 0 or given.max() > 1:
        raise InputError(
            "images",
            "must hold values from 0 to 1",
            f"{given.min():g} to {given.max():g}",
            "divide by 255, or undo the normalization",
        )
    if strength == 0:
        return given.copy()
    # Not seeded by severity: the same noise grows, the same direction goes further.
    generator = np.random.default_rng([seed, CORRUPTIONS.index(kind)])
    worse = _CORRUPT[kind](given, strength, generator)
    return np.asarray(np.clip(worse, 0, 1), dtype=np.float32)


def _add_noise(images: np.ndarray, severity: int, generator: np.random.Generator) -> np.ndarray:
    noise = generator.standard_normal(images.shape, dtype=np.float32)
    return np.asarray(images + 0.1 * severity * noise)


def _blur(images: np.ndarray, severity: int, generator: np.random.Generator) -> np.ndarray:  # noqa: ARG001
    deviation = 0.5 * severity
    reach = int(np.ceil(3 * deviation))
    offsets = np.arange(-reach, reach + 1)
    kernel = np.exp(-(offsets**2) / (2 * deviation**2))
    kernel /= kernel.sum()
    for axis in (1, 2):
        length = images.shape[axis]
        # The kernel as a matrix; positions beyond the border count for the border.
        sources = np.clip(np.arange(length)[:, None] + offsets, 0, length - 1)
        matrix = np.zeros((length, length), np.float32)
        np.add.at(matrix, (np.arange(length)[:, None], sources), kernel.astype(np.float32))
        images = np.moveaxis(np.tensordot(images, matrix, axes=(axis, 1)), -1, axis)
    return images


def _shift(images: np.ndarray, severity: int, generator: np.random.Generator) -> np.ndarray:
    num_examples, height, width, _ = images.shape
    steps = [
        (down, right) for down in (-1, 0, 1) for right in (-1, 0, 1) if (down, right) != (0, 0)
    ]
    chosen = generator.integers(len(steps), size=num_examples)
    framed = np.pad(images, ((0, 0), (severity, severity), (severity, severity), (0, 0)))
    moved = np.empty_like(images)
    for number, (down, right) in enumerate(steps):
        top, left = severity * (1 - down), severity * (1 - right)
        moved[chosen == number] = framed[chosen == number, top : top + height, left : left + width]
    return moved


def _lower_contrast(
    images: np.ndarray,
    severity: int,
    generator: np.random.Generator,  # noqa: ARG001
) -> np.ndarray:
    means = images.mean(axis=(1, 2, 3), keepdims=True)
    return np.asarray(means + (1 - 0.18 * severity) * (images - means))


def _occlude(images: np.ndarray, severity: int, generator: np.random.Generator) -> np.ndarray:
    num_examples, *sides, _ = images.shape
    places = generator.random((2, num_examples))
    covered = np.ones((num_examples, 1, 1), bool)
    for axis, side in enumerate(sides):
        length = min(3 * severity, side)
        first = np.floor(places[axis] * (side - length + 1)).astype(int)[:, None]
        inside = (np.arange(side) >= first) & (np.arange(side) < first + length)
        covered = covered & np.expand_dims(inside, 2 - axis)
    return np.where(covered[..., None], np.float32(0.5), images)


_CORRUPT: dict[str, Callable[[np.ndarray, int, np.random.Generator], np.ndarray]] = {
    "noise": _add_noise,
    "blur": _blur,
    "shift": _shift,
    "contrast": _lower_contrast,
    "occlusion": _occlude,
}
CORRUPTIONS = tuple(_CORRUPT)
"""Names of the corruptions."""
