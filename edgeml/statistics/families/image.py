"""Frames: photometry, colour, detail, defects of the sensor, and what changes from frame to frame.

Colour order is taken as RGB. Of BGR frames ``red_green`` and ``blue_green`` change places, and
``warm_order`` and ``sky`` look at the wrong end: a change is seen all the same.

8-bit frames are worked on in integers, and no sum runs over more than one frame: what is counted
does not depend on how frames were batched.
"""

from __future__ import annotations

import math
import zlib
from collections import deque
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeml.statistics.families.family import MISSING, TINY, Batch, Context, Family, Matrix
from edgeml.statistics.families.sampling import Sample, coprime, sample
from edgeml.statistics.grid import NUMERIC_BINS, Grid

PHOTOMETRY = ("luma_mean", "contrast", "clip_low", "clip_high", "top_bottom", "left_right")
DETAIL = ("sharpness", "texture", "noise", "column_defect", "row_defect")
CHANGE = ("frame_difference", "frozen")
COLOUR = ("red_green", "blue_green", "warm_order", "sky")

CLIPPED = 0.01
"""Of the range: a pixel this near to an end of it is clipped."""

RESOLUTION = 1e-4
"""Of the range: what is added before a logarithm is taken, far below a step of 8 bits."""

STILL = 1e-6
"""Likewise of the mean difference of two frames, whose smallest is a step of one pixel."""

DEFECT_FLOOR = 5e-4
"""Of the range: differences of lines below an eighth of a step of 8 bits are no differences."""

MEDIAN_OF = 512
"""Values that a median is taken of, at least, and fewer than twice as many."""

TOGETHER = 1 << 21
"""Values of frames that are worked on at once, thirteen of 224x224: NumPy's calls cost more than
the pixels that are looked at, the more so after an inference, when caches hold nothing of ours.
Seven together take two thirds of what they take in threes. One large frame has more."""

REMEMBERED = 4
"""Frames that a frozen one may repeat: a stuck ring of buffers repeats a few in turn."""


class Memory:
    """What is remembered of the frames before."""

    def __init__(self) -> None:
        self.luma: NDArray[Any] | None = None
        """Raster of the last frame."""
        self.hashes: deque[int] = deque(maxlen=REMEMBERED)


def names(context: Context) -> tuple[str, ...]:
    """Colour is of frames with three channels."""
    return PHOTOMETRY + DETAIL + CHANGE + (COLOUR if context.channels == 3 else ())


