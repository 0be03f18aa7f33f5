"""Online conformal p-values: how extreme a score is among all scores so far.

Vovk, "Testing randomness online" (Statistical Science, 2021). While the scores are exchangeable the
p-values are independent and uniform on [0, 1], exactly and whatever the distribution, which is all
that the evidence built on them assumes. What breaks it is scores that depend on each other in time
(days and nights, a slow wander): :mod:`edgeml.collector.drift.reference` takes those away first.

The bag of earlier scores is a count vector on a fixed grid over standardised scores. Scores in one
cell count as ties, which are broken at random, so the p-values are as exact as those of the scores
themselves; and a bag has the same size after a year as on its first day.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

CELLS = 128
CELLS_A_UNIT = 13.5
"""Near 0 a cell is .07 standard deviations wide; the last ones begin at ±53."""


def cells_of(scores: ArrayLike) -> NDArray[np.intp]:
    """The cell of each standardised score; any shape."""
    place = CELLS / 2 + CELLS_A_UNIT * np.arcsinh(np.asarray(scores, dtype=np.float64))
    place = np.where(np.isnan(place), CELLS / 2, place)
    return np.minimum(np.maximum(place, 0), CELLS - 1).astype(np.intp)


def p_values(
    bags: NDArray[np.integer], cells: NDArray[np.intp], theta: ArrayLike
) -> NDArray[np.float64]:
    """The share of a bag, with the new score in it, that lies above; ties broken by ``theta``.

    (#{s > score} + θ·(#{s = score} + 1)) / (n + 1), for a bag of n.

    Args:
        bags: integers [streams, :data:`CELLS`].
        cells: of the new scores, [streams].
        theta: uniform on (0, 1), [streams] or one for all.

    Returns:
        float64 [streams], in (0, 1).
    """
    rows = np.arange(len(bags))
    through = np.cumsum(bags, axis=1)
    n = through[:, -1]
    above = n - through[rows, cells]
    return (above + np.asarray(theta) * (bags[rows, cells] + 1)) / (n + 1)


def rehearsed(cells: NDArray[np.intp]) -> NDArray[np.float64]:
    """p-values of a whole reference, each window ranked among those before it, ties broken by
    :func:`ties` of its number.

    Args:
        cells: of the scores, [windows, streams].

    Returns:
        float64 [windows, streams].
    """
    count, streams = cells.shape
    rows = np.arange(count, dtype=np.int64)
    theta = np.array([_ties(row, streams) for row in range(count)])
    found = np.empty(cells.shape)
    for stream, column in enumerate(cells.T):
        bags = np.zeros((count + 1, CELLS), dtype=np.int32)
        bags[rows + 1, column] = 1
        bags = np.cumsum(bags, axis=0, out=bags)[:-1]  # as each window found it
        same = bags[rows, column]
        above = rows - np.cumsum(bags, axis=1)[rows, column]
        found[:, stream] = (above + theta[:, stream] * (same + 1)) / (rows + 1)
    return found


def ties(seed: int, streams: int) -> NDArray[np.float64]:
    """Uniform numbers that break the ties of a window, [streams], the same in every replay."""
    return np.random.Generator(np.random.PCG64(seed)).random(streams)


# Every rehearsal has the same seeds: the numbers of its windows.
_ties = lru_cache(maxsize=1 << 14)(ties)


def uniform(*key: object) -> float:
    """A number in (0, 1) that looks random and depends on ``key`` only, so that a replay of the
    same window gives the same evidence."""
    digest = hashlib.sha256("\x1f".join(map(str, key)).encode()).digest()
    return (int.from_bytes(digest[:6], "big") + 0.5) / 2**48
