"""What some of the counts of numbers foretell of the others, in integers.

Half of a stretch of bins from the stretches beside it; how far extremes lie out from the cells that
they lie in; Σ and Σ² from the cells and the extremes.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import compress, count
from math import isqrt
from operator import add, mul, sub
from typing import NamedTuple

from edgeml.statistics.grid import FINENESS, UNITS
from edgeml.statistics.logarithms import OCTAVE, SHARE, log2, logs, shares
from edgeml.statistics.places import MARGIN

_FARTHEST = MARGIN * UNITS
"""Units beyond the bins at which sums are clipped."""
_SPREAD = UNITS * UNITS // 12
"""Variance of values spread evenly over a bin, in squared units."""
_DEVIATION = isqrt(_SPREAD)


class Slope(NamedTuple):
    """What a line that is not straight brings to the stretches of bins of one level."""

    tilts: list[int]
    """By how many octaves the first half of each holds more than the second, where the density is
    the same at each ratio."""
    loads: list[int]
    """log₂ of how much each holds."""


@lru_cache(maxsize=128)
def slopes(octaves: tuple[int, int], bins: int) -> tuple[Slope, ...]:
    """Of a logarithmic line, of 1, 2, 4 … stretches: the line is straight between powers of two, so
    that the density on it falls by half from one to the next, and jumps back there.

    Args:
        octaves: where the line lies, as :attr:`edgeml.statistics.grid.Grid.octaves` has it.
        bins: on it, 1, 2, 4, 8 … of them.
    """
    start, length = octaves
    part = OCTAVE // FINENESS
    edges = [start * part + length * part * edge // bins for edge in range(bins + 1)]
    # A mantissa of 1 … 2 on the line, and its logarithm.
    places = [edge - edge % OCTAVE + log2(OCTAVE + edge % OCTAVE) for edge in edges]
    heavy = [max(each, 1) for each in map(sub, places[1:], places)]
    found: list[Slope] = []
    while len(heavy) > 1:
        halves = logs(heavy)
        heavy = list(map(add, heavy[::2], heavy[1::2]))
        found.append(Slope(list(map(sub, halves[::2], halves[1::2])), logs(heavy)))
    return tuple(reversed(found))


def halves(wholes: list[int], slope: Slope | None) -> list[int]:
    """How many of the values of each stretch of bins are expected in its first half: as if the
    logarithm of their density were a cubic through the middles of the two stretches on either side.

    Args:
        wholes: 2, 4, 8 … stretches; of 1 or 2 the halves are taken as equal.
        slope: of the line, unless it is straight.
    """
    if len(wholes) <= 2:
        if slope is None:
            return [whole >> 1 for whole in wholes]
        tilts = slope.tilts
    else:
        dense = logs([2 * whole + 1 for whole in wholes])
        if slope is not None:
            dense = list(map(sub, dense, slope.loads))
        tilts = _tilts(dense)
        if slope is not None:
            tilts = list(map(add, tilts, slope.tilts))
    return [whole * each >> SHARE for whole, each in zip(wholes, shares(tilts), strict=True)]


def _tilts(logs: list[int]) -> list[int]:
    """By how much the first half of each stretch is denser than the second, in the logarithm."""
    first, second, third = logs[:3]
    before = 3 * (first - second) + third  # beyond both ends along a parabola
    farther = 3 * (before - first) + second
    third, second, last = logs[-3:]
    after = 3 * (last - second) + third
    logs = [farther, before, *logs, after, 3 * (after - last) + second]
    # The means over halves, of CDF(1, 5): the average-interpolating wavelet.
    return [
        22 * (left - right) - 3 * (farther - farthest) >> 6
        for farther, left, right, farthest in zip(logs, logs[1:], logs[3:], logs[4:], strict=False)
    ]


def overshoot(values: int, beside: int) -> tuple[int, int]:
    """How many units beyond the bins the farthest of so many values is expected, and how
    uncertain that is: as in an exponential tail that is as dense at its beginning as the bin beside
    it, of which the farthest of n values lies ln n times as far out as their mean does."""
    mean = UNITS * values // (beside + 1)
    return mean * values.bit_length() * 3 >> 2, max(mean * 3 // 2, UNITS // 4)


def first_unit(cells: list[int]) -> int:
    """Of the first cell that is not empty, on a line of underflow, bins and overflow."""
    return (next(compress(count(), cells), 1) - 1) * UNITS


class Placing(NamedTuple):
    """Where atoms are, as far as that is taken for known."""

    total: int = 0
    """Σ of those that are placed, from the middle of the bins."""
    squares: int = 0
    placed: int = 0
    """Values in them."""
    others: tuple[int, ...] = ()
    """Values in each of those that may be anywhere."""


def _mean_beyond(values: int, farthest: int) -> int:
    """How far out the mean of a tail may be: of n values in an exponential one the farthest lies
    ln n times as far."""
    return min(max(farthest, 0), _FARTHEST) // (values.bit_length() + 1)


@lru_cache(maxsize=16)
def _middles(cells: int) -> tuple[int, ...]:
    """Those of as many cells, from the middle of all, and twice as large, so that they are
    whole."""
    return tuple(UNITS * step - 1 for step in range(1 - cells, cells, 2))


class Line:
    """What cells and extremes tell of Σ and Σ².

    Args:
        cells: underflow, bins, overflow.
        ends: the smallest and the largest unit that a value lies in.
    """

    def __init__(self, cells: list[int], ends: tuple[int, int]) -> None:
        self._values = sum(cells)
        self._half = half = (len(cells) - 2) * UNITS // 2
        under = _mean_beyond(cells[0], -ends[0])
        over = _mean_beyond(cells[-1], ends[1] + 1 - 2 * half)
        self._outside = under * cells[0] + over * cells[-1]
        middles = list(_middles(len(cells)))
        middles[0], middles[-1] = -2 * (half + under), 2 * (half + over)
        self._narrow(middles, cells, ends)
        # Where the density rises there are more values in the upper half of a bin.
        rises = list(map(sub, cells[4:-2], cells[2:-4]))
        weighted = list(map(mul, cells, middles))
        self._sum = sum(weighted) // 2 + UNITS * sum(rises) // 24
        self._squares = sum(map(mul, weighted, middles)) // 4
        self._squares += _SPREAD * self._values
        self._squares += UNITS * sum(map(mul, rises, middles[3:-3])) // 24

    def _narrow(self, middles: list[int], cells: list[int], ends: tuple[int, int]) -> None:
        """The outermost bins that are not empty reach no farther than the extremes."""
        first = next(compress(count(), cells), 0)
        last = len(cells) - 1 - next(compress(count(), reversed(cells)), 0)
        for cell, end, side in ((first, ends[0], 0), (last, ends[1], UNITS - 1)):
            beyond = end - (cell - 1) * UNITS - side
            if 0 < cell < len(cells) - 1 and abs(beyond) < UNITS:
                middles[cell] += beyond

    def placings(self, atoms: list[int], ends: tuple[int, int]) -> list[Placing]:
        """Where atoms may be: anywhere, the lowest at the minimum, the highest at the maximum, or
        both. Ascending, none of them empty."""
        if not atoms:
            return [Placing()]
        places = [
            min(max(end, -_FARTHEST), 2 * self._half + _FARTHEST) - self._half for end in ends
        ]
        ways = [((), ()), ((0,), places[:1]), ((-1,), places[1:]), ((0, -1), places)]
        found: list[Placing] = []
        for which, at in ways[: min(1 + 2 * len(atoms), len(ways))]:
            counts = [atoms[atom] for atom in which]
            total = sum(map(mul, counts, at))
            squares = sum(map(mul, map(mul, counts, at), at))
            first, last = 0 in which, len(atoms) - (-1 in which)
            found.append(Placing(total, squares, sum(counts), tuple(atoms[first:last])))
        return found

    def best(self, placings: list[Placing], total: int) -> int:
        """Which of them explains best what Σ has besides the values in cells."""

        def missed(which: int) -> int:
            return abs(total - self.total(placings[which])[0])

        return min(range(len(placings)), key=missed)

    def total(self, atoms: Placing) -> tuple[int, int]:
        """What Σ is expected to be, and how uncertain that is."""
        values, free = self._values + atoms.placed, sum(atoms.others)
        scale = _DEVIATION * isqrt(values + free) * 5 // 8 + self._outside // 2
        scale += self._half * free  # they may be anywhere
        return self._sum + atoms.total + self._half * (values + free), scale

    def squares(self, atoms: Placing, total: int) -> tuple[int, int]:
        """The same of Σ², once Σ is known."""
        half, free = self._half, sum(atoms.others)
        values = self._values + atoms.placed + free
        expected = max(self._squares + atoms.squares, 0)
        if free:  # what Σ has besides is theirs; as if they were at one place
            expected += (total - half * values - self._sum - atoms.total) ** 2 // free
        scale = _DEVIATION * isqrt(expected) * 5 // 4 + 2 * half * self._outside
        if len(atoms.others) > 1:
            scale += half * half * free // 8
        return expected + 2 * half * total - half * half * values, scale
