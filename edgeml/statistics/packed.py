"""Counts as bytes, as few as they can be, and back.

There are two forms. The plain one has in this order: how many cells, how many sums, the cells, the
sums, and what of the extremes and labels there is. All are variable-length integers of seven bits a
byte, the lowest first, with the high bit where another byte follows (LEB128); what may be negative
is folded first (0, −1, 1, −2 …). A zero among cells and sums is followed by how many more zeros
there are behind it. The predictive one, of numbers only, is a zero byte, with which no plain one
begins, and what :mod:`edgeml.statistics.predictive` writes. It is taken where it is the shorter.

Each form is canonical: it has one spelling of each counts, and other bytes are refused. So is the
predictive one where the plain one is as short. The plain one is read of numbers, too: devices sent
it and collectors stored it before there was another. Neither needs a grid to be read, so that
whoever merges windows need not know their baseline.
"""

from __future__ import annotations

from collections.abc import Iterable

from edgeml.errors import StatisticsError
from edgeml.statistics import predictive
from edgeml.statistics.categorical import LONGEST_LABEL, bounded
from edgeml.statistics.counts import NOTHING, Counts
from edgeml.statistics.golomb import folded, unfolded, unreadable
from edgeml.statistics.grid import MAX_DIMENSIONS, MAX_VALUES, PROJECTIONS, Grid

MOST_CELLS = MAX_VALUES + 2
MOST_SUMS = MAX_DIMENSIONS + 2 * PROJECTIONS
LARGEST = predictive.LARGEST
"""No number is above it."""

_PREDICTIVE = b"\0"

_LABELS = 1
_EXTREMES = 2
_SOME = 4


def pack(counts: Counts) -> bytes:
    """Counts as bytes; their grid is not among them."""
    written = plain(counts)
    parts = (counts.cells.tolist(), counts.sums.tolist(), counts.extremes.tolist())
    numbers = predictive.Numbers(*parts)
    if counts.labels or not predictive.fits(numbers):
        return written
    return min(written, _PREDICTIVE + predictive.write(numbers), key=len)


def plain(counts: Counts) -> bytes:
    """Counts as bytes in the plain form."""
    out = bytearray()
    _put(out, counts.cells.size)
    _put(out, counts.sums.size)
    _put_all(out, counts.cells.tolist())
    _put_all(out, [folded(each) for each in counts.sums.tolist()])
    labels = sorted(counts.labels)
    smallest, largest, run = counts.extremes.tolist() or (NOTHING, -NOTHING, 0)
    some = smallest <= largest
    extremes = _EXTREMES if counts.extremes.size else 0
    _put(out, extremes | (_LABELS if labels else 0) | (_SOME if some else 0))
    if extremes:
        _put(out, run)
    if some:
        _put(out, folded(smallest))
        _put(out, largest - smallest)
    if labels:
        _put(out, len(labels))
    for label in labels:
        text = label.encode(errors="surrogatepass")
        _put(out, len(text))
        out += text
    return bytes(out)


def unpack(data: bytes, grid: Grid) -> Counts:
    """Counts on ``grid`` from bytes.

    Raises:
        StatisticsError: they are no counts, or not on this grid.
    """
    counts = _read(data, grid.hash)
    found = counts.shape
    wanted = (grid.cells, grid.sums, grid.extremes)
    if found != wanted or (counts.labels and grid.kind != "categorical"):
        raise StatisticsError(
            f"counts of {' + '.join(map(str, found))} numbers",
            expected=f"{' + '.join(map(str, wanted))} of the {grid.kind} grid {grid.hash}",
            remedy="Counts of two baselines do not merge: keep them apart.",
        )
    return counts


def merged(first: bytes, second: bytes) -> bytes:
    """The sum of two counts on one grid, whatever it is.

    Raises:
        StatisticsError: one is no counts, or they are not of the same shape.
    """
    return pack(_read(first, "") + _read(second, ""))


