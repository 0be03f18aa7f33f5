"""Logarithms of integers by integers: the same on every processor, as no library's are.

They are in 1/65,536 of an octave, and looked up in tables: accurate to 1/4,000 of an octave, and
shares to 1/2,500, which is far within what chance adds to any count.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from itertools import pairwise
from math import isqrt

DIGITS = 16
OCTAVE = 1 << DIGITS

SHARE = 20
"""Binary digits of a share."""

STEP = 7
"""Binary digits of a logarithm that :data:`SHARES` leave out."""
FARTHEST = 12 << DIGITS
"""A share whose logarithm is farther from 0 is taken as there."""

_LINES = 64
"""Straight lines an octave, between which the tables are filled in."""


def _logs() -> list[int]:
    """log₂(1 + k/4096). Of 64 of them by squaring: each time that it passes 2 is a digit."""
    found: list[int] = []
    for line in range(_LINES):
        x, log = (_LINES + line << 40) // _LINES, 0
        for _ in range(DIGITS):
            x = x * x >> 40
            log <<= 1
            if x >> 41:
                x >>= 1
                log += 1
        found.append(log)
    return _between([*found, OCTAVE], 64)


def _shares() -> list[int]:
    """1/(1 + 2⁻ˣ), each x a step from the last. Of 16 an octave by the square roots of 2."""
    root, powers = 2 << 40, [1 << 40]
    for _ in range(4):
        root = isqrt(root << 40)
        powers = [each for one in powers for each in (one, one * root >> 40)]
    found: list[int] = []
    for sixteenth in range(-FARTHEST >> 12, (FARTHEST >> 12) + 2):
        octave, rest = divmod(sixteenth, 16)
        power = powers[rest] << 20 + octave
        found.append((power << SHARE) // (power + (1 << 60)))
    return _between(found, 4096 >> STEP)


def _between(places: list[int], parts: int) -> list[int]:
    return [
        low + (high - low) * part // parts
        for low, high in pairwise(places)
        for part in range(parts)
    ]


LOGS = array("i", _logs())
SHARES = array("i", _shares())


def log2(number: int) -> int:
    """Of a number of 1 and more."""
    return logs([number])[0]


def logs(numbers: Iterable[int]) -> list[int]:
    """:func:`log2` of each."""
    return [
        (digits - 1 << DIGITS) + LOGS[(number << 13 >> digits) & 4095]
        for number in numbers
        for digits in (number.bit_length(),)
    ]


def share(log: int) -> int:
    """p of which log₂(p / (1 − p)) is given, in 2⁻²⁰."""
    return SHARES[min(max(log + FARTHEST, 0), 2 * FARTHEST) >> STEP]


def shares(logs: Iterable[int]) -> list[int]:
    """:func:`share` of each; hardly any is so far from 0 that it must be looked at closer."""
    return [
        SHARES[log + FARTHEST >> STEP] if -FARTHEST < log < FARTHEST else share(log) for log in logs
    ]
