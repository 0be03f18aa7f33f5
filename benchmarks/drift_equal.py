"""Powers of several tests at one false-alarm rate, and what they differ by, with their errors.

A test's threshold is a quantile of its score where nothing changed. Repetitions that serve all
tests are resampled whole, thresholds included (the paired bootstrap), so that what the tests have
in common, most of the noise, drops out of their ratio.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

LEVEL = 0.05
RESAMPLES = 200
WANTED = 0.95
"""Of the exact test's power."""
NOTICED = 0.2
"""Power of the exact test from which on its ratio is told; below, only the difference."""
SURE = 1.645
"""Standard errors: a one-sided bound of 95 %."""
LEGEND = (
    "Ratios are given with their standard error, with < where they are less than "
    f"{WANTED} by {SURE} standard errors, and with ? where they may be; where the exact test finds "
    f"less than {NOTICED:.0%}, the difference of the powers is given instead, with a sign."
)


class Powers(NamedTuple):
    """Of some changes."""

    value: Floats
    """[changes, tests]."""
    resampled: Floats
    """[resamples, changes, tests]."""


class Against(NamedTuple):
    """One test beside another at one change."""

    ratio: float
    ratio_error: float
    """Standard error; NaN, as the ratio is, where the other test finds less than NOTICED."""
    difference: float
    difference_error: float

    @property
    def verdict(self) -> str:
        """Whether the ratio is at least WANTED: ``yes`` or ``no`` where it is so by SURE errors,
        and ``open`` between; ``weak`` where the other test hardly finds the change itself."""
        if not np.isfinite(self.ratio):
            return "weak"
        margin = SURE * self.ratio_error
        if self.ratio - margin >= WANTED:
            return "yes"
        return "no" if self.ratio + margin < WANTED else "open"

    @property
    def text(self) -> str:
        """For a table; :data:`LEGEND` explains it."""
        if self.verdict == "weak":
            return f"{self.difference:+.3f} ± {self.difference_error:.3f}"
        mark = {"yes": "", "open": " ?", "no": " <"}[self.verdict]
        return f"{self.ratio:.3f} ± {self.ratio_error:.3f}{mark}"


def powers(changed: Floats, null: Floats) -> Powers:
    """Powers at :data:`LEVEL`.

    Args:
        changed: scores, larger for more change, [repetitions, changes, tests].
        null: of the same repetitions where nothing changed, [repetitions, windows, tests].
    """
    random = np.random.default_rng(0)
    count = len(changed)
    draws = [random.integers(0, count, count) for _ in range(RESAMPLES)]
    return Powers(
        _power(changed, null), np.array([_power(changed[draw], null[draw]) for draw in draws])
    )


def _power(changed: Floats, null: Floats) -> Floats:
    critical = np.quantile(null.reshape(-1, null.shape[2]), 1 - LEVEL, axis=0)
    return (changed > critical).mean(axis=0)


def against(found: Powers, change: int, ours: int, exact: int) -> Against:
    """Test number ``ours`` beside number ``exact``."""
    one, other = found.value[change, ours], found.value[change, exact]
    again, other_again = found.resampled[:, change, ours], found.resampled[:, change, exact]
    weak = other < NOTICED
    ratios = again / np.maximum(other_again, 1e-9)
    return Against(
        np.nan if weak else float(one / other),
        np.nan if weak else float(ratios.std(ddof=1)),
        float(one - other),
        float((again - other_again).std(ddof=1)),
    )


def summary(rows: Sequence[Against]) -> str:
    """What became of the wish, in a sentence or two."""
    told = [row for row in rows if row.verdict != "weak"]
    weak = [row for row in rows if row.verdict == "weak"]
    if not told:
        return "no change is found often enough to tell"
    sure, below = (sum(row.verdict == verdict for row in told) for verdict in ("yes", "no"))
    ratios = [row.ratio for row in told]
    text = (
        f"at least {WANTED} of its power, by {SURE} standard errors, in {sure} of {len(told)} "
        f"lines where it finds {NOTICED:.0%} or more, less than that in {below}, not decided in "
        f"{len(told) - sure - below}; median {np.median(ratios):.2f}, least {min(ratios):.3f}, "
        f"standard errors of ratios up to {max(row.ratio_error for row in told):.3f}"
    )
    if not weak:
        return text
    least = min(weak, key=lambda row: row.difference)
    return (
        f"{text}. In {len(weak)} lines where it finds less, the difference of powers is at least "
        f"{least.difference:+.3f} ± {least.difference_error:.3f}"
    )
