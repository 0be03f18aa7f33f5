"""Writes counts of numbers as edgeml did when its windows were of schema 3: a zero byte, and bits
in exponential Golomb codes. Only their reader is left in edgeml."""

from __future__ import annotations

from itertools import pairwise
from operator import add

from edgeml.statistics import Counts
from edgeml.statistics.folding import folded, outwards
from edgeml.statistics.golomb import (
    _EXTREME,
    _FIRST,
    _RUN,
    _SPECIAL,
    _USUAL,
    _VALUES,
    _bins,
    _ends,
    _halves,
    _learnt,
    _Line,
    _others,
    _parameter,
)
from edgeml.statistics.predictive import Numbers


class Writer:
    """Gathers numbers."""

    def __init__(self) -> None:
        self._bits = self._length = 0

    def put(self, number: int, parameter: int) -> None:
        """Write a number, 0 or more."""
        number += 1 << parameter
        length = 2 * number.bit_length() - 1 - parameter
        self._bits = self._bits << length | number
        self._length += length

    def bytes(self) -> bytes:
        """All that was written."""
        length = (self._length + 7) // 8
        return (self._bits << 8 * length - self._length).to_bytes(length, "big")


def pack_3(counts: Counts) -> bytes:
    """Numeric counts in the predictive form of schema 3, whether or not it is the shorter."""
    parts = (counts.cells.tolist(), counts.sums.tolist(), counts.extremes.tolist())
    return b"\0" + write(Numbers(*parts))


def write(numbers: Numbers) -> bytes:
    """Counts as such bytes."""
    cells, (total, squares), (smallest, largest, run) = numbers
    out = Writer()
    out.put(folded(len(cells) - _USUAL), 0)
    bins = cells[1 : _bins(len(cells)) + 1]
    _write_bins(out, bins)
    others = [cells[0], *cells[len(bins) + 1 :]]
    if not any(others[-_SPECIAL:]):
        del others[-_SPECIAL:]
    out.put(int(len(others) + len(bins) == len(cells)), 0)
    for count, parameter in zip(others, _others(len(cells), bins), strict=False):
        out.put(count, parameter)
    out.put(run, _RUN)
    ends = first, last = _ends(cells[: len(bins) + 2])
    out.put(int(smallest > largest), 0)
    if smallest <= largest:
        out.put(folded(smallest - first), _EXTREME)
        out.put(folded(last - largest), _EXTREME)
        ends = smallest, largest
    line = _Line(cells, len(bins), ends)
    for number, (expected, parameter) in ((total, line.total()), (squares, line.squares(total))):
        out.put(folded(number - expected), parameter)
    return out.bytes()


def _write_bins(out: Writer, bins: list[int]) -> None:
    levels = [bins]
    while len(levels[0]) > 1:
        levels.insert(0, list(map(add, levels[0][::2], levels[0][1::2])))
    out.put(levels[0][0], _VALUES)
    missed = _FIRST
    for wholes, parts in pairwise(levels):
        for whole, half, part in zip(wholes, _halves(wholes), parts[::2], strict=True):
            if whole:
                out.put(outwards(part, half, whole), _parameter(whole, missed))
                missed = _learnt(missed, whole, part - half)
