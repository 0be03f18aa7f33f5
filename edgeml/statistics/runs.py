"""How often one value comes in a row: each stream's longest run, which a stuck sensor lengthens."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float64]
Integers = NDArray[np.int64]
Bytes = NDArray[np.uint8]

_FAR = 1 << 7
"""Rows: runs up to here are found for all streams together, each longer one for itself."""


class Runs:
    """The longest runs of several streams, as their rows come.

    Args:
        streams: how many.
        width: numbers along a line, a multiple of ``streams``: NumPy is given many rows as one, so
            that its inner loops are long.
    """

    def __init__(self, streams: int, *, width: int) -> None:
        self._streams, self._width = streams, width
        self._longest = np.zeros(streams, dtype=np.int64)
        self._run = np.ones(streams, dtype=np.int64)
        """How often each stream has had its last value in a row."""

    def take(self) -> Integers:
        """The longest runs since the last call, and start anew; but the last ones go on."""
        longest, self._longest = self._longest, np.zeros(self._streams, dtype=np.int64)
        return longest

    def add(self, rows: Matrix) -> None:
        """Take in float64 [1 + n, streams], contiguous: the last row of the call before, or NaN,
        and n rows. A NaN is equal to nothing, and so ends a run."""
        flat, streams = rows.ravel(), self._streams
        same = np.zeros(rows.size, dtype=bool)
        np.equal(flat[streams:], flat[:-streams], out=same[streams:])
        if not np.count_nonzero(same):
            self._run = np.ones(streams, dtype=np.int64)
            np.maximum(self._longest, 1, out=self._longest)
            return
        since = _since(same, self._run - 1)
        longest = self._down(since[streams:]) + 1
        run = since[-streams:] + np.int64(1)
        for stream in np.flatnonzero(longest > _FAR):
            column = same[streams + stream :: streams]
            begins = np.flatnonzero(~column)
            lengths = np.diff(begins, prepend=-self._run[stream], append=len(column))
            # The first one is that of the rows before, if it does not go on.
            longest[stream] = lengths[0 if column[0] else 1 :].max()
            run[stream] = lengths[-1]
        np.maximum(self._longest, longest, out=self._longest)
        self._run = run

    def _down(self, since: Bytes) -> Integers:
        """The largest of each stream."""
        whole = since.size // self._width * self._width
        lines, rest = since[:whole].reshape(-1, self._width), since[whole:]
        line = np.maximum.reduce(lines, axis=0, initial=0)
        if rest.size:
            np.maximum(line[: rest.size], rest, out=line[: rest.size])
        return line.reshape(-1, self._streams).max(axis=0).astype(np.int64)


def _since(same: NDArray[np.bool_], first: Integers) -> Bytes:
    """How many rows ago each value's run began, :data:`_FAR` or more if that is as far.

    By doubling, as a prefix sum (Hillis, Steele, "Data parallel algorithms", 1986): a value that is
    that of the row before began one row longer ago. After that step each value knows of two rows,
    then of four, of eight, until all know of a beginning.

    Args:
        same: whether each value is that of the row before, flattened; of the first row nothing.
        first: how many rows ago the runs of the first row began.
    """
    streams = len(first)
    since = same.view(np.uint8) * np.uint8(_FAR)
    since[:streams] = np.minimum(first, _FAR)
    other = np.empty_like(since)
    for power in range(_FAR.bit_length() - 1):
        rows = 1 << power
        step = rows * streams
        other[:step] = since[:step]
        np.add(since[:-step], rows, out=other[step:])
        np.minimum(other[step:], since[step:], out=other[step:])
        since, other = other, since
        # To look whether that is all costs as much as to go on: look every second time.
        if power % 2 and since[streams:].max() < _FAR:
            break
    return since
