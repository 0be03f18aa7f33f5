"""The hour of the day and the hour of the week, taken out of a series of scores.

A profile is a sum of *hats* (linear B-splines), fitted by ridge regression: 24 around the day; for
the week a level for each day of it, 24 more for its end, and 168 around all of it, so that an hour
of the week about which little is known lies where that hour of similar days does. Linear between
the hours, because a score that changes through an hour would leave a saw's teeth, in the same place
each day, beside an hour's mean.
"""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Season = Literal["none", "day", "week"]
SEASONS: tuple[Season, ...] = get_args(Season)

HOUR_MS = 3_600_000
DAY_HOURS, WEEK_HOURS = 24, 168
SPAN_HOURS: dict[Season, int] = {"none": 0, "day": 72, "week": 336}
"""What history must span before a profile can be told from drift: three days, two weeks."""

WEEKEND = (2, 3)
"""Days since Thursday, which Unix time began on. Where people rest on other days the hats around
the whole week say so, with a little more history."""

RIDGE = 4.0
"""Weight of a coefficient's prior, in windows: that it is 0."""
RIDGE_OF_AN_HOUR = 16.0
"""The same for the 168 hats of the week, each of which sees a 24th of what a day's level sees."""
CLIP = 5.0
"""Scores further from the median than so many (normal) deviations are drawn in for the fit."""


def design(times_ms: NDArray[np.int64], season: Season) -> Floats:
    """Weights of each coefficient at each time: float64 [times, 1 + hats].

    Args:
        times_ms: Unix time of each window's start. Hours are UTC: a device's own time zone only
            moves the profile.
        season: which hats there are. ``week`` includes those of the day.
    """
    hours = np.asarray(times_ms, dtype=np.float64) / HOUR_MS
    parts = [np.ones((hours.size, 1))]
    if season != "none":
        parts.append(_hats(hours, DAY_HOURS))
    if season == "week":
        days = (hours // DAY_HOURS % 7).astype(np.intp)
        weekend = np.isin(days, WEEKEND)[:, None]
        parts += [np.eye(7)[days], parts[1] * weekend, _hats(hours, WEEK_HOURS)]
    return np.concatenate(parts, axis=1)


def weights(time_ms: int, season: Season) -> list[tuple[int, float]]:
    """What of a row of :func:`design` is not zero: coefficients, and their weights."""
    found = [(0, 1.0)]
    if season == "none":
        return found
    hours, part = divmod(time_ms, HOUR_MS)
    share = part / HOUR_MS
    day = [(hours % DAY_HOURS, 1 - share), ((hours + 1) % DAY_HOURS, share)]
    found += [(1 + hat, weight) for hat, weight in day]
    if season == "week":
        first, weekday = 1 + DAY_HOURS, hours // DAY_HOURS % 7
        found.append((first + weekday, 1.0))
        if weekday in WEEKEND:
            found += [(first + 7 + hat, weight) for hat, weight in day]
        first += 7 + DAY_HOURS
        found.append((first + hours % WEEK_HOURS, 1 - share))
        found.append((first + (hours + 1) % WEEK_HOURS, share))
    return found


def _hats(hours: Floats, around: int) -> Floats:
    """Linear between the full hours of a circle: [times, around]."""
    first = hours.astype(np.intp) % around
    share = hours - np.floor(hours)
    rows = np.arange(hours.size)
    hats = np.zeros((hours.size, around))
    hats[rows, first] = 1 - share
    hats[rows, (first + 1) % around] += share
    return hats


def fit_profile(times_ms: NDArray[np.int64], scores: Floats, season: Season) -> Floats:
    """Fit profiles: float64 [1 + hats, streams].

    Args:
        times_ms: [windows].
        scores: [windows, streams], without NaN; each is robustified against outliers.
        season: which hats there are.
    """
    middle = np.median(scores, axis=0)
    deviation = 1.4826 * np.median(np.abs(scores - middle), axis=0)
    reach = np.where(deviation > 0, CLIP * deviation, np.inf)
    drawn = np.clip(scores, middle - reach, middle + reach)
    if season == "none":
        return drawn.mean(axis=0, keepdims=True)
    weights = design(times_ms, season)
    ridge = np.full(weights.shape[1], RIDGE)
    ridge[0] = 1e-9
    if season == "week":
        ridge[-WEEK_HOURS:] = RIDGE_OF_AN_HOUR
    gram = weights.T @ weights + np.diag(ridge)
    fitted = np.linalg.solve(gram, weights.T @ (drawn - middle)).astype(np.float64)
    fitted[0] += middle
    return fitted
