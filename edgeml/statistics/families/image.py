"""Frames: photometry, colour, detail, defects of the sensor, and what changes from frame to frame.

Colour order is taken as RGB. Of BGR frames ``red_green`` and ``blue_green`` change places, and
``warm_order`` and ``sky`` look at the wrong end: a change is seen all the same.

8-bit frames are worked on in integers. Frames are looked at one by one, so what is counted does
not depend on how they were batched.
"""

from __future__ import annotations

import math
import zlib
from collections import deque
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeml.statistics.families.family import MISSING, TINY, Batch, Context, Family, Matrix
from edgeml.statistics.families.sampling import Sample, sample
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

MEDIAN_OF = 1024
"""Values that a median is taken of, at least, and fewer than twice as many."""

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
    span = max(context.high - context.low, TINY)
    out = np.empty((len(batch), len(names(context))))
    with np.errstate(all="ignore"):
        for row, frame in zip(out, batch, strict=True):
            if not frame.size:
                row[:] = MISSING
                continue
            seen = sample(frame, context)
            luma = seen.raster[0].copy()
            for channel in seen.raster[1:]:
                luma += channel
            values = _photometry(luma, len(seen.raster), context, span)
            values += _detail(seen, span)
            values += _change(luma, len(seen.raster) * span, memory)
            if context.channels == 3:
                values += _colour(seen.raster, context, span)
            row[:] = values
    return out


def _photometry(luma: NDArray[Any], channels: int, context: Context, span: float) -> list[float]:
    """Of the raster [y, x], the channels' sum: mean, standard deviation, share of pixels at either
    end of the range; the top half's mean less the bottom half's, and the left half's less the right
    half's, in shares of the range. Light comes from above, so the first shows a frame upside down;
    nothing in general tells left from right, but one camera's view may."""
    high, wide = luma.shape
    count = luma.size
    by_row = np.add.reduce(luma, axis=1, dtype=np.float64)
    by_column = np.add.reduce(luma, axis=0, dtype=np.float64)
    mean = float(np.add.reduce(by_row)) / count
    flat = luma.ravel().astype(np.float32)
    dark = int(np.count_nonzero(flat <= channels * (context.low + CLIPPED * span)))
    bright = int(np.count_nonzero(flat >= channels * (context.high - CLIPPED * span)))
    # Centred first: E[x²] − E[x]² would lose a small variance to rounding.
    flat -= np.float32(mean)
    tilts = (
        float(np.add.reduce(sums[: size // 2]) - np.add.reduce(sums[size - size // 2 :]))
        / (max(size // 2, 1) * count / size * channels * span)
        for sums, size in ((by_row, high), (by_column, wide))
    )
    return [
        mean / channels,
        math.sqrt(float(flat @ flat) / count) / channels,
        dark / count,
        bright / count,
        *tilts,
    ]


def _detail(seen: Sample, span: float) -> list[float]:
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
    hop = seen.hop
    if not seen.rows.size or seen.rows.shape[2] < 3 * hop:
        return [MISSING] * len(DETAIL)
    vertical = seen.above  # Ours alone, and not needed again.
    vertical += seen.below
    vertical -= seen.rows
    vertical -= seen.rows
    laplacian = _laplacian(seen.rows, vertical, hop)
    flat = laplacian.ravel().astype(np.float32)
    laplacian = laplacian[:, :, hop:-hop]
    variance = float(flat @ flat) / laplacian.size  # Its mean is next to 0.
    # A median needs fewer values, but of each channel.
    few = max(1, laplacian.size // MEDIAN_OF)
    few += few % hop == 0 and hop > 1
    deviation = 1.4826 / 6 * _median_size(_second_difference(vertical, hop, every=few))
    columns = np.add.reduce(seen.rows, axis=1, dtype=seen.sum_type) / seen.rows.shape[1]
    return [
        math.log10(variance / (span * span) + RESOLUTION**2),
        math.log10(_median_size(laplacian[:, :, ::few]) / span + RESOLUTION),
        math.log10(deviation / span + RESOLUTION),
        _defect(columns, hop, span),
        _defect(seen.row_means[None], 1, span),
    ]


def _laplacian(rows: NDArray[Any], vertical: NDArray[Any], hop: int) -> NDArray[Any]:
    """Of [planes, rows, line], 0 at both ends of each line. All lines are taken as one, which is
    twice as fast, and what came of neighbours across their ends is no neighbour's and goes."""
    laplacian = vertical.copy()
    inner, flat = laplacian.ravel()[hop:-hop], rows.ravel()
    here = flat[hop:-hop]
    inner -= here
    inner -= here
    inner += flat[: -2 * hop]
    inner += flat[2 * hop :]
    laplacian[:, :, :hop] = 0
    laplacian[:, :, -hop:] = 0
    return laplacian


def _second_difference(lines: NDArray[Any], hop: int, every: int = 1) -> NDArray[Any]:
    """Along the last axis, which loses ``hop`` at either end; of what remains, each how-manieth."""
    here = lines[..., hop:-hop:every]
    difference = lines[..., : -2 * hop : every] - here
    difference -= here
    difference += lines[..., 2 * hop :: every]
    return difference


def _median_size(values: NDArray[Any]) -> float:
    """The median of the absolute values."""
    sizes = np.abs(values).ravel()
    middle = sizes.size // 2
    sizes.partition(middle)
    return float(sizes[middle])


def _defect(means: NDArray[np.float64], hop: int, span: float) -> float:
    """How far one line stands out, from the means of all lines [planes, lines]."""
    differences = _second_difference(means, hop)  # Twice as large.
    largest = float(np.maximum.reduce(np.abs(differences), axis=None))
    floor = 2 * DEFECT_FLOOR * span
    return math.log10((largest + floor) / (_median_size(differences) + floor))


def _change(luma: NDArray[Any], scale: float, memory: Memory) -> list[float]:
    """Logarithm of the mean absolute difference from the last frame, and whether the raster equals
    one of the last frames' to the bit, which a live sensor's noise does not let happen. Missing of
    the first frame, and where frames change their size."""
    last, memory.luma = memory.luma, luma
    name = zlib.crc32(luma.tobytes())
    repeated = name in memory.hashes
    memory.hashes.append(name)
    if last is None or last.shape != luma.shape:
        return [MISSING, MISSING]
    difference = float(np.add.reduce(np.abs(luma - last), axis=None, dtype=np.float64))
    return [math.log10(difference / (luma.size * scale) + STILL), float(repeated)]


def _colour(raster: NDArray[Any], context: Context, span: float) -> list[float]:
    """Log ratios of the channels' means, the share of pixels with red > green > blue, and how much
    bluer the top is than the bottom. In the natural world warm order prevails and the sky is above:
    swapped channels and frames upside down are seen in these."""
    sums = np.add.reduce(raster, axis=2, dtype=np.float64)
    half = max(sums.shape[1] // 2, 1)
    above, below = sums[:, :half], sums[:, -half:]
    offset = CLIPPED * span - context.low

    def logs(rows: NDArray[np.float64]) -> list[float]:
        pixels = rows.shape[1] * raster.shape[2]
        means = np.add.reduce(rows, axis=1).tolist()
        return [math.log(max(value / pixels + offset, TINY)) for value in means]

    red, green, blue = logs(sums)
    (red_above, _, blue_above), (red_below, _, blue_below) = logs(above), logs(below)
    warm = (raster[0] > raster[1]) & (raster[1] > raster[2])
    return [
        red - green,
        blue - green,
        int(np.count_nonzero(warm)) / warm.size,
        (blue_above - red_above) - (blue_below - red_below),
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
