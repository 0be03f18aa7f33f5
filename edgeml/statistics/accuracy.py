"""Accuracy from counts of confidence: estimated without labels, true where they came back.

Without labels: the device counts how often each confidence is reached, the evaluation set says how
often a model this sure is right (Guillory and others, "Predicting with confidence on unseen
distributions", 2021; NannyML calls its form confidence-based performance estimation, CBPE). That
holds as long as calibration did: a change of what classes look like, under which the model stays
sure and is wrong, is not seen by it. Say so beside the figure.

With labels: counts of (confidence bin, right or wrong) for each group. They add and subtract like
all counts, and everything here is computed from their sums.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import msgspec
import numpy as np
from numpy.typing import ArrayLike, NDArray

from edgeml.columns import blocks
from edgeml.errors import StatisticsError
from edgeml.statistics.families.family import Context
from edgeml.statistics.families.outputs import CONFIDENCE_BINS, compute
from edgeml.statistics.grid import Grid

LEVEL = 0.95
Z = 1.959963984540054
"""The standard normal quantile of two-sided intervals at :data:`LEVEL`."""


class Calibration(msgspec.Struct, frozen=True, kw_only=True):
    """How often a model was right, by how sure it was, on the evaluation set."""

    rows: tuple[int, ...]
    """Samples with a confidence in each of equal bins over 0 … 1."""
    correct: tuple[int, ...]
    """How many of them were right."""


class Estimate(msgspec.Struct, frozen=True, kw_only=True):
    """A share, with an interval at :data:`LEVEL` and the samples behind it."""

    value: float
    low: float
    high: float
    n: int


class Feedback(msgspec.Struct, frozen=True, kw_only=True):
    """What labels say of one group, or of all."""

    accuracy: Estimate
    calibration_error: float
    """Expected calibration error, 0 … 1: Σ share·|accuracy − confidence| over the bins (Naeini and
    others, "Obtaining well calibrated probabilities using Bayesian binning", 2015), where the
    confidence is the middle of its bin. Few samples alone make it large."""
    expected_error: float
    """What of it a perfectly calibrated model shows on average with so few samples."""


class Gap(msgspec.Struct, frozen=True, kw_only=True):
    """The groups of which the model is most and least often right."""

    best: str
    worst: str
    difference: float
    low: float
    high: float
    """An interval for the difference of these two, widened for their having been picked out of all
    pairs (Bonferroni)."""


def calibrate(confidence: ArrayLike, correct: ArrayLike) -> Calibration:
    """Count an evaluation set.

    Args:
        confidence: [n], 0 … 1; samples with none (NaN) are left out.
        correct: [n], whether the class was right.
    """
    return _calibration(feedback_counts(confidence, correct))


def _calibration(counts: NDArray[np.int64]) -> Calibration:
    return Calibration(
        rows=tuple(counts.sum(axis=1).tolist()), correct=tuple(counts[:, 1].tolist())
    )


def calibration_of(
    scores: NDArray[np.generic], labels: NDArray[np.generic], context: Context
) -> Calibration:
    """Count an evaluation set from class scores [n, classes], which may be a mapped file, and class
    numbers [n]."""
    truth = np.asarray(labels).ravel()
    counts = np.zeros((CONFIDENCE_BINS, 2), dtype=np.int64)
    for first, block in blocks(scores):
        found = compute(block, context, None)
        counts += feedback_counts(found[:, 1], found[:, 0] == truth[first : first + len(block)])
    return _calibration(counts)


def feedback_counts(confidence: ArrayLike, correct: ArrayLike) -> NDArray[np.int64]:
    """Counts [bins, 2] of samples by confidence and by wrong or right; these add and subtract."""
    sure = np.asarray(confidence, dtype=np.float64).ravel()
    right = np.asarray(correct, dtype=bool).ravel()
    if sure.shape != right.shape:
        raise StatisticsError(
            f"{sure.size} confidences and {right.size} outcomes", expected="one of each a sample"
        )
    known = np.isfinite(sure)
    bins = np.clip(sure[known] * CONFIDENCE_BINS, 0, CONFIDENCE_BINS - 1).astype(np.int64)
    flat = np.bincount(2 * bins + right[known], minlength=2 * CONFIDENCE_BINS)
    return flat.reshape(CONFIDENCE_BINS, 2)


def confidence_bins(grid: Grid, cells: NDArray[np.int64]) -> NDArray[np.int64]:
    """Counts [bins] of the confidences among the counts [cells] of such a stream. What lies outside
    0 … 1 belongs to the nearest bin; broken scores have no confidence and are left out."""
    line = cells[grid.ordered]
    inner = line[1:-1].copy()
    inner[0] += line[0]
    inner[-1] += line[-1]
    return inner


def estimated_accuracy(cells: ArrayLike, calibration: Calibration) -> Estimate:
    """Accuracy without labels: Σ share(bin)·accuracy(bin).

    A bin's accuracy is pulled towards its own confidence by the weight of one sample, so that a
    confidence that the evaluation set never showed counts for what it says, and for as unsure. The
    interval holds the sampling error of both sides: of the evaluation set's outcomes and of the
    window's rows. It does not hold a change of calibration.

    Args:
        cells: [bins] as of :func:`confidence_bins`: how many samples had each confidence.
        calibration: of the evaluation set.

    Returns:
        The accuracy expected of inputs like the window's; NaN within 0 … 1 where it is empty.

    Raises:
        StatisticsError: the two have unlike bins.
    """
    counts = np.asarray(cells, dtype=np.float64).ravel()
    if counts.size != len(calibration.rows):
        raise StatisticsError(
            f"a window with {counts.size} confidence bins",
            expected=f"{len(calibration.rows)}, as the baseline's calibration has",
        )
    n = int(counts.sum())
    if not n:
        return Estimate(value=math.nan, low=0.0, high=1.0, n=0)
    rows = np.asarray(calibration.rows, dtype=np.float64)
    correct = np.asarray(calibration.correct, dtype=np.float64)
    accuracy = (correct + _confidences(counts.size)) / (rows + 1)
    shares = counts / n
    value = float(shares @ accuracy)
    outcomes = float(shares**2 @ (accuracy * (1 - accuracy) / (rows + 1)))
    window = max(float(shares @ accuracy**2) - value**2, 0.0) / n
    reach = Z * math.sqrt(outcomes + window)
    return Estimate(value=value, low=max(value - reach, 0.0), high=min(value + reach, 1.0), n=n)


def feedback(counts: ArrayLike) -> Feedback:
    """What labels say, from counts [bins, 2] of :func:`feedback_counts`, or sums of such."""
    table = np.asarray(counts, dtype=np.float64)
    rows, right = table.sum(axis=1), table[:, 1]
    n = float(rows.sum())
    if not n:
        return Feedback(accuracy=wilson(0, 0), calibration_error=math.nan, expected_error=math.nan)
    sure = _confidences(len(rows))
    used = rows > 0
    gaps = np.abs(right[used] / rows[used] - sure[used])
    # The mean size of a normal deviation of variance p(1 − p)/rows.
    by_chance = np.sqrt(2 / math.pi * sure[used] * (1 - sure[used]) / rows[used])
    shares = rows[used] / n
    return Feedback(
        accuracy=wilson(int(right.sum()), int(n)),
        calibration_error=float(shares @ gaps),
        expected_error=float(shares @ by_chance),
    )


def largest_gap(groups: Mapping[str, ArrayLike]) -> Gap | None:
    """The difference in accuracy between the best and the worst group, from each group's counts
    [bins, 2]; None where fewer than two have labels. Newcombe's interval ("Interval estimation for
    the difference between independent proportions", 1998, method 10)."""
    seen: dict[str, tuple[int, int]] = {}
    for name, counts in groups.items():
        wrong, right = np.asarray(counts, dtype=np.int64).sum(axis=0).tolist()
        if wrong + right:
            seen[name] = (right, wrong + right)
    if len(seen) < 2:
        return None
    best = max(seen, key=lambda name: seen[name][0] / seen[name][1])
    worst = min(seen, key=lambda name: seen[name][0] / seen[name][1])
    pairs = len(seen) * (len(seen) - 1) // 2
    from statistics import NormalDist  # a device never asks, and has no memory to spare

    z = NormalDist().inv_cdf(1 - (1 - LEVEL) / (2 * pairs))
    above, below = wilson(*seen[best], z=z), wilson(*seen[worst], z=z)
    difference = above.value - below.value
    return Gap(
        best=best,
        worst=worst,
        difference=difference,
        low=difference - math.hypot(above.value - above.low, below.high - below.value),
        high=difference + math.hypot(above.high - above.value, below.value - below.low),
    )


def wilson(correct: int, n: int, *, z: float = Z) -> Estimate:
    """A share with Wilson's score interval (Wilson, "Probable inference", 1927); NaN of nothing."""
    if not n:
        return Estimate(value=math.nan, low=0.0, high=1.0, n=0)
    share = correct / n
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    reach = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    # At the ends rounding could leave the share itself outside.
    low, high = min(centre - reach, share), max(centre + reach, share)
    return Estimate(value=share, low=max(low, 0.0), high=min(high, 1.0), n=n)


def _confidences(bins: int) -> NDArray[np.float64]:
    return (np.arange(bins) + 0.5) / bins
