"""Which pixels of a frame are looked at: enough for its statistics, few enough to leave on.

Some tens of whole rows with their true neighbours (a pixel's Laplacian needs them, but not every
pixel is needed), a coarse raster of pixels within those rows for photometry, and the mean of each
row of the frame over some tens of its columns, since a defect row may hide between sampled rows.

A frame is taken as *lines* in its own order in memory, [planes, height, line]: of channels-last
frames one plane with lines of width·channels, in which a pixel's neighbours lie ``hop`` = channels
away; of channels-first frames a plane a channel, with a hop of 1. A transposed copy would cost more
than all the rest.
"""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgeml.statistics.families.family import Batch, Context

SAMPLED_ROWS = 24
"""Rows to look at, at least, and fewer than twice as many; all of them in smaller frames."""

RASTER = 64
"""Columns of the raster, likewise."""

STRIP = 48
"""Values, over all channels, behind a row's mean."""

NARROW_CHANNELS = 64
"""Up to so many channels of 8 bits add up within 16 bits."""


def row_step(height: int) -> int:
    """The step between sampled rows of a frame of ``height`` rows."""
    return max(1, height // SAMPLED_ROWS)


class Sample(msgspec.Struct, frozen=True):
    """What is looked at of one frame; int16 of 8-bit frames, else float32."""

    above: NDArray[Any]
    """[planes, rows, line]: the rows over the sampled ones. No rows in frames of less than 3."""
    rows: NDArray[Any]
    below: NDArray[Any]
    raster: NDArray[Any]
    """[channels, y, x]; at least one pixel."""
    row_means: NDArray[np.float64]
    """[height]: of all rows."""
    hop: int
    """From a pixel to its neighbour along a line."""
    sum_type: type[np.int32 | np.float32]
    """That lines are summed in: exact of integers, and fast."""


def sample(frame: Batch, context: Context) -> Sample:
    """Take a sample of a frame [h, w, c] or [c, h, w]."""
    if context.layout == "NHWC":
        height, width, channels = frame.shape
        hop, lines = channels, frame.reshape(1, height, width * channels)
    else:
        channels, height, width = frame.shape
        hop, lines = 1, frame
    narrow = frame.dtype.itemsize == 1 and frame.dtype.kind in "iu" and channels <= NARROW_CHANNELS
    kind, sum_type = (np.int16, np.int32) if narrow else (np.float32, np.float32)
    step = context.row_step
    if height >= 3:
        above, rows, below = (lines[:, n : height - 2 + n : step].astype(kind) for n in range(3))
        seen = rows
    else:
        seen = lines.astype(kind)
        above = rows = below = seen[:, :0]
    every = max(1, width // RASTER)
    if context.layout == "NHWC":
        raster = seen.reshape(-1, width, channels)[:, ::every].transpose(2, 0, 1).copy()
    else:
        raster = seen[:, :, ::every].copy()
    apart = min(max(1, width * channels // STRIP), width)
    columns = slice(apart // 2, None, apart)
    strip = frame[:, columns] if hop > 1 else lines[:, :, columns]
    strip = strip.astype(np.float32).reshape(len(lines), height, -1)
    # A product with ones sums along the last axis in half the time of a sum, and of integers in
    # float32 as exactly.
    sums = strip @ np.ones(strip.shape[2], np.float32)
    means = np.add.reduce(sums, axis=0, dtype=np.float64) / (strip.shape[0] * strip.shape[2])
    return Sample(above, rows, below, raster, means, hop, sum_type)