def _put(out: bytearray, number: int) -> None:
    while number >= 0x80:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)


def _put_all(out: bytearray, numbers: Iterable[int]) -> None:
    zeros = 0
    for number in numbers:
        if number == 0:
            zeros += 1
            continue
        if zeros:
            out.append(0)
            _put(out, zeros - 1)
            zeros = 0
        _put(out, number)
    if zeros:
        out.append(0)
        _put(out, zeros - 1)


class _Reader:
    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    @property
    def done(self) -> bool:
        return self._at == len(self._data)

    def one(self, most: int) -> int:
        """The next integer, 0 … ``most``."""
        number = shift = 0
        data, at = self._data, self._at
        while True:
            if at == len(data):
                raise unreadable("they end in the middle")
            byte = data[at]
            at += 1
            number |= (byte & 0x7F) << shift
            if byte < 0x80:
                break
            shift += 7
            if shift > 63:
                raise unreadable("a number of more than 64 bits")
        if byte == 0 and shift:
            raise unreadable("a number with a zero in front")
        if number > most:
            raise unreadable(f"{number:,} where at most {most:,} is possible")
        self._at = at
        return number

    def many(self, length: int) -> list[int]:
        """So many integers, with their runs of zeros."""
        found: list[int] = []
        zeros = False  # a run of them has just ended, so that another is not canonical
        while len(found) < length:
            number = self.one(2 * LARGEST)
            if number:
                found.append(number)
                zeros = False
                continue
            if zeros:
                raise unreadable("a run of zeros in two")
            found += [0] * (1 + self.one(length - len(found) - 1))
            zeros = True
        return found

    def text(self) -> str:
        """The next text."""
        length = self.one(4 * LONGEST_LABEL)
        raw = self._data[self._at : self._at + length]
        if len(raw) < length:
            raise unreadable("they end in the middle")
        self._at += length
        try:
            return raw.decode(errors="surrogatepass")
        except UnicodeDecodeError as error:
            raise unreadable("a name that is no UTF-8") from error


def _read(data: bytes, grid: str) -> Counts:
    if not data.startswith(_PREDICTIVE):
        return _read_plain(data, grid)
    numbers = predictive.read(data[len(_PREDICTIVE) :])
    counts = Counts(grid, *numbers)
    # At least as many bytes the plain form has; writing it takes ten times as long.
    least = 4 + sum(map(int.bit_length, numbers.cells + numbers.sums)) // 7
    if least <= len(data) and len(plain(counts)) <= len(data):
        raise unreadable("they have a plain form that is as short")
    return counts


def _read_plain(data: bytes, grid: str) -> Counts:
    reader = _Reader(data)
    sizes = reader.one(MOST_CELLS), reader.one(MOST_SUMS)
    cells = reader.many(sizes[0])
    if max(cells, default=0) > LARGEST:
        raise unreadable("a count that is too large")
    sums = [unfolded(each) for each in reader.many(sizes[1])]
    what = reader.one(_LABELS | _EXTREMES | _SOME)
    extremes: list[int] = []
    if what & _EXTREMES:
        run = reader.one(LARGEST)
        extremes = [NOTHING, -NOTHING, run]
    if what & _SOME:
        if not extremes:
            raise unreadable("a minimum without extremes")
        smallest = unfolded(reader.one(2 * LARGEST))
        extremes[:2] = smallest, smallest + reader.one(2 * LARGEST)
        if extremes[1] > LARGEST:
            raise unreadable("a maximum that is too large")
    labels: list[str] = []
    if what & _LABELS:
        labels = [reader.text() for _ in range(reader.one(MOST_SUMS))]
        possible = all(len(label) <= LONGEST_LABEL for label in labels)
        if not possible or not labels or labels != sorted(bounded(labels)):
            raise unreadable("names that are too long, too many or in disorder")
    if not reader.done:
        raise unreadable("more bytes than they have numbers")
    return Counts(grid, cells, sums, extremes, labels)
