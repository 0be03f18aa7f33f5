"""Exponential back-off with full jitter. Pure.

Source: Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015.
"""

from __future__ import annotations

import random


class Backoff:
    """Delays uniform in [0, min(cap, base·2ⁿ)], in seconds.

    Args:
        base_s: bound of the first delay.
        cap_s: bound of all.
        random_source: of the jitter; a fleet that lost its broker must not come back as one.
    """

    def __init__(self, base_s: float, cap_s: float, random_source: random.Random) -> None:
        self._base = base_s
        self._cap = cap_s
        self._random = random_source
        self._tries = 0

    def next(self) -> float:
        """The delay before the next try."""
        bound = min(self._cap, self._base * 2.0 ** min(self._tries, 62))
        self._tries += 1
        return self._random.uniform(0.0, bound)

    def reset(self) -> None:
        """It worked: start small again."""
        self._tries = 0
