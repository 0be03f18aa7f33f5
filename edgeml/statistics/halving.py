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
from math import isqrt
from operator import add

from edgeml.statistics.ans import Coder
from edgeml.statistics.forecast import halves

_ONE = 20 << 4
"""A miss of all values."""
_FIRST, _SECOND = _ONE - 52, _ONE - 9
"""Of all bins, and of their halves, where nothing is known yet."""
_END, _INNER, _MIRRORED = 3, -21, -7
_DAMPED = 128
_FINE = 16
"""So many stretches and more are halved as roughly as those before, where fewer are smoother."""


def halved(coder: Coder, bins: Sequence[int], heavy: list[int]) -> list[int]:
    """Write bins, or read as many.

    Args:
        coder: what writes or reads.
        bins: 1, 2, 4, 8 … of them.
        heavy: their :func:`edgeml.statistics.forecast.weights`, or nothing.
    """
    levels, loads = [list(bins)], [heavy]
    while len(levels[0]) > 1:
        levels.insert(0, list(map(add, levels[0][::2], levels[0][1::2])))
        loads.insert(0, list(map(add, loads[0][::2], loads[0][1::2])))
    wholes, missed = [coder.size(levels[0][0])], [_SECOND]
    for known, load in zip(levels[1:], loads[1:], strict=True):
        wholes, missed = _level(coder, wholes, known, halves(wholes, load), missed)
    return wholes


def _level(
    coder: Coder, wholes: list[int], known: list[int], middles: list[int], before: list[int]
) -> tuple[list[int], list[int]]:
    """All halves of one level, and by how much each was missed; from both ends to the middle."""
    count = len(wholes)
    parts, missed, off = [0] * (2 * count), [0] * count, [0] * count
    usual = sum(before) // len(before)
    rough = 4 * (count >= _FINE)
    pairs = [(left, count - 1 - left) for left in range(count >> 1)] or [(0, 0)]
    for left, right in pairs:
        for place in (left, right)[:count]:
            whole = wholes[place]
            if not whole:
                missed[place] = usual
                continue
            middle = forecast = middles[place]
            if count <= 2 and place == 0:
                expected = _FIRST if count == 1 else _SECOND
            elif place == left:
                expected = (before[place >> 1] + usual >> 1) + (_INNER if left else _END) + rough
            elif count > 2:
                expected = (9 * missed[left] + 7 * usual >> 4) + _MIRRORED + rough
                middle -= 5 * whole * off[left] // (8 * (wholes[left] + _DAMPED))
                if not 0 <= middle <= whole:
                    middle = 0 if middle < 0 else whole
            else:
                expected = missed[left] + _MIRRORED
                if wholes[0]:
                    middle = forecast = whole - whole * parts[0] // wholes[0]
            chance = isqrt(middle * (whole - middle) // (2 * whole))
            # A part that is 2 to the power of expected / 16, by a straight line between its whole
            # powers.
            scale = chance
            if expected > 0:
                scale += whole * (16 + (expected & 15) << (expected >> 4)) >> 24
            part = coder.near(known[2 * place], middle, whole, scale or 1)
            parts[2 * place] = part
            parts[2 * place + 1] = whole - part
            off[place] = miss = part - forecast
            if miss < 0:
                miss = -miss
            miss = ((chance or 1 if miss < chance else miss) << 20) // whole | 1
            digits = miss.bit_length()
            missed[place] = (digits - 1 << 4) + (miss << 5 >> digits & 15)
        usual = missed[left] + missed[right] >> 1
    return parts, missed
