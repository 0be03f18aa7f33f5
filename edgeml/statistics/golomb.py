"""Counts of numbers as windows of schema 3 have them: read as ever, and no longer written.

They are predicted much as :mod:`edgeml.statistics.predictive` does it, but in exponential Golomb
codes (Teuhola, 1978; those of H.264 and H.265). To a number 2 to the power of its *parameter* is
added, and the sum written in binary, behind as many zeros as it has digits more than that power. So
what is about as large as the power costs about as many bits as it has, and what is far larger twice
as many. Each number has one code, and the last byte is filled up with zeros.

What is foretold here must stay as it is, to the bit: it is how stored counts are read.
"""

from __future__ import annotations

from math import isqrt
from operator import mul, sub

from edgeml.statistics.counts import NOTHING
from edgeml.statistics.folding import inwards, unfolded, unreadable
from edgeml.statistics.grid import MAX_ATOMS, MAX_BINS, NUMERIC_BINS, UNITS
from edgeml.statistics.places import MARGIN
from edgeml.statistics.predictive import LARGEST, Numbers

_SPECIAL = 4
"""The last cells: NaN, -Inf, +Inf, missing."""
_LEAST, _USUAL, _MOST = (bins + 2 + _SPECIAL for bins in (1, NUMERIC_BINS, MAX_BINS + MAX_ATOMS))
"""Cells."""

_VALUES, _RUN, _EXTREME = 12, 1, UNITS.bit_length()
"""Parameters: of how many values are in bins, of the longest run, of how far an extreme lies from
the end of its cell."""

_PRECISION = 40
"""Binary digits that square roots are taken of, besides those of the number."""
_SHARE = 10
"""Those of a share."""
_FIRST = (1 << _SHARE) // 5
"""The share of the values by which the first halving may be missed."""

_FARTHEST = MARGIN * UNITS
"""Units beyond the bins at which sums are clipped."""
_SPREAD = UNITS * UNITS // 12
"""Variance of values spread evenly over a bin, in squared units."""
_DEVIATION = isqrt(_SPREAD)

_LONGEST = 128
"""Zeros before a number at most."""


class Reader:
    """Reads numbers in their order, each with its parameter."""

    def __init__(self, data: bytes) -> None:
        self._bits = bin(int.from_bytes(b"\1" + data, "big"))
        self._at = 3  # behind 0b1

    def one(self, parameter: int, most: int) -> int:
        """The next number, 0 … ``most``."""
        bits, at = self._bits, self._at
        first = bits.find("1", at)
        end = 2 * first - at + parameter + 1
        if first < 0 or end > len(bits):
            raise unreadable("they end in the middle")
        if first - at > _LONGEST:
            raise unreadable(f"a number of more than {_LONGEST} bits")
        number = int(bits[first:end], 2) - (1 << parameter)
        if number > most:
            raise unreadable(f"{number:,} where at most {most:,} is possible")
        self._at = end
        return number

    def end(self) -> None:
        """Nothing may be left."""
        if len(self._bits) - self._at >= 8 or "1" in self._bits[self._at :]:
            raise unreadable("more bytes than they have numbers")


def read(data: bytes) -> Numbers:
    """Counts from bytes.

    Raises:
        StatisticsError: they are no such counts.
    """
    source = Reader(data)
    size = _USUAL + unfolded(source.one(0, 2 * _MOST))
    if not _LEAST <= size <= _MOST:
        raise unreadable(f"{size} cells")
    bins = _read_bins(source, _bins(size))
    parameters = _others(size, bins)
    special = source.one(0, 1)
    if not special:
        del parameters[-_SPECIAL:]
    under, *over = [source.one(parameter, LARGEST) for parameter in parameters]
    if special and not any(over[-_SPECIAL:]):
        raise unreadable("values that are no numbers, none of them")
    cells = [under, *bins, *over, *([] if special else [0] * _SPECIAL)]
    run = source.one(_RUN, LARGEST)
    ends = first, last = _ends(cells[: len(bins) + 2])
    none = source.one(0, 1)
    if not none:
        smallest = first + unfolded(source.one(_EXTREME, 4 * LARGEST))
        largest = last - unfolded(source.one(_EXTREME, 4 * LARGEST))
        if not -LARGEST <= smallest <= largest <= LARGEST:
            raise unreadable(f"a minimum of {smallest:,} with a maximum of {largest:,}")
        ends = smallest, largest
    line = _Line(cells, len(bins), ends)
    total = _near(source, *line.total())
    squares = _near(source, *line.squares(total))
    source.end()
    return Numbers(cells, [total, squares], [*((NOTHING, -NOTHING) if none else ends), run])


def _near(source: Reader, expected: int, parameter: int) -> int:
    number = expected + unfolded(source.one(parameter, 2 * (LARGEST + abs(expected))))
    if abs(number) > LARGEST:
        raise unreadable(f"a sum of {number:,}")
    return number


def _bins(cells: int) -> int:
    """How many of the cells are taken for bins: a power of two."""
    return 1 << (cells - 2 - _SPECIAL).bit_length() - 1


def _read_bins(source: Reader, bins: int) -> list[int]:
    wholes = [source.one(_VALUES, LARGEST)]
    missed = _FIRST
    while len(wholes) < bins:
        parts: list[int] = []
        for whole, half in zip(wholes, _halves(wholes), strict=True):
            part = 0
            if whole:
                part = inwards(source.one(_parameter(whole, missed), whole), half, whole)
                missed = _learnt(missed, whole, part - half)
            parts += part, whole - part
        wholes = parts
    return wholes


