"""Counts as bytes, as few as they can be, and back.

There are two forms. The plain one has in this order: how many cells, how many sums, the cells, the
sums, and what of the extremes and labels there is. All are variable-length integers of seven bits a
byte, the lowest first, with the high bit where another byte follows (LEB128); what may be negative
is folded first (0, −1, 1, −2 …). A zero among cells and sums is followed by how many more zeros
there are behind it. The predictive one, of numbers only, is the large integer that
:mod:`edgeml.statistics.predictive` writes, in bytes with which no plain one begins: of a plain one
whose first byte is 128 or more the second is at most 32, since it has no more cells than that. It
is taken where it is the shorter.

Each form is canonical: it has one spelling of each counts, and other bytes are refused. So is the
predictive one where the plain one is as short. Who packs may know the grid; of a logarithmic one
the predictive form then says where the line lies, where that makes it shorter, and so there may be
two spellings of counts on such a grid, with that and without. The plain form is read of numbers,
too, and so is the predictive one of schema 3, which begins with a zero byte
(:mod:`edgeml.statistics.golomb`): devices sent them and collectors stored them before there were
others. No form needs a grid to be read, so that whoever merges windows need not know their
baseline.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from edgeml.errors import StatisticsError
from edgeml.statistics import golomb, predictive
from edgeml.statistics.categorical import LONGEST_LABEL, bounded
from edgeml.statistics.counts import NOTHING, Counts
from edgeml.statistics.folding import folded, unfolded, unreadable
from edgeml.statistics.grid import MAX_DIMENSIONS, MAX_VALUES, PROJECTIONS, Grid

MOST_CELLS = MAX_VALUES + 2
MOST_SUMS = MAX_DIMENSIONS + 2 * PROJECTIONS
LARGEST = predictive.LARGEST
"""No number is above it."""
LONGEST = 1 << 13
"""Bytes of the predictive form; each step of reading it takes as long as the number is."""

_MANY = 4096
"""Of fewer values it never pays to say where a logarithmic line lies."""

_SCHEMA_3 = b"\0"
"""What begins with it has Golomb codes."""

_HIGH, _LOW = 0x80, (MOST_CELLS >> 7) + 1
"""The least first and second byte of the predictive form."""
_LOWS = 0x100 - _LOW
_LEADS = (0x100 - _HIGH) * _LOWS
"""Their combinations, which are the last digit of the number."""

_SEVENS = bytes((digits + 6) // 7 for digits in range(256))
"""Bytes that a number of so many binary digits takes in the plain form; zeros may take none."""

_LABELS = 1
_EXTREMES = 2
_SOME = 4


def pack(counts: Counts, grid: Grid | None = None) -> bytes:
    """Counts as bytes; of their grid at most where its logarithmic line lies.

    Args:
        counts: any.
        grid: theirs, where it is at hand: of many rows on a logarithmic one, some bytes less.
    """
    return _pack(counts, grid.octaves if grid is not None else None)


def _pack(counts: Counts, octaves: predictive.Octaves | None) -> bytes:
    parts = (counts.cells.tolist(), counts.sums.tolist(), counts.extremes.tolist())
    numbers = predictive.Numbers(*parts)
    if counts.labels or not predictive.fits(numbers):
        return plain(counts)
    written = _led(predictive.write(numbers, None))
    if octaves is not None and sum(numbers.cells) >= _MANY:
        written = min(written, _led(predictive.write(numbers, octaves)), key=len)
    return _shorter_plain(counts, numbers, len(written)) or written


def _shorter_plain(counts: Counts, numbers: predictive.Numbers, most: int) -> bytes:
    """The plain form, if it is at most so long; else nothing."""
    # At least as many bytes it has; writing it takes ten times as long.
    least = 4 + sum(bytes(map(int.bit_length, numbers.cells + numbers.sums)).translate(_SEVENS))
    if least > most:
        return b""
    written = plain(counts)
    return written if len(written) <= most else b""


def _led(number: int) -> bytes:
    """A number in bytes that begin as no plain form does."""
    rest, lead = divmod(number, _LEADS)
    high, low = divmod(lead, _LOWS)
    return bytes([_HIGH + high, _LOW + low]) + rest.to_bytes((rest.bit_length() + 7) // 8, "big")


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
    counts, octaves = _read(data, grid.hash)
    found = counts.shape
    wanted = (grid.cells, grid.sums, grid.extremes)
    if found != wanted or (counts.labels and grid.kind != "categorical"):
        raise StatisticsError(
            f"counts of {' + '.join(map(str, found))} numbers",
            expected=f"{' + '.join(map(str, wanted))} of the {grid.kind} grid {grid.hash}",
            remedy="Counts of two baselines do not merge: keep them apart.",
        )
    if octaves not in (None, grid.octaves):
        raise unreadable("a logarithmic line that is not the grid's")
    return counts


def merged(first: bytes, second: bytes) -> bytes:
    """The sum of two counts on one grid, whatever it is.

    Raises:
        StatisticsError: one is no counts, or they are not of the same shape.
    """
    (one, here), (other, there) = _read(first, ""), _read(second, "")
    return _pack(one + other, here or there)


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


def _read(data: bytes, grid: str) -> tuple[Counts, predictive.Octaves | None]:
    octaves = None
    if data.startswith(_SCHEMA_3):
        numbers = golomb.read(data[len(_SCHEMA_3) :])
    elif len(data) > 1 and data[0] >= _HIGH and data[1] >= _LOW:
        numbers, octaves = predictive.read(_number(data))
    else:
        return _read_plain(data, grid), None
    parts = (np.array(each, dtype=np.int64) for each in numbers)
    counts = Counts.checked(grid, *parts)  # none is read that is negative
    if _shorter_plain(counts, numbers, len(data)):
        raise unreadable("they have a plain form that is as short")
    return counts, octaves


def _number(data: bytes) -> int:
    """The number of :func:`_led`."""
    if len(data) > LONGEST:
        raise unreadable(f"{len(data):,} bytes, where at most {LONGEST:,} are possible")
    if data.startswith(b"\0", 2):
        raise unreadable("a number with a zero in front")
    lead = (data[0] - _HIGH) * _LOWS + data[1] - _LOW
    return int.from_bytes(data[2:], "big") * _LEADS + lead


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
