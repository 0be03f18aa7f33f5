"""The counts of numbers, as far as they do not foretell each other: predictive coding.

Neighbouring cells of a histogram are alike; Σ and Σ² follow from the cells, but for where in its
cell each value lay; the smallest and the largest value lie in the outermost cells that are not
empty. So of each number only the distance from what those before it foretell is written, in as many
bits as it is improbable.

In this order: how many cells; where a logarithmic line lies, if that is known and pays; the bins,
halved again and again; the other cells; run and extremes; the sums. All arithmetic is of integers,
hence the same on every processor. Which cells are bins is guessed from how many cells there are, so
that no grid is needed to read it; a wrong guess costs bytes and nothing else.
"""

from __future__ import annotations

from typing import NamedTuple

from edgeml.statistics.ans import Coder, Reader, Writer
from edgeml.statistics.counts import NOTHING
from edgeml.statistics.folding import unreadable
from edgeml.statistics.forecast import Line, first_unit, overshoot, slopes
from edgeml.statistics.grid import FINENESS, MAX_ATOMS, MAX_BINS, NUMERIC_BINS, UNITS
from edgeml.statistics.halving import halved
from edgeml.statistics.logarithms import OCTAVE, log2

LARGEST = 1 << 61
"""No number is above it."""

Octaves = tuple[int, int]
"""Where a logarithmic line lies: see :attr:`edgeml.statistics.grid.Grid.octaves`."""

_SPECIAL = 4
"""The last cells: NaN, -Inf, +Inf, missing."""
_LEAST, _USUAL, _MOST = (bins + 2 + _SPECIAL for bins in (1, NUMERIC_BINS, MAX_BINS + MAX_ATOMS))
"""Cells."""

_ATOMS = (0, 24, 27, 29, 30, 31, 32)
"""How often there are none, one, two and so on, and another number of cells."""
_RARELY, _MOSTLY, _OFTEN, _MAYBE = (0, 15, 16), (0, 1, 16), (0, 1, 4), (0, 1, 2)
"""How often yes follows no."""
_MANY = 4096
"""Of so many values there are some outside the bins, mostly, a thousandth on either side."""

_USUALLY, _FAR, _INSIDE = range(3)
"""Where extremes are: about where the cells tell, far beyond that, or not even there."""
_WHERE, _WHERE_OF_ATOMS = (0, 14, 15, 16), (0, 2, 3, 4)


class Numbers(NamedTuple):
    """Counts as plain integers."""

    cells: list[int]
    sums: list[int]
    extremes: list[int]


def fits(numbers: Numbers) -> bool:
    """Whether they may be counts on a grid of numbers."""
    cells, sums, extremes = map(len, numbers)
    if not _LEAST <= cells <= _MOST or (sums, extremes) != (2, 3):
        return False
    smallest, largest, run = numbers.extremes
    ends = (smallest, largest) if smallest <= largest else ()
    return max(map(abs, [sum(numbers.cells), *numbers.sums, *ends, run])) <= LARGEST


def write(numbers: Numbers, octaves: Octaves | None) -> int:
    """Counts as one large integer."""
    out = Writer()
    _code(out, numbers, octaves)
    return out.number()


def read(number: int) -> tuple[Numbers, Octaves | None]:
    """And back.

    Raises:
        StatisticsError: it is no such counts.
    """
    source = Reader(number)
    found = _code(source, Numbers([], [0, 0], [0, 0, 0]), None)
    source.end()
    return found


def _code(coder: Coder, known: Numbers, octaves: Octaves | None) -> tuple[Numbers, Octaves | None]:
    """Write what is known, or read it."""
    size = _size(coder, len(known.cells))
    cells = known.cells or [0] * size
    count = 1 << (size - 2 - _SPECIAL).bit_length() - 1
    octaves = _octaves(coder, octaves)
    steps = slopes(octaves, count) if octaves else (None,) * (count.bit_length() - 1)
    bins = halved(coder, cells[1 : count + 1], steps)
    values = sum(bins)
    line = [_tail(coder, cells[0], values), *bins, _tail(coder, cells[count + 1], values)]
    atoms = [
        coder.near(each, 0, LARGEST, values >> 2 or 1) for each in cells[count + 2 : -_SPECIAL]
    ]
    special = _special(coder, cells[-_SPECIAL:])
    found = [*line, *atoms, *special]
    if sum(found) > LARGEST:
        raise unreadable(f"{sum(found):,} values where at most {LARGEST:,} are possible")
    run = _run(coder, known.extremes[2], atoms, values)
    ends = _extremes(coder, known.extremes, line, atoms)
    extremes = [*(ends or (NOTHING, -NOTHING)), run]
    sums = _sums(coder, known.sums, line, ends or (0, 0), atoms)
    return Numbers(found, sums, extremes), octaves


