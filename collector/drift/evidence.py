"""Sequential evidence that something changed, with a bound on false alarms.

**The detector.** Shiryaev-Roberts over conformal p-values: R_t = Σ over starts s ≤ t of
Π_{j=s..t} e_{s,j}, where e_{s,j} bets on p-value j under the idea "the change came at s". An alarm
is R ≥ c. As the p-values are independent and uniform before a change and each bet has mean 1, R_t −
t is a martingale, hence E[R_τ] = E[τ] for every stopping time, and the expected number of false
alarms in T windows is at most T/c (Shin, Ramdas, Rinaldo, "E-detectors", 2022).

**The bet.** With n scores before s, and k = j − s + 1 since, drifted scores are top-ranked among
the old ones and exchangeable among themselves: the p-value is then uniform on [0, b], b = k/(n +
k), instead of on [0, 1]. Betting just that makes the wealth n+k over k after k windows: 46,000
after 4 windows that all lie above 30 old ones, and it goes on growing while the drifted windows
enter the comparison, where a fixed bet such as a·p^(a−1) starves. As a change seldom separates
perfectly, b = (k + ρn)/(n + k) for a few ρ, mixed, with a share kept back so that no single window
ruins it.

**What holds.** Each mixture of bets has mean 1 whatever (n, k): the bound T/c is exact under
exchangeability of the windows before the change, for any distribution, and an average of detectors
is one too. **What does not.** Windows that depend on each other (AR(1), a daily cycle) break it,
see docs of :mod:`edgeml.collector.drift.conformal`; after an alarm the bag is cut at the estimated
change, a choice that looked at the scores, so that what follows holds only approximately.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

OVERLAPS = np.array([0.0, 0.05, 0.15, 0.35])
"""ρ: shares of the old scores that may still lie above a drifted one."""

KEPT = 0.1
"""Share of the wealth that is not bet: a window that contradicts costs a factor of ten at most."""

MAX_STARTS = 64
"""Starts kept apart; older ones are merged pairwise, which any predictable bet allows."""

MAX_WEALTH = 1e280


class Detector:
    """One Shiryaev-Roberts e-detector. Feed it p-values, small where drift is suspected."""

    def __init__(self) -> None:
        # Rows: scores before each start, windows since it. Filled up to ``_count``, oldest first.
        self._starts = np.zeros((2, MAX_STARTS))
        self._wealth = np.zeros((MAX_STARTS, OVERLAPS.size))
        self._count = 0

    def update(self, p: float, before: int) -> float:
        """Take in a p-value and return R.

        Args:
            p: the conformal p-value of the new window.
            before: scores in the bag that it was ranked in.
        """
        if self._count == MAX_STARTS:
            self._merge_oldest()
        self._starts[:, self._count] = before, 0
        self._wealth[self._count] = 1 / OVERLAPS.size
        self._count += 1
        starts, wealth = self._starts[:, : self._count], self._wealth[: self._count]
        starts[1] += 1
        wealth *= bet(p, starts[0], starts[1])
        np.minimum(wealth, MAX_WEALTH, out=wealth)
        return self.value

    @property
    def starts(self) -> int:
        """How many starts of a change are followed."""
        return self._count

    @property
    def value(self) -> float:
        """R, the evidence so far."""
        return float(self._wealth.sum())

    @property
    def windows_since_change(self) -> int:
        """Windows since the most likely start of the change, that window included."""
        return int(self._starts[1, int(self._wealth.sum(axis=1).argmax())])

    def _merge_oldest(self) -> None:
        self._wealth[1] += self._wealth[0]
        self._wealth[:-1] = self._wealth[1:]
        self._starts[:, :-1] = self._starts[:, 1:]
        self._wealth[-1] = 0
        self._count -= 1


def bet(p: float, before: NDArray[np.float64], since: NDArray[np.float64]) -> NDArray[np.float64]:
    """What one unit of wealth becomes: float64 [starts, overlaps], of mean 1 for a uniform ``p``.

    Args:
        p: the p-value.
        before: n, scores before each start, [starts].
        since: k, windows since each start with this one, [starts].
    """
    n, k = before[:, None], since[:, None]
    width = (k + OVERLAPS * n) / (n + k)
    return KEPT + (p <= width) * ((1 - KEPT) / width)


class Evidence:
    """The average of several detectors: itself an e-detector."""

    def __init__(self, detectors: int) -> None:
        self.detectors = tuple(Detector() for _ in range(detectors))

    def update(self, ps: tuple[float, ...], before: int) -> float:
        """Take in a p-value for each detector and return the average R."""
        for detector, p in zip(self.detectors, ps, strict=True):
            detector.update(p, before)
        return self.value

    @property
    def value(self) -> float:
        """Average R."""
        return sum(detector.value for detector in self.detectors) / len(self.detectors)

    @property
    def windows_since_change(self) -> int:
        """As the strongest detector has it."""
        return max(self.detectors, key=lambda detector: detector.value).windows_since_change
