"""The test that the tables of faults are made with, and what it is worth: its false alarms.

A window of n samples is held against the baseline, stream by stream, by two tests: the two-sample
χ² on counts, and a z-test of the means of the counts, with the baseline's variance on both sides (a
window of few rows has none to speak of). It *raises* where the smallest p-value, times the number
of tests, is below :data:`LEVEL` (Bonferroni). All of it is computed from counts on the baseline's
grids, as a collector would.

Samples are split at random into a half that the baseline is fitted to and a half that windows are
drawn from, again and again: no window holds a sample of its baseline.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgeml.collector.drift.chi2 import chi_square
from edgeml.statistics import Counts, Stream

Matrix = NDArray[np.float64]
Fit = Callable[[NDArray[np.int64]], Sequence[Stream]]
"""From the rows of the clean samples that are the baseline to its streams."""

LEVEL = 0.01
SIZES = (5, 10, 30, 60, 120)
CLEAN = 10
"""Windows without a fault for each one with it: false alarms are rare, and to be counted."""
FOUND = 0.9
"""A size suffices where it raises in this share of the splits."""


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """What is seen of one fault."""

    fault: str
    strength: str
    statistic: str
    """That tells single samples apart best."""
    separation: float
    """|2·AUC − 1| of it: 0 nothing, 1 every sample."""
    raised: tuple[float, ...]
    """Share of windows that raise, by size."""

    @property
    def frames(self) -> str:
        """The smallest window that raises nearly always."""
        able = [n for n, share in zip(SIZES, self.raised, strict=True) if share >= FOUND]
        return str(able[0]) if able else f"> {SIZES[-1]}"


class Study(msgspec.Struct, frozen=True, kw_only=True):
    """All faults, and the windows without any."""

    seen: tuple[Seen, ...]
    false_alarms: tuple[float, ...]
    """Share of windows without a fault that raise, by size."""
    splits: int


def study(
    names: Sequence[str],
    clean: Matrix,
    faulty: Mapping[tuple[str, str], Matrix],
    fit: Fit,
    *,
    splits: int,
    seed: int = 0,
) -> Study:
    """Hold windows of each fault against baselines without.

    Args:
        names: of the statistics, [S].
        clean: [N, S], of the samples as they are.
        faulty: [N, S] for each (fault, strength), of the same samples with the fault; or of other
            samples, [M, S], from all of which windows are drawn then.
        fit: fits a baseline.
        splits: how often to split.
        seed: of the splits.
    """
    random = np.random.default_rng(seed)
    raised = {key: np.zeros(len(SIZES)) for key in faulty}
    alarms = np.zeros(len(SIZES))
    for split in range(splits * CLEAN):
        order = random.permutation(len(clean))
        half = len(clean) // 2
        streams = fit(order[:half])
        tests = [_Test(stream, clean[order[:half], i]) for i, stream in enumerate(streams)]
        for at, size in enumerate(SIZES):
            rows = order[half : half + size]
            alarms[at] += _raises(tests, clean[rows])
            if split >= splits:
                continue
            for key, matrix in faulty.items():
                same = len(matrix) == len(clean)
                drawn = rows if same else random.permutation(len(matrix))[:size]
                raised[key][at] += _raises(tests, matrix[drawn])
    found = {key: _best(clean, matrix) for key, matrix in faulty.items()}
    return Study(
        seen=tuple(
            Seen(
                fault=key[0],
                strength=key[1],
                statistic=names[found[key][0]],
                separation=found[key][1],
                raised=tuple((raised[key] / splits).tolist()),
            )
            for key in faulty
        ),
        false_alarms=tuple((alarms / (splits * CLEAN)).tolist()),
        splits=splits,
    )


class _Test:
    """One stream of a baseline."""

    def __init__(self, stream: Stream, calibration: NDArray[np.float64]) -> None:
        self._grid = stream.grid
        # A temporal statistic has no baseline but the device's own past: the same samples in order.
        self._baseline = Counts.of(stream.grid, calibration)

    def smallest_p(self, values: NDArray[np.float64]) -> float:
        counts = Counts.of(self._grid, values)
        of_shape = chi_square(self._grid, counts.cells, self._baseline.cells).p
        return min(of_shape, self._p_of_mean(counts))

    def _p_of_mean(self, counts: Counts) -> float:
        if self._grid.kind != "numeric":
            return 1.0
        n, mean, _ = self._grid.moments(counts)
        m, usual, variance = self._grid.moments(self._baseline)
        if not n or not m:
            return 1.0
        # What all in one cell still vary by.
        variance += self._grid.step**2 / 12
        z = abs(mean - usual) / (variance * (1 / n + 1 / m)) ** 0.5
        return math.erfc(z / 2**0.5)


def _raises(tests: Sequence[_Test], window: Matrix) -> bool:
    return any(
        test.smallest_p(column) * 2 * len(tests) < LEVEL
        for test, column in zip(tests, window.T, strict=True)
    )


def _best(clean: Matrix, faulty: Matrix) -> tuple[int, float]:
    separations = [abs(separation(a, b)) for a, b in zip(clean.T, faulty.T, strict=True)]
    best = int(np.argmax(separations))
    return best, separations[best]


def separation(clean: NDArray[np.float64], faulty: NDArray[np.float64]) -> float:
    """2·AUC − 1: how often a faulty sample has the larger value, less how often the smaller."""
    a, b = np.sort(clean[np.isfinite(clean)]), faulty[np.isfinite(faulty)]
    if not a.size or not b.size:
        return 0.0
    below, through = np.searchsorted(a, b, "left"), np.searchsorted(a, b, "right")
    return float((below + through).mean() / a.size - 1)
