"""Sequential evidence that something changed, with a bound on false alarms.

**The detector.** Shiryaev-Roberts over conformal p-values: R_t = Σ over starts s ≤ t of
Π_{j=s..t} e_{s,j}, where e_{s,j} bets on p-value j under the idea "the change came at s"
(:mod:`edgeml.collector.drift.bets`). An alarm is R ≥ c. As the p-values are independent and uniform
before a change and each bet has mean 1, R_t − t is a martingale, hence E[R_τ] = E[τ] for every
stopping time, and the expected number of false alarms in T windows is at most T/c (Shin, Ramdas,
Rinaldo, "E-detectors", 2022).

**Caution.** Windows that still depend on each other make sums of scores vary v times as much as
independent ones do, and with that a bet's wealth has no mean of 1 any more. A bet to the power 1/v
has: under a normal sum of variance kv, E[exp((δS − kδ²/2)/v)] = 1. Where v = 1 was enough the
bound still holds (Jensen), only the delay is v times as long. v is measured on the reference.

All of it is arrays over streams, so that one window's statistics, or a fleet's, go in one step.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from edgeml.collector.drift.bets import SHIFTS, log_bets, p_cells, rate_rows

MAX_STARTS = 24
"""Starts kept apart. Of more, the two neighbours that are closest for their age are merged, which
any predictable bet allows, and go on as the older one: the starts lie evenly on the logarithm of
their age."""

MAX_WEALTH = 1e280


class Detector:
    """Shiryaev-Roberts e-detectors, one a stream, that see their windows together.

    Args:
        streams: how many.
        caution: v of each stream, at least 1; [streams] or one for all.
    """

    def __init__(self, streams: int, caution: ArrayLike = 1.0) -> None:
        self._caution = np.broadcast_to(np.asarray(caution, dtype=np.float64), (streams,))
        # The first so many places are in use.
        self._starts = 0
        self._before = np.zeros(MAX_STARTS)
        self._since = np.zeros(MAX_STARTS)
        self._wealth = np.zeros((streams, MAX_STARTS, len(SHIFTS)))
        self._values = np.zeros(streams)
        self.mean = 0.0
        """R, averaged over the streams."""

    def update(self, p: NDArray[np.float64], before: int) -> NDArray[np.float64]:
        """Take in a p-value of each stream, small where drift is suspected.

        Args:
            p: [streams], in (0, 1).
            before: scores in the bags that they were ranked in.

        Returns:
            R, float64 [streams].
        """
        if self._starts == MAX_STARTS:
            self._merge()
        last, self._starts = self._starts, self._starts + 1
        self._before[last], self._since[last] = before, 0
        self._wealth[:, last] = 1 / len(SHIFTS)
        since, wealth = self._since[: self._starts], self._wealth[:, : self._starts]
        since += 1
        rows = rate_rows(self._before[: self._starts], since)
        bets = log_bets()[rows, p_cells(p)[:, None]]
        bets /= self._caution[:, None, None]
        wealth *= np.exp(bets, out=bets)
        np.minimum(wealth, MAX_WEALTH, out=wealth)
        self._set(np.add.reduce(wealth, axis=(1, 2)))
        return self._values

    def _set(self, values: NDArray[np.float64]) -> None:
        self._values = values
        self.mean = float(np.add.reduce(values)) / len(values)

    @property
    def values(self) -> NDArray[np.float64]:
        """R of each stream, the evidence so far."""
        return self._values

    def clear(self, streams: NDArray[np.bool_]) -> None:
        """Let the evidence of some streams begin anew."""
        self._wealth[streams] = 0.0
        self._set(np.where(streams, 0.0, self._values))

    def windows_since_change(self, stream: int) -> int:
        """Windows since the most likely start of a change, that window included."""
        if not self._starts:
            return 0
        wealth = self._wealth[stream, : self._starts].sum(axis=1)
        return int(self._since[int(wealth.argmax())])

    def save(self) -> tuple[list[list[float]], bytes]:
        """Starts (windows before and since, each), and their wealth."""
        used = slice(self._starts)
        starts = [self._before[used].tolist(), self._since[used].tolist()]
        return starts, self._wealth[:, used].astype("<f8").tobytes()

    def load(self, starts: list[list[float]], wealth: bytes) -> None:
        """Take over what :meth:`save` gave."""
        before, since = starts
        self._starts = len(since)
        used = slice(self._starts)
        self._before[used], self._since[used] = before, since
        shape = (len(self._caution), self._starts, len(SHIFTS))
        self._wealth[:, used] = np.frombuffer(wealth, "<f8").reshape(shape)
        self._set(self._wealth[:, used].sum(axis=(1, 2)))

    def _merge(self) -> None:
        """Merge the neighbours whose ages differ least, relative to the age."""
        at = int((self._since[:-1] / self._since[1:]).argmin())
        self._wealth[:, at] += self._wealth[:, at + 1]
        gone, rest = slice(at + 1, self._starts - 1), slice(at + 2, self._starts)
        self._wealth[:, gone] = self._wealth[:, rest].copy()
        self._before[gone], self._since[gone] = self._before[rest].copy(), self._since[rest].copy()
        self._starts -= 1
