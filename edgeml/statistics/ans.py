"""Integers as one large integer, of as many bits as they are improbable: an asymmetric numeral
system (Duda, 2009) without the usual rounding to machine words.

A symbol to which ``size`` of ``total`` numbers belong, from ``start`` on, turns the integer x into
``x // size · total + start + x % size``, which is about total / size times as large: by as many
bits as the symbol is improbable. Reading undoes that, the last symbol first, so writing goes
backwards. It starts at 1 and must end there, and each step has an inverse: every integer is exactly
one sequence of symbols, or none. What is cut short ends at 0.

:class:`Writer` and :class:`Reader` have the same methods, which return the number that was written
or read. So one function says what is written and reads it, too; a reader ignores the numbers that
it is given.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate, pairwise
from typing import Protocol

from edgeml.statistics.folding import inwards, outwards, unreadable

_SIZE_STARTS = [0, *accumulate([16] * 25 + [1] * 38)]
"""How often a number has 0, 1, 2 … binary digits: most are below 2²⁴."""

_BOUNDS = [0, 1, 2, 3, *(half << octave for octave in range(1, 80) for half in (2, 3))]
"""Of how far out a number lies, in scales: a half of one on either side each, then half octaves."""
_USUAL = [21982, 16138, 9938, 5852, 5728, 2442, 1900, 689, 492, 169, 118, 40, 28]
_NEAR = [*_USUAL, *[12] * (len(_BOUNDS) - 1 - len(_USUAL))]
"""How often of 65,536 times it lies between two of them: as Student's *t* with 2.1 degrees does,
which fits how far histograms are from their forecasts; and 12 times wherever that is less."""
_NEAR_STARTS = [0, *accumulate(_NEAR)]
_CELLS = [
    (start, often, first, end - first)
    for start, often, (first, end) in zip(_NEAR_STARTS, _NEAR, pairwise(_BOUNDS), strict=False)
]
"""Where its times begin, how many they are, where it begins, and how wide it is."""
_CELL = b"".join(bytes([cell]) * often for cell, often in enumerate(_NEAR))
"""To which of them each of the times belongs."""


def _total(farthest: int) -> int:
    """How many times there are where no number lies farther out than so many scales."""
    return _NEAR_STARTS[bisect_right(_BOUNDS, farthest)]


_TOTALS = [_total(farthest) for farthest in range(1024)]
"""It is needed of each number, and hardly ever farther out than these."""


class Coder(Protocol):
    """What writes numbers, or reads them."""

    def choice(self, which: int, starts: Sequence[int]) -> int:
        """One of so many; of ``starts[-1]`` times it is the first one ``starts[1]`` times, the
        first or the second ``starts[2]`` times, and so on."""
        ...

    def size(self, number: int) -> int:
        """A number of up to 62 binary digits of which nothing is known."""
        ...

    def near(self, number: int, middle: int, most: int, scale: int) -> int:
        """A number 0 … ``most`` that is expected about ``scale``, 1 or more, from ``middle``, which
        is one of them, too."""
        ...


class Writer:
    """Gathers symbols."""

    def __init__(self) -> None:
        self._symbols: list[tuple[int, int, int]] = []

    def choice(self, which: int, starts: Sequence[int]) -> int:
        """See :class:`Coder`."""
        self._symbols.append((starts[which], starts[which + 1] - starts[which], starts[-1]))
        return which

    def size(self, number: int) -> int:
        """See :class:`Coder`."""
        digits = number.bit_length()
        self.choice(digits, _SIZE_STARTS)
        if digits > 1:
            half = 1 << digits - 1
            self._symbols.append((number - half, 1, half))
        return number

    def near(self, number: int, middle: int, most: int, scale: int) -> int:
        """See :class:`Coder`."""
        out = outwards(number, middle, most)
        start, often, first, width = _CELLS[bisect_right(_BOUNDS, out // scale) - 1]
        farthest = most // scale
        total = _TOTALS[farthest] if farthest < 1024 else _total(farthest)
        self._symbols.append((start, often, total))
        first *= scale
        width *= scale
        if width > most + 1 - first:  # noqa: PLR1730  # a third of what min() takes
            width = most + 1 - first
        if width > 1:
            self._symbols.append((out - first, 1, width))
        return number

    def number(self) -> int:
        """All that was written."""
        x = 1
        for start, size, total in reversed(self._symbols):
            if size == 1:
                x = x * total + start
            else:
                whole, rest = divmod(x, size)
                x = whole * total + (start + rest)
        return x


class Reader:
    """Reads what a :class:`Writer` gave, in its order and with the same expectations."""

    def __init__(self, number: int) -> None:
        self._x = number

    def choice(self, which: int, starts: Sequence[int]) -> int:  # noqa: ARG002
        """See :class:`Coder`."""
        whole, rest = divmod(self._x, starts[-1])
        symbol = bisect_right(starts, rest) - 1
        start = starts[symbol]
        self._x = whole * (starts[symbol + 1] - start) + (rest - start)
        return symbol

    def size(self, number: int) -> int:  # noqa: ARG002
        """See :class:`Coder`."""
        digits = self.choice(0, _SIZE_STARTS)
        if digits < 2:
            return digits
        half = 1 << digits - 1
        self._x, rest = divmod(self._x, half)
        return half + rest

    def near(self, number: int, middle: int, most: int, scale: int) -> int:  # noqa: ARG002
        """See :class:`Coder`."""
        # The step of a choice, written out: this is a good part of what reading takes.
        farthest = most // scale
        total = _TOTALS[farthest] if farthest < 1024 else _total(farthest)
        whole, rest = divmod(self._x, total)
        start, often, out, width = _CELLS[_CELL[rest]]
        x = whole * often + (rest - start)
        out *= scale
        width *= scale
        if width > most + 1 - out:  # noqa: PLR1730
            width = most + 1 - out
        if width > 1:
            x, rest = divmod(x, width)
            out += rest
        self._x = x
        return inwards(out, middle, most)

    def end(self) -> None:
        """Nothing may be left, nor be lacking."""
        if self._x != 1:
            raise unreadable("they are more bytes than they have numbers, or fewer")
