"""Online conformal p-values: how extreme a score is among all scores so far.

Vovk, "Testing randomness online" (Statistical Science, 2021). While the scores are exchangeable the
p-values are independent and uniform on [0, 1], exactly and whatever the distribution, which is all
that the evidence built on them assumes. What breaks it: scores that depend on each other in time
(days and nights, a slow wander), which no rank within one stream can tell from drift.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterable


class Ranks:
    """A sorted bag of scores.

    Args:
        scores: what is in it at first, in any order.
    """

    def __init__(self, scores: Iterable[float] = ()) -> None:
        self._sorted = sorted(scores)

    def __len__(self) -> int:
        return len(self._sorted)

    def p_value(self, score: float, theta: float) -> float:
        """The share of the bag, with ``score`` in it, that lies above; ties broken by ``theta``.

        (#{s > score} + θ·(#{s = score} + 1)) / (n + 1), for a bag of n.
        """
        below = bisect_left(self._sorted, score)
        through = bisect_right(self._sorted, score)
        n = len(self._sorted)
        return (n - through + theta * (through - below + 1)) / (n + 1)

    def add(self, score: float) -> None:
        """Put a score into the bag."""
        insort(self._sorted, score)


def uniform(*key: object) -> float:
    """A number in (0, 1) that looks random and depends on ``key`` only, so that a replay of the
    same window gives the same evidence."""
    digest = hashlib.sha256("\x1f".join(map(str, key)).encode()).digest()
    return (int.from_bytes(digest[:6], "big") + 0.5) / 2**48
