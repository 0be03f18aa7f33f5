"""Which pixels of a frame are looked at: enough for its statistics, few enough to leave on.

Some tens of whole rows with their true neighbours (a pixel's Laplacian needs them, but not every
pixel is needed), a coarse raster of pixels within those rows for photometry, and the mean of each
row of the frame over some tens of its columns, since a defect row may hide between sampled rows.

Frames are taken as *lines* in their own order in memory, [n, planes, height, line]: of channels-
last frames one plane with lines of width·channels, in which a pixel's neighbours lie ``hop`` =
channels away; of channels-first frames a plane a channel, with a hop of 1. A transposed copy would
cost more than all the rest.
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
    """What is looked at of n frames; int16 of 8-bit frames, else float32."""

    above: NDArray[Any]
    """[n, planes, rows, line]: the rows over the sampled ones. No rows in frames of less than 3.
    It may be the frames themselves, hence not to be written to."""
    rows: NDArray[Any]
    below: NDArray[Any]
    raster: NDArray[Any]
    """[n, channels, y, x]; at least one pixel."""
    row_means: NDArray[np.float64]
    """[n, height]: of all rows."""
    hop: int
    """From a pixel to its neighbour along a line."""
    sum_type: type[np.int32 | np.float32]
    """That lines are summed in: exact of integers, and fast."""


def sample(frames: Batch, context: Context) -> Sample:
    """Take a sample of frames [n, h, w, c] or [n, c, h, w]."""
    count = len(frames)
    last = context.layout == "NHWC"
    if last:
        height, width, channels = frames.shape[1:]
        hop, lines = channels, frames.reshape(count, 1, height, width * channels)
    else:
        channels, height, width = frames.shape[1:]
        hop, lines = 1, frames
    narrow = frames.dtype.itemsize == 1 and frames.dtype.kind in "iu"
    narrow &= channels <= NARROW_CHANNELS
    kind, sum_type = (np.int16, np.int32) if narrow else (np.float32, np.float32)
    if height >= 3:
        around = (lines[:, :, n : height - 2 + n : context.row_step] for n in range(3))
        above, rows, below = (part.astype(kind, copy=False) for part in around)
        seen = rows = np.ascontiguousarray(rows)
    else:
        seen = lines.astype(kind)
        above = rows = below = seen[:, :, :0]
    every = max(1, width // RASTER)
    if last:
        pixels = seen.reshape(count, -1, width, channels)[:, :, ::every]
        raster = pixels.transpose(0, 3, 1, 2).copy()
    else:
        raster = seen[:, :, :, ::every].copy()
    apart = min(max(1, width * channels // STRIP), width)
    columns = slice(apart // 2, None, apart)
    strip = frames[:, :, columns] if last else lines[:, :, :, columns]
    strip = strip.astype(np.float32).reshape(count, lines.shape[1], height, -1)
    # In half the time of a sum, and of integers as exactly.
    sums: NDArray[np.float32] = np.einsum("npyx->npy", strip)
    means = np.add.reduce(sums, axis=1, dtype=np.float64) / (strip.shape[1] * strip.shape[3])
    return Sample(above, rows, below, raster, means, hop, sum_type)
