"""Resizing as a matrix: one row a pixel of the result, with the weight of every pixel before.

Pixels have their centres at halves, as in Pillow, OpenCV and torch's ``align_corners=False``.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

BAND = 32
"""Pixels of a result that are computed together."""


def matrix(
    length: int, size: int, method: Literal["bilinear", "bicubic", "area"], *, antialias: bool
) -> Array:
    """Weights of a resize along one axis.

    With ``antialias`` those of Pillow (and torch's ``antialias=True``): the filter is as wide as
    the reduction asks for and is cut off at the edges, the rest made to add up to one; bicubic is
    Keys's kernel with a = −.5 ("Cubic convolution interpolation for digital image processing",
    1981). Without, those of torch's ``interpolate`` and OpenCV: two or four neighbours, those over
    the edge taken from it, bicubic with a = −.75. Area is the exact share of each pixel.

    Args:
        length: before.
        size: after.
        method: the filter.
        antialias: see above; of no influence on area.

    Returns:
        float32 [size, length].
    """
    scale = length / size
    weights = np.zeros((size, length))
    pixels = np.arange(length)
    for row in range(size):
        centre = (row + 0.5) * scale
        if method == "area":
            low, high = row * scale, (row + 1) * scale
            overlap = np.minimum(pixels + 1, high) - np.maximum(pixels, low)
            weights[row] = np.maximum(overlap, 0)
        elif antialias:
            stretch = max(scale, 1.0)
            support = stretch * (1.0 if method == "bilinear" else 2.0)
            first = max(0, int(centre - support + 0.5))
            last = min(length, int(centre + support + 0.5))
            inside = pixels[first:last]
            distance = (inside - centre + 0.5) / stretch
            weights[row, first:last] = _kernel(method, distance, a=-0.5)
        else:
            reach = 1 if method == "bilinear" else 2
            base = int(np.floor(centre - 0.5))
            for tap in range(base - reach + 1, base + reach + 1):
                weight = _kernel(method, np.array(tap + 0.5 - centre), a=-0.75)
                weights[row, min(max(tap, 0), length - 1)] += float(weight)
        weights[row] /= weights[row].sum()
    return weights.astype(np.float32)


class Band(NamedTuple):
    """A part of a resize: pixels ``first`` to ``last`` before, and what they make of the next
    pixels after."""

    first: int
    last: int
    weights: Array
    """float32 [last - first, pixels after]: to multiply a row with."""


def bands(weights: Array) -> tuple[Band, ...]:
    """A resize's matrix cut into bands of up to :data:`BAND` rows, each without the pixels that it
    does not look at; a single one where that would save little.

    The matrix is nearly all zeros, since a pixel is made of a few neighbours, and the products
    compute with every zero.

    Args:
        weights: [size, length], of :func:`matrix`.
    """
    size, length = weights.shape
    found: list[Band] = []
    count = -(-size // BAND)
    for number in range(count):
        part = weights[number * size // count : (number + 1) * size // count]
        used = np.flatnonzero(part.any(axis=0))
        first, last = int(used[0]), int(used[-1]) + 1
        found.append(Band(first, last, np.ascontiguousarray(part[:, first:last].T)))
    if sum(band.weights.size for band in found) > weights.size / 2:
        return (Band(0, length, np.ascontiguousarray(weights.T)),)
    return tuple(found)


def nearest(length: int, size: int) -> Array:
    """The pixel that holds the centre of each pixel of the result, as Pillow and torch's
    ``nearest-exact``; in whole numbers, so that a centre on an edge always falls on one side."""
    return (2 * np.arange(size, dtype=np.int64) + 1) * length // (2 * size)


def _kernel(method: str, distance: Array, *, a: float) -> Array:
    x = np.abs(distance)
    if method == "bilinear":
        return np.maximum(1 - x, 0)
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = (((x - 5) * x + 8) * x - 4) * a
    return np.where(x < 1, near, np.where(x < 2, far, 0.0))