def compute(batch: Batch, context: Context, state: Memory | None) -> Matrix:
    """Statistics of frames [n, c, h, w] or [n, h, w, c].

    ``state`` goes from one call to the next; None looks at the batch alone.
    """
    memory = Memory() if state is None else state
    out = np.full((len(batch), len(names(context))), MISSING)
    if not batch.size:
        return out
    step = max(1, TOGETHER * len(batch) // batch.size)
    with np.errstate(all="ignore"):
        for start in range(0, len(batch), step):
            found = _together(batch[start : start + step], context, memory)
            out[start : start + step] = np.array(found).T
    return out


def _together(frames: Batch, context: Context, memory: Memory) -> list[list[float]]:
    """A list a statistic of a number a frame."""
    span = max(context.high - context.low, TINY)
    seen = sample(frames, context)
    luma = np.add.reduce(seen.raster, axis=1, dtype=seen.raster.dtype)
    lines = np.add.reduce(seen.raster, axis=3, dtype=np.float64)
    found = _photometry(luma, lines, context, span)
    found += _detail(seen, span)
    found += _change(luma, lines.shape[1] * span, memory)
    if context.channels == 3:
        found += _colour(seen.raster, lines, context, span)
    return found


def _photometry(
    luma: NDArray[Any], lines: NDArray[np.float64], context: Context, span: float
) -> list[list[float]]:
    """Of the raster, as the channels' sum [n, y, x] and as sums of lines [n, channels, y]: mean,
    standard deviation, share of pixels at either end of the range; the top half's mean less the
    bottom half's, and the left half's less the right half's, in shares of the range. Light comes
    from above, so the first shows a frame upside down; nothing in general tells left from right,
    but one camera's view may."""
    count, high, wide = luma.shape
    channels, pixels = lines.shape[1], high * wide
    by_row = np.add.reduce(lines, axis=1)
    by_column = np.add.reduce(luma, axis=1, dtype=np.float64)
    means = np.add.reduce(by_row, axis=1) / pixels
    flat = luma.reshape(count, pixels).astype(np.float32)
    dark = _shares(flat <= channels * (context.low + CLIPPED * span))
    bright = _shares(flat >= channels * (context.high - CLIPPED * span))
    # Centred first: E[x²] − E[x]² would lose a small variance to rounding.
    flat -= means.astype(np.float32)[:, None]
    return [
        (means / channels).tolist(),
        [math.sqrt(power) / channels for power in _mean_squares(flat, pixels)],
        dark,
        bright,
        _tilt(by_row, wide * channels * span),
        _tilt(by_column, high * channels * span),
    ]


def _shares(found: NDArray[np.bool_]) -> list[float]:
    """Of each of [n, …]."""
    return [int(np.count_nonzero(each)) / each.size for each in found]


def _mean_squares(flat: NDArray[np.float32], count: int) -> list[float]:
    """Σ² over ``count`` of each row of [n, values]."""
    return [float(each @ each) / count for each in flat]


def _tilt(sums: NDArray[np.float64], scale: float) -> list[float]:
    """Mean of the first half of the lines [n, lines] less that of the second."""
    half = sums.shape[1] // 2
    ends = np.add.reduce(sums[:, :half], axis=1) - np.add.reduce(sums[:, -half:], axis=1)
    return (ends / (half * scale)).tolist() if half else [0.0] * len(sums)


def _detail(seen: Sample, span: float) -> list[list[float]]:
    """At native resolution, logarithms to base 10:

    - sharpness: variance of the 4-neighbour Laplacian (Pech-Pacheco and others, "Diatom
      autofocusing in brightfield microscopy", 2000);
    - texture: median of its absolute value, which no few edges carry;
    - noise: standard deviation by the median of the absolute second difference both ways
      (Immerkaer, "Fast noise variance estimation", 1996, with a median where he has a mean: half as
      much of it is texture);
    - column and row defect: the largest difference of a line's mean from its neighbours', over the
      median of all such differences.

    Missing where a frame has less than three rows or columns.
    """
    hop, rows = seen.hop, seen.rows
    if not rows.size or rows.shape[3] < 3 * hop:
        return [[MISSING] * len(rows) for _ in DETAIL]
    twice = rows + rows
    vertical = seen.above + seen.below
    vertical -= twice
    laplacian = _laplacian(rows, vertical, twice, hop)
    flat = laplacian.reshape(len(rows), -1).astype(np.float32, copy=False)
    laplacian = laplacian[..., hop:-hop]
    each = laplacian[0].size
    # A median needs fewer values, but of each channel.
    few = coprime(max(1, each // MEDIAN_OF), hop)
    columns = np.add.reduce(rows, axis=2, dtype=seen.sum_type)
    texture = _median_sizes(laplacian[..., ::few])
    noise = _median_sizes(_second_difference(vertical, hop, every=few))
    return [
        [
            math.log10(variance / (span * span) + RESOLUTION**2)  # The mean is next to 0.
            for variance in _mean_squares(flat, each)
        ],
        [math.log10(size / span + RESOLUTION) for size in texture],
        [math.log10(1.4826 / 6 * size / span + RESOLUTION) for size in noise],
        _defects(columns, hop, span * rows.shape[2]),
        _defects(seen.row_means, 1, span),
    ]


def _laplacian(
    rows: NDArray[Any], vertical: NDArray[Any], twice: NDArray[Any], hop: int
) -> NDArray[Any]:
    """Of [n, planes, rows, line], 0 at both ends of each line. All lines are taken as one, which is
    twice as fast, and what came of neighbours across their ends is no neighbour's and goes."""
    laplacian = vertical - twice
    inner, flat = laplacian.ravel()[hop:-hop], rows.ravel()
    inner += flat[: -2 * hop]
    inner += flat[2 * hop :]
    laplacian[..., :hop] = 0
    laplacian[..., -hop:] = 0
    return laplacian


def _second_difference(lines: NDArray[Any], hop: int, every: int = 1) -> NDArray[Any]:
    """Along the last axis, which loses ``hop`` at either end; of what remains, each how-manieth."""
    here = lines[..., hop:-hop:every]
    difference = lines[..., : -2 * hop : every] - here
    difference -= here
    difference += lines[..., 2 * hop :: every]
    return difference


def _median_sizes(values: NDArray[Any]) -> list[float]:
    """The median of the absolute values of each of [n, …]."""
    sizes = np.abs(values).reshape(len(values), -1)
    middle = sizes.shape[1] // 2
    sizes.partition(middle, axis=1)
    return sizes[:, middle].tolist()


def _defects(means: NDArray[Any], hop: int, span: float) -> list[float]:
    """How far one line stands out, from the means or sums of all lines [n, …, lines]."""
    differences = _second_difference(means, hop)  # Twice as large.
    sizes = np.abs(differences).reshape(len(means), -1)
    floor = 2 * DEFECT_FLOOR * span
    return [
        math.log10((largest + floor) / (usual + floor))
        for largest, usual in zip(
            np.maximum.reduce(sizes, axis=1).tolist(), _median_sizes(sizes), strict=True
        )
    ]


def _change(luma: NDArray[Any], scale: float, memory: Memory) -> list[list[float]]:
    """Logarithm of the mean absolute difference from the last frame, and whether the raster equals
    one of the last frames' to the bit, which a live sensor's noise does not let happen. Missing of
    the first frame, and where frames change their size."""
    differences: list[float] = []
    frozen: list[float] = []
    for now in luma:
        last, memory.luma = memory.luma, now
        name = zlib.crc32(now.tobytes())
        repeated = name in memory.hashes
        memory.hashes.append(name)
        if last is None or last.shape != now.shape:
            differences.append(MISSING)
            frozen.append(MISSING)
            continue
        difference = float(np.add.reduce(np.abs(now - last), axis=None, dtype=np.float64))
        differences.append(math.log10(difference / (now.size * scale) + STILL))
        frozen.append(float(repeated))
    return [differences, frozen]


def _colour(
    raster: NDArray[Any], lines: NDArray[np.float64], context: Context, span: float
) -> list[list[float]]:
    """Log ratios of the channels' means, the share of pixels with red > green > blue, and how much
    bluer the top is than the bottom. In the natural world warm order prevails and the sky is above:
    swapped channels and frames upside down are seen in these."""
    half = max(lines.shape[2] // 2, 1)
    offset = CLIPPED * span - context.low

    def logs(means: NDArray[np.float64]) -> list[list[float]]:
        return [[math.log(max(value, TINY)) for value in each] for each in means.tolist()]

    top, bottom = (
        np.add.reduce(rows, axis=2) / (half * raster.shape[3]) + offset
        for rows in (lines[:, :, :half], lines[:, :, -half:])
    )
    whole, above, below = logs((top + bottom) / 2), logs(top), logs(bottom)
    red, green, blue = (raster[:, channel] for channel in range(3))
    return [
        [r - g for r, g, _ in whole],
        [b - g for _, g, b in whole],
        _shares((red > green) & (green > blue)),
        [(a[2] - a[0]) - (b[2] - b[0]) for a, b in zip(above, below, strict=True)],
    ]


def _grids(context: Context) -> dict[str, Grid]:  # noqa: ARG001
    """Calibration samples are no film, so what changes between frames cannot be fitted to them."""
    return {
        "frame_difference": Grid(
            kind="numeric", bins=NUMERIC_BINS, low=math.log10(STILL) - 0.01, high=0.01
        ),
        "frozen": Grid(kind="categorical", bins=2),
    }


FAMILY = Family(
    names=names,
    compute=compute,
    state=lambda _: Memory(),
    temporal=frozenset(CHANGE),
    grids=_grids,
)