def _size(coder: Coder, size: int) -> int:
    """How many cells: as a usual grid has with 0 … 4 atoms, or another number."""
    usual = range(_USUAL, _USUAL + MAX_ATOMS + 1)
    atoms = coder.choice(size - _USUAL if size in usual else len(usual), _ATOMS)
    if atoms < len(usual):
        return _USUAL + atoms
    found = coder.near(size, _USUAL, _MOST, 1)
    if found < _LEAST or found in usual:
        raise unreadable(f"{found} cells")
    return found


def _octaves(coder: Coder, octaves: Octaves | None) -> Octaves | None:
    if not coder.choice(int(octaves is not None), _RARELY):
        return None
    start, length = octaves or (0, 0)
    start = coder.near(start, 0, FINENESS - 1, FINENESS)
    length = coder.near(length, 8 * FINENESS, 2048 * FINENESS, 4 * FINENESS)
    return start, length


def _tail(coder: Coder, count: int, values: int) -> int:
    """Under- or overflow: the grid was fitted so that about a thousandth lies there."""
    if values >= _MANY and not coder.choice(int(count > 0), _OFTEN):
        return 0
    found = coder.near(count, values >> 10, LARGEST, values >> 12 or 1)
    if values >= _MANY and not found:
        raise unreadable("some values outside the bins, none of them")
    return found


def _special(coder: Coder, cells: list[int]) -> list[int]:
    """What is no number is rare."""
    if not coder.choice(int(any(cells)), _RARELY):
        return [0] * _SPECIAL
    found = [coder.choice(int(each > 0), _MAYBE) and coder.size(each - 1) + 1 for each in cells]
    if not any(found):
        raise unreadable("values that are no numbers, none of them")
    return found


def _run(coder: Coder, run: int, atoms: list[int], values: int) -> int:
    """Of n values with the share p in their largest atom, the longest is about log n / log 1/p."""
    most, every, usual = max(atoms, default=0), values + sum(atoms), 1
    if most:
        odds = max(log2(every) - log2(most), OCTAVE // UNITS)
        usual = min(max(log2(every) // odds, 1), every)
    return coder.near(run, usual, LARGEST, usual >> 2 or 1)


def _extremes(
    coder: Coder, known: list[int], line: list[int], atoms: list[int]
) -> tuple[int, int] | None:
    """Minimum and maximum, if there are any."""
    if not coder.choice(int(known[0] <= known[1]), _MOSTLY):
        return None
    last = (len(line) - 2) * UNITS - 1
    smallest = _extreme(coder, known[0], line, any(atoms))
    largest = last - _extreme(coder, last - known[1], line[::-1], any(atoms))
    if not -LARGEST <= smallest <= largest <= LARGEST:
        raise unreadable(f"a minimum of {smallest:,} with a maximum of {largest:,}")
    return smallest, largest


def _extreme(coder: Coder, unit: int, line: list[int], atoms: bool) -> int:
    """The smallest unit; of a line that is read backwards the largest one."""
    if line[0]:
        start, way = -1, -1
        middle, scale = overshoot(line[0], line[1])
        most = middle + 8 * scale
    else:
        start, way = first_unit(line), 1
        middle, scale, most = UNITS // 2, UNITS // 4, UNITS - 1
    distance = way * (unit - start)
    where = coder.choice(
        _INSIDE if distance < 0 else _FAR * (distance > most), _WHERE_OF_ATOMS if atoms else _WHERE
    )
    if where == _USUALLY:
        distance = coder.near(distance, middle, most, scale)
    elif where == _FAR:
        beyond = distance - most - 1
        # Heavy tails reach as far again, atoms anywhere.
        far = coder.size(beyond) if atoms else coder.near(beyond, 0, LARGEST, 4 * most)
        distance = most + 1 + far
    else:
        distance = -1 - coder.size(-1 - distance)
    return start + way * distance


def _sums(
    coder: Coder, known: list[int], line: list[int], ends: tuple[int, int], atoms: list[int]
) -> list[int]:
    """Σ and Σ². Atoms may lie at the minimum or at the maximum, wherever that explains Σ best."""
    cells = Line(line, ends)
    placings = cells.placings([each for each in atoms if each], ends)
    which = 0
    if len(placings) > 1:
        which = coder.choice(cells.best(placings, known[0]), range(len(placings) + 1))
    placing = placings[which]
    total = _near(coder, known[0], *cells.total(placing))
    if len(placings) > 1 and cells.best(placings, total) != which:
        raise unreadable("values of their own that lie elsewhere")
    return [total, _near(coder, known[1], *cells.squares(placing, total))]


def _near(coder: Coder, number: int, expected: int, scale: int) -> int:
    middle = min(max(expected + LARGEST, 0), 2 * LARGEST)
    return coder.near(number + LARGEST, middle, 2 * LARGEST, scale or 1) - LARGEST
