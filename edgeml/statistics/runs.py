"""How often one value comes in a row: each stream's longest run, which a stuck sensor lengthens.

Where all streams of a window have runs of some length, shorter ones say nothing. Of longer ones
there are few: where they begin and end is written down, and paired when the window ends.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float64]
Integers = NDArray[np.int64]
Bools = NDArray[np.bool_]
Bytes = NDArray[np.uint8]

_FAR = 1 << 7
"""Rows: runs up to here are found for all streams together, each longer one for itself."""

_FEW = 4
"""Rows: there are too many runs of no more than that to write them down."""

_MANY = 4096
"""Beginnings and ends to write down before they are paired."""


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
        """How often each stream has had its last value in a row; unless some are written down."""
        self._long: _Long | None = None
        self._least = 0
        """The shortest of the longest runs of streams that had runs, when it was last looked at."""
        self._sure = np.zeros(streams, dtype=bool)
        """Streams that are known to have had as long a run as those that are written down, since
        the last :meth:`take`."""

    def take(self) -> Integers:
        """The longest runs since the last call, and start anew; but the last ones go on."""
        self._settle()
        longest, self._longest = self._longest, np.zeros(self._streams, dtype=np.int64)
        return longest

    def add(self, rows: Matrix) -> None:
        """Take in float64 [1 + n, streams], contiguous: the last row of the call before, or NaN,
        and n rows. A NaN is equal to nothing, and so ends a run."""
        flat, streams = rows.ravel(), self._streams
        if self._long is None and self._least >= _FEW:
            self._long = _Long(1 << min(self._least, _FAR).bit_length() - 1, self._run)
            self._sure = self._longest >= self._long.least
        if self._long is None:
            same = np.zeros(rows.size, dtype=bool)
            np.equal(flat[streams:], flat[:-streams], out=same[streams:])
            self._add_all(same)
            return
        same = self._long.same(flat)
        edges, last = self._long.edges(same)
        if not self._sure.all():
            # With two edges there is a beginning.
            self._sure |= last | (np.bincount(edges % streams, minlength=streams) > 1)
            unsure, new = ~self._sure, same[-flat.size :]
            if unsure.any() and self._down(new[streams:].view(np.uint8))[unsure].any():
                # Its longest run may be a short one.
                self._settle()
                self._add_all(new)
                return
        self._long.add(same, edges)
        if self._long.written > _MANY:
            self._settle()

    def _add_all(self, same: Bools) -> None:
        """Look at all runs; ``same`` begins with a row that does not count."""
        streams = self._streams
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
        self._took(longest, run)

    def _settle(self) -> None:
        """Look at what is written down."""
        if self._long is not None:
            self._took(*self._long.lengths())
            self._long = None

    def _took(self, longest: Integers, run: Integers) -> None:
        self._run = run
        np.maximum(self._longest, longest, out=self._longest)
        self._least = int(self._longest.min(where=self._longest > 1, initial=self._longest.max()))

    def _down(self, since: Bytes) -> Integers:
        """The largest of each stream."""
        whole = since.size // self._width * self._width
        lines, rest = since[:whole].reshape(-1, self._width), since[whole:]
        line = np.maximum.reduce(lines, axis=0, initial=0)
        if rest.size:
            np.maximum(line[: rest.size], rest, out=line[: rest.size])
        return line.reshape(-1, self._streams).max(axis=0).astype(np.int64)


class _Long:
    """The runs of more than so many rows, for all streams together.

    Args:
        least: so many, a power of two.
        run: how often each stream has had its last value in a row.
    """

    def __init__(self, least: int, run: Integers) -> None:
        self.least, self._streams = least, len(run)
        self._kept = (run > np.arange(least, 0, -1)[:, None]).ravel()
        """Whether each of the last ``least`` rows was the row before, flattened."""
        its = np.flatnonzero(run > least)
        self._edges = [its - (run[its] - least) * self._streams]
        """Where runs were ``least`` rows long and went on, and where these ended, in the rows since
        the beginning, flattened."""
        self._end = 0
        self.written = its.size

    def same(self, flat: Matrix) -> Bools:
        """Whether each value is that of the row before; of ``least`` rows before these, too."""
        kept = self._kept.size
        same = np.empty(kept + flat.size - self._streams, dtype=bool)
        same[:kept] = self._kept
        np.equal(flat[self._streams :], flat[: -self._streams], out=same[kept:])
        return same

    def edges(self, same: Bools) -> tuple[Integers, Bools]:
        """Where long runs begin and end in what :meth:`same` shows, and which go on after it."""
        streams = step = self._streams
        while step < self._kept.size:  # by doubling: more and more rows are all the same
            same = same[step:] & same[:-step]
            step *= 2
        return np.flatnonzero(same[streams:] != same[:-streams]), same[-streams:]

    def add(self, same: Bools, edges: Integers) -> None:
        """Write that down."""
        kept = self._kept.size
        self._edges.append(edges + self._end)
        self._end += same.size - kept
        self._kept = same[-kept:].copy()
        self.written += edges.size

    def lengths(self) -> tuple[Integers, Integers]:
        """The longest run of each stream, 1 where none was long, and that of its last value."""
        at = np.concatenate(self._edges)
        on = np.flatnonzero(np.bincount(at % self._streams, minlength=self._streams) % 2)
        at = np.concatenate([at, self._end + on])
        its = (at % self._streams).astype(np.uint16)
        # One stream after the other, and in each a beginning before its end.
        order = its.argsort(kind="stable")
        begins, ends = at[order].reshape(-1, 2).T
        its = its[order][::2]
        lengths = (ends - begins) // self._streams + self.least
        longest = np.ones(self._streams, dtype=np.int64)
        new = ends >= self._streams  # and not those that the first row ended
        np.maximum.at(longest, its[new], lengths[new])
        run = 1 + self._kept.reshape(-1, self._streams)[::-1].argmin(axis=0)
        run[on] = lengths[ends >= self._end]
        return longest, run


def _since(same: Bools, first: Integers) -> Bytes:
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
