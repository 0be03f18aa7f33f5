"""Bins as how many values there are, how many of those lie in the first half of the bins, of the
first half in its first half, and so on.

Chance alone makes a half uncertain by half the root of the whole; besides, the density is not what
its neighbours foretell. How far off forecasts are is learnt on the way, in sixteenths of an octave
of the share of the values by which they missed: from the stretch that is halved here, from the
stretches halved before, and from the one at the mirrored place, since most histograms are about as
rough at one end as at the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from math import isqrt
from operator import add

from edgeml.statistics.ans import Coder
from edgeml.statistics.forecast import Slope, halves

_ONE = 20 << 4
"""A miss of all values."""
_FIRST, _SECOND = _ONE - 52, _ONE - 9
"""Of all bins, and of their halves, where nothing is known yet."""
_END, _INNER, _MIRRORED = 3, -21, -7
_POWERS = [16 + (log & 15) << (log >> 4) for log in range(_ONE + 16)]
"""2 to the power of each miss / 16, by a straight line between its whole powers."""
_DAMPED = 128
_FINE = 16
"""So many stretches and more are halved as roughly as those before, where fewer are smoother."""


def halved(coder: Coder, bins: Sequence[int], slopes: Sequence[Slope | None]) -> list[int]:
    """Write bins, or read as many.

    Args:
        coder: what writes or reads.
        bins: 1, 2, 4, 8 … of them.
        slopes: :func:`edgeml.statistics.forecast.slopes` of their line, or as many times None.
    """
    levels = [list(bins)]
    for _ in slopes:
        levels.append(list(map(add, levels[-1][::2], levels[-1][1::2])))
    wholes, missed = [coder.size(levels.pop()[0])], [_SECOND]
    for slope in slopes:
        wholes, missed = _level(coder, wholes, levels.pop(), halves(wholes, slope), missed)
    return wholes


@cache
def _inwards(count: int) -> list[int]:
    """The places of a level from both ends to the middle, the right ones counted from the end, as
    Python does: below 0."""
    return [place for left in range(count >> 1) for place in (left, -1 - left)] or [0]


def _level(
    coder: Coder, wholes: list[int], known: list[int], middles: list[int], before: list[int]
) -> tuple[list[int], list[int]]:
    """All halves of one level, and by how much each was missed."""
    near, count = coder.near, len(wholes)
    parts, missed = [0] * (2 * count), [0] * count
    usual = sum(before) // len(before)
    rough = 4 * (count >= _FINE)
    whole = off = miss = 0
    for place in _inwards(count):
        mirrored, whole = whole, wholes[place]
        if whole:
            middle = forecast = middles[place]
            if place >= 0:
                if count > 2:
                    expected = (before[place >> 1] + usual >> 1) + (_INNER if place else _END)
                    expected += rough
                else:
                    expected = _FIRST if count == 1 else _SECOND
            elif count > 2:
                expected = (9 * miss + 7 * usual >> 4) + _MIRRORED + rough
                middle -= 5 * whole * off // (8 * (mirrored + _DAMPED))
                if not 0 <= middle <= whole:
                    middle = 0 if middle < 0 else whole
            else:
                expected = miss + _MIRRORED
                if mirrored:
                    middle = forecast = whole - whole * parts[0] // mirrored
            scale = chance = isqrt(middle * (whole - middle) // (2 * whole))
            if expected > 0:
                scale += whole * _POWERS[expected] >> 24
            at = 2 * place
            parts[at] = part = near(known[at], middle, whole, scale or 1)
            parts[at + 1] = whole - part
            off = part - forecast
            size = -off if off < 0 else off
            size = ((chance if size < chance else size) << 20) // whole | 1
            digits = size.bit_length()
            miss = (digits - 1 << 4) + (size << 5 >> digits & 15)
        else:
            miss, off = usual, 0
        missed[place] = miss
        if place < 0:
            usual = missed[-1 - place] + miss >> 1
    return parts, missed