def _halves(wholes: list[int]) -> list[int]:
    """How many of the values of each stretch of bins are expected in its first half: as if the
    logarithm of their density were a parabola through the middles of it and of its neighbours."""
    if len(wholes) <= 2:
        return [whole >> 1 for whole in wholes]
    # Fourth roots: the halves' middles are a quarter as far apart as those of both neighbours.
    roots = [isqrt(isqrt((2 * whole + 1) << _PRECISION)) for whole in wholes]
    before = roots[0] ** 3 * roots[2] // roots[1] ** 3
    after = roots[-1] ** 3 * roots[-3] // roots[-2] ** 3
    sides = zip(wholes, [before, *roots[:-1]], [*roots[1:], after], strict=True)
    return [whole * left // (left + right) for whole, left, right in sides]


def _parameter(whole: int, missed: int) -> int:
    """Of a half: it is missed by chance, by about the root of the whole, or because the density is
    another one, as those before it were."""
    chance, shape = isqrt(whole), whole * missed >> _SHARE
    return (chance if chance > shape else shape).bit_length() - 1


def _learnt(missed: int, whole: int, distance: int) -> int:
    """The share of the values by which halves were missed; the last one counts half."""
    return missed + (abs(distance) << _SHARE) // whole >> 1


def _others(cells: int, bins: list[int]) -> list[int]:
    """Parameters of all cells that are no bins: an end has a thousandth of the values, an atom a
    twentieth of them, and what is no number is rare."""
    digits = sum(bins).bit_length()
    atoms = cells - len(bins) - 2 - _SPECIAL
    return [max(digits - 10, 0)] * 2 + [max(digits - 4, 0)] * atoms + [0] * _SPECIAL


def _ends(line: list[int]) -> tuple[int, int]:
    """The first and the last unit of the cells that are not empty."""
    filled = [cell for cell, count in enumerate(line) if count] or [1]
    return (filled[0] - 1) * UNITS, filled[-1] * UNITS - 1


class _Line:
    """What cells and extremes tell of the sums.

    Args:
        cells: all of them.
        bins: how many are bins.
        ends: the smallest and the largest unit that a value lies in, as far as they are known.
    """

    def __init__(self, cells: list[int], bins: int, ends: tuple[int, int]) -> None:
        counts, atoms = cells[: bins + 2], cells[bins + 2 : -_SPECIAL]
        self._values = sum(counts) + sum(atoms)
        self._half = half = bins * UNITS // 2
        first, last = _ends(counts)
        reach = [min(max(each, 0), _FARTHEST) for each in (-ends[0], ends[1] + 1 - 2 * half)]
        # How far out the mean of a tail may be: of n values in an exponential one the farthest lies
        # ln n times as far.
        under, over = (
            most // (count.bit_length() + 1)
            for most, count in zip(reach, (counts[0], counts[-1]), strict=True)
        )
        self._outside = under * counts[0] + over * counts[-1]
        # From the middle of the bins, and twice as large, so that they are whole.
        middles = [UNITS * step - 1 for step in range(-bins - 1, bins + 2, 2)]
        middles[0], middles[-1] = -2 * (half + under), 2 * (half + over)
        # Where the density rises there are more values in the upper half of a bin.
        rises = list(map(sub, counts[3:-1], counts[1:-3]))
        self._sum = sum(map(mul, counts, middles)) // 2 + UNITS * sum(rises) // 24
        self._squares = sum(map(mul, counts, map(mul, middles, middles))) // 4
        self._squares += _SPREAD * sum(counts) + UNITS * sum(map(mul, rises, middles[2:-2])) // 24
        # An extreme that is in no cell, or as far out as sums tell apart, is that of an atom.
        if atoms and ends[0] < first and (not counts[0] or reach[0] == _FARTHEST):
            self._place(atoms, 0, max(ends[0], -_FARTHEST) - half)
        if atoms and ends[1] > last and (not counts[-1] or reach[1] == _FARTHEST):
            self._place(atoms, -1, min(ends[1] - half, half + _FARTHEST))
        self._atoms = [count for count in atoms if count]

    def _place(self, atoms: list[int], atom: int, place: int) -> None:
        count, atoms[atom] = atoms[atom], 0
        self._sum += count * place
        self._squares += count * place * place

    def total(self) -> tuple[int, int]:
        """What Σ is expected to be, and the parameter of its distance from that."""
        scale = _DEVIATION * isqrt(self._values) + self._outside // 2
        scale += self._half * sum(self._atoms)  # they may be anywhere
        return self._sum + self._half * self._values, scale.bit_length()

    def squares(self, total: int) -> tuple[int, int]:
        """The same of Σ², once Σ is known."""
        half, atoms, expected = self._half, sum(self._atoms), max(self._squares, 0)
        if atoms:  # what Σ has besides is theirs; as if they were at one place
            expected += (total - half * self._values - self._sum) ** 2 // atoms
        scale = 2 * _DEVIATION * isqrt(expected) + 2 * half * self._outside
        if len(self._atoms) > 1:
            scale += half * half * atoms // 8
        return expected + 2 * half * total - half * half * self._values, scale.bit_length()
