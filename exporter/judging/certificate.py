"""What is certain of a candidate's loss, from outcomes that are paired with the source's. Pure.

On sample i the outcome is x_i = correct(source) − correct(candidate), −1, 0 or 1; without labels it
is 1 where the two decide differently and 0 where not. The mean over samples is the drop. Two
questions are kept apart:

* The drop *on the evaluation samples*, a finite population of N that is drawn in random order
  without replacement: is it at most δ? :class:`PairedTest` bets against "the mean is δ or more"
  and, mirrored, against "the mean is δ or less". Either wealth may be looked at whenever one likes,
  and ends the test where it reaches 1/α. At the last sample the answer is exact.
* The drop *on new samples* like these (independent draws): :func:`bound_for_new` gives an upper
  confidence bound that holds at whatever sample one stops.

Both are the betting processes of I. Waudby-Smith and A. Ramdas, "Estimating means of bounded random
variables by betting" (Journal of the Royal Statistical Society B 86, 2024; arXiv 2010.09686),
section 4 for draws without replacement: given the first t − 1 outcomes, a population whose mean is
δ has m_t = (N·δ − Σ_{i<t} x_i) / (N − t + 1) left on average, so that
Π (1 + λ_t (m_t − x_t)) with 0 ≤ λ_t ≤ 1/(1 − m_t) is a nonnegative martingale, and by Ville's
inequality it ever reaches 1/α with probability α at most. A mean of such products over several
bets is one, too, which spares the choice of λ.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from edgeml.bundle.manifest import Certificate

Array = NDArray[Any]
Verdict = Literal["within", "beyond", "open"]

BETS = tuple(float(bet) for bet in np.geomspace(0.01, 0.98, 10))
"""Shares of the largest bet that is allowed. The best one is near the distance from δ over the
variance of the outcomes: large where the candidate differs from the source on few samples."""

WEIGHTS = tuple([0.5 / (len(BETS) - 1)] * (len(BETS) - 1) + [0.5])
"""Of the bets against a large drop. The largest has half: most candidates that are sound at all
differ on next to nothing, and then every sample counts."""

EVEN = (1 / len(BETS),) * len(BETS)
"""Of the bets against a small one."""

SLACK = 1e-9
"""Means this near to each other are the same: sums of outcomes are whole numbers, δ is none."""


def share_of(number: int, *, alone: bool) -> float:
    """What the ``number``-th artifact that is tried for a target may have of α.

    All of them together have no more than α, however many are tried. So what is certain of the one
    that is chosen is certain in spite of the choice: of eight artifacts that are each only just
    beyond the limit one would else be certified in a fifth of all exports, and not in a twentieth.

    Args:
        number: from 1 on.
        alone: whether no other may be tried.
    """
    return 1.0 if alone else 1 / (number * (number + 1))


class PairedTest:
    """Whether the mean over a finite population is at most ``limit``, sample by sample.

    Args:
        limit: δ.
        population: N, how many outcomes there are in all.
        confidence: 1 − α; the error of either verdict is at most α.
        low: the least that an outcome can be, −1 or 0; the largest is 1.
        share: of α, for the verdict ``within``, see :func:`share_of`.

    Attributes:
        seen: outcomes taken in so far.
        total: their sum.
        verdict: ``open`` until it is decided.
    """

    def __init__(
        self,
        limit: float,
        *,
        population: int,
        confidence: float,
        low: float = -1.0,
        share: float = 1.0,
    ) -> None:
        self._limit = limit
        self._population = population
        self._low = low
        self._beyond = -math.log1p(-confidence)
        self._within = self._beyond - math.log(share)
        self._above = np.zeros(len(BETS))  # log wealth against "the mean is δ or more"
        self._below = np.zeros(len(BETS))  # and against "the mean is δ or less"
        self.seen = 0
        self.total = 0.0
        self.verdict: Verdict = "open"

    @property
    def drop(self) -> float:
        """The mean of the outcomes seen."""
        return self.total / self.seen if self.seen else 0.0

    def update(self, outcomes: Array) -> Verdict:
        """Take in further outcomes, in the order drawn.

        What comes after the one that decides for ``within`` is not counted. Whether it is
        ``beyond`` is asked at the last of them alone: they were run anyway, and what is told of an
        artifact that is dropped is to rest on as many as there are.

        Args:
            outcomes: [n], each in [low, 1].
        """
        x = np.asarray(outcomes, dtype=np.float64)
        if self.verdict != "open" or not len(x):
            return self.verdict
        before = self.total + np.concatenate(([0.0], np.cumsum(x)[:-1]))
        left = self._population - self.seen - np.arange(len(x))
        mean = (self._population * self._limit - before) / left  # m_t
        above = self._above + np.cumsum(_log_growth(mean - x, 1 - mean), axis=0)
        below = self._below + np.cumsum(_log_growth(x - mean, mean - self._low), axis=0)
        # What is left cannot be so large, or so small, on average: no bet is needed.
        after, remaining = before + x, left - 1
        most = after + remaining
        least = after + remaining * self._low
        bar = self._population * self._limit
        within = np.flatnonzero((_log_mean(above) >= self._within) | (most <= bar + SLACK))
        last = int(within[0]) if len(within) else len(x) - 1
        if len(within):
            self.verdict = "within"
        elif _log_mean(below[last], EVEN) >= self._beyond or least[last] > bar + SLACK:
            self.verdict = "beyond"
        self._above, self._below = above[last], below[last]
        self.seen += last + 1
        self.total = float(after[last])
        return self.verdict


def bound_for_new(outcomes: Array, *, confidence: float) -> float:
    """The least δ from 0 on for which "the mean of new samples is δ or more" is refuted.

    1 where none is. It goes by the wealth at the end. The largest on the way would do as well, and
    would give bounds that hang on the order, and now and then lie below the mean itself.

    Args:
        outcomes: [n], independent draws from [−1, 1]. Where to stop may depend on them.
        confidence: 1 − α.
    """
    # There are three kinds of outcomes, and the wealth hangs on how many there are of each.
    values, counts = np.unique(np.asarray(outcomes, dtype=np.float64), return_counts=True)
    wanted = -math.log1p(-confidence)

    def refuted(limit: float) -> bool:
        # Bets that do not depend on δ: the wealth grows with it, and the bound can be bisected for.
        grown = counts @ np.log1p(np.array(BETS) * (limit - values)[:, None])
        return bool(_log_mean(grown) >= wanted)

    low, high = 0.0, 1.0
    if not refuted(high):
        return high
    if refuted(low):
        return low
    while high - low > 1e-5:
        middle = (low + high) / 2
        low, high = (low, middle) if refuted(middle) else (middle, high)
    return high


def _log_growth(gain: Array, stake: Array) -> Array:
    """log(1 + bet · gain / stake), [n, bets]; no bet where there is nothing to win or to lose."""
    share = np.where(stake > SLACK, gain / np.where(stake > SLACK, stake, 1), 0)
    return np.log1p(np.array(BETS) * np.maximum(share, -1)[:, None])


def _log_mean(logs: Array, weights: Sequence[float] = WEIGHTS) -> Array:
    """log of the weighted mean of exp over the last axis, that of the bets."""
    top = logs.max(axis=-1)
    return top + np.log(np.exp(logs - top[..., None]) @ np.array(weights))


def certify(
    metric: str,
    outcomes: Array,
    *,
    limit: float,
    population: int,
    confidence: float,
    share: float = 1.0,
) -> Certificate:
    """The certificate of a test that found the drop to be within the limit, or saw everything.

    Args:
        metric: of the outcomes.
        outcomes: all that the test saw.
        limit: δ of the test; of no interest where it saw everything.
        population: how many outcomes there are in all.
        confidence: of the test, and of the bound for new samples.
        share: of what is left to chance, as of the test.
    """
    return Certificate(
        metric=metric,
        drop=limit if len(outcomes) < population else float(np.mean(outcomes)),
        confidence=confidence,
        samples=len(outcomes),
        method="betting",
        population=population,
        beyond=bound_for_new(outcomes, confidence=1 - (1 - confidence) * share),
    )


_LEAST = 5e-6
"""Of what is told as more than nothing, as a share."""


def sentence(certificate: Certificate) -> str:
    """For people: ``drop at most 1 point with 95 % confidence, 1,240 of 5,000 samples; …``."""
    sure = f"with {certificate.confidence * 100:g} % confidence"
    seen, population = certificate.samples, certificate.population
    new = f"on new ones at most {points(certificate.beyond)}" if certificate.beyond < 1 else ""
    if seen < population:
        first = (
            f"drop at most {points(certificate.drop)} {sure}, {seen:,} of {population:,} samples"
        )
        return "; ".join(filter(None, (first, new)))
    first = f"drop {points(certificate.drop)} on all {seen:,} samples"
    if certificate.method == "bootstrap":
        if max(abs(certificate.drop), abs(certificate.beyond)) < _LEAST:
            # All its draws are alike, too: that bounds nothing, however few samples there are.
            return f"{first}; a bootstrap says nothing of new ones where no sample differs"
        sure = f"with {certificate.confidence * 100:g} % confidence (bootstrap)"
    return f"{first}; {new} {sure}" if new else f"{first}; too few to say anything of new ones"


def points(share: float) -> str:
    """A share as points: ``1 point``, ``0.25 points``."""
    text = f"{share * 100:.3g}" if abs(share) >= _LEAST else "0"
    return f"{text} point{'' if text in ('1', '-1') else 's'}"
