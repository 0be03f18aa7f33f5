"""What a stream's scores are like while nothing is wrong: learned once, then held still.

From a reference of windows: the profile of the hour (:mod:`season`), the memory of what remains
(:mod:`whitening`), its scale, and how much sums of the innovations still vary more than independent
ones would (:func:`caution`). The reference's own innovations are taken *out of fold*: each part
by a model that was fitted on the others. They start the bag that later windows are ranked in, and a
bag of innovations that the model had been fitted to would be too narrow.

All arrays are over series that see their windows together: a stream's scores, or a fleet's.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgeml.collector.drift.season import (
    HOUR_MS,
    SEASONS,
    SPAN_HOURS,
    Season,
    design,
    fit_profile,
    weights,
)
from edgeml.collector.drift.whitening import Whitener, fit_memory

Floats = NDArray[np.float64]

FOLDS = 4
BATCHES = (4, 16, 64, 256)
"""Lengths of the sums that caution is measured on."""
LEAST_BATCHES = 12
SPARSE = 16
"""A series is laid out with its gaps as long as that makes it at most so many times longer."""
Z_CAUTION = 0.7
"""Standard errors that are put on top of each estimate of v."""


class Model(msgspec.Struct, frozen=True, kw_only=True):
    """Of one series."""

    season: Season
    length_ms: int
    """Of a window: the unit of gaps."""
    profile: list[float]
    scale: float
    phi: float
    share: float
    caution: float
    """v, at least 1."""


class Usual:
    """What is usual at an hour, by models of series that see their windows together."""

    def __init__(self, models: Sequence[Model]) -> None:
        self._models = models
        self._scales = np.array([model.scale for model in models])
        self._profiles: dict[Season, tuple[list[int], Floats]] = {}
        for season in SEASONS:
            columns = [i for i, model in enumerate(models) if model.season == season]
            if columns:
                profiles = np.array([models[i].profile for i in columns]).T
                self._profiles[season] = columns, profiles

    def residuals(self, times_ms: NDArray[np.int64], values: Floats) -> Floats:
        """How far values [windows, series] lie from it, in their usual deviations."""
        usual = np.empty_like(values)
        for season, (columns, profiles) in self._profiles.items():
            usual[:, columns] = design(times_ms, season) @ profiles
        return (values - usual) / self._scales

    def residual(self, time_ms: int, values: Sequence[float]) -> list[float]:
        """The same of one window, one value a series."""
        terms = {season: weights(time_ms, season) for season in self._profiles}
        return [
            (value - sum(w * model.profile[at] for at, w in terms[model.season])) / model.scale
            for model, value in zip(self._models, values, strict=True)
        ]


class Learned(msgspec.Struct, frozen=True):
    """Models of all series, and their reference's innovations."""

    models: list[Model]
    innovations: Floats
    """Out of fold, [windows, series]; NaN where a fold's first windows warm the filter up."""


def learn(
    times_ms: NDArray[np.int64], scores: Floats, *, length_ms: int, seasons: Collection[Season]
) -> Learned:
    """Learn the models of a reference.

    Args:
        times_ms: of each window, ascending, [windows].
        scores: [windows, series], finite.
        length_ms: of a window.
        seasons: which may be tried; those that the reference's span is too short for are not.
            Of several the one that foretells the left-out quarters best is taken for each series.
    """
    span = (times_ms[-1] - times_ms[0] + length_ms) / HOUR_MS
    able: list[Season] = [
        s for s in SEASONS if s == "none" or (s in seasons and span >= SPAN_HOURS[s])
    ]
    tried = [_out_of_fold(times_ms, scores, season) for season in able]
    errors = np.stack([_robust_power(residuals) for residuals in tried])
    # A richer profile has to earn its place.
    best: list[int] = (errors * (1 + 0.005 * np.arange(len(able)))[:, None]).argmin(axis=0).tolist()
    residuals = _chosen(tried, best)
    scale = np.maximum(np.sqrt(_robust_power(residuals)), 1e-12)
    standard = residuals / scale
    profiles = {season: fit_profile(times_ms, scores, season) for season in able}
    # Memory is read off the residuals of the profile that will be used: those of the folds' own
    # profiles hold these profiles' errors, which last for hours and would pass for memory.
    kept = _chosen([scores - design(times_ms, s) @ profiles[s] for s in able], best)
    phi, share = fit_memory(on_even_grid(times_ms, kept, length_ms))
    innovations = whiten(times_ms, standard, length_ms=length_ms, phi=phi, share=share)
    spread = np.maximum(np.sqrt(_robust_power(innovations)), 1e-12)
    innovations = innovations / spread
    v = caution(innovations)
    models = [
        Model(
            season=able[best[i]],
            length_ms=length_ms,
            profile=profiles[able[best[i]]][:, i].tolist(),
            scale=float(scale[i] * spread[i]),
            phi=float(phi[i]),
            share=float(share[i]),
            caution=float(v[i]),
        )
        for i in range(scores.shape[1])
    ]
    return Learned(models, innovations)


def _chosen(tried: list[Floats], best: list[int]) -> Floats:
    """Of each series the column that the best season gave."""
    return np.stack([tried[at][:, i] for i, at in enumerate(best)], axis=1)


def _out_of_fold(times_ms: NDArray[np.int64], scores: Floats, season: Season) -> Floats:
    """Residuals of each quarter by the profile of the other three."""
    residuals = np.empty_like(scores)
    fold = folds(times_ms)
    for part in range(FOLDS):
        left_out = fold == part
        profile = fit_profile(times_ms[~left_out], scores[~left_out], season)
        residuals[left_out] = scores[left_out] - design(times_ms[left_out], season) @ profile
    return residuals


def folds(times_ms: NDArray[np.int64]) -> NDArray[np.int64]:
    """Which part each window is left out with. Every fourth day, so that the same day of another
    week is in; where there are few days, quarters of the whole."""
    days = np.asarray(times_ms) // (24 * HOUR_MS)
    even = np.bincount(days % FOLDS, minlength=FOLDS).min() * 2 * FOLDS >= len(days)
    if days[-1] - days[0] >= 2 * FOLDS and even:  # not so for windows of two days
        return days % FOLDS
    return np.arange(len(times_ms)) * FOLDS // len(times_ms)


def _robust_power(residuals: Floats) -> Floats:
    """Mean squares, of which the largest thousandth is drawn in."""
    squares = residuals**2
    return np.minimum(squares, np.quantile(squares, 0.999, axis=0)).mean(axis=0)


def on_even_grid(times_ms: NDArray[np.int64], series: Floats, length_ms: int) -> Floats:
    """The series by slots of a window's length, NaN in a slot without a window. Where gaps would
    make that longer than :data:`SPARSE` times the series, gaps are left out."""
    slots = np.rint((times_ms - times_ms[0]) / max(length_ms, 1)).astype(np.int64)
    steps = np.clip(np.diff(slots, prepend=slots[0]), 0, None)
    steps[1:] = np.maximum(steps[1:], 1)
    if steps.sum() > SPARSE * len(series):
        steps = np.minimum(steps, 2)
    places = np.cumsum(steps)
    even = np.full((int(places[-1]) + 1, series.shape[1]), np.nan)
    even[places] = series
    return even


def whiten(
    times_ms: NDArray[np.int64], series: Floats, *, length_ms: int, phi: Floats, share: Floats
) -> Floats:
    """Innovations of a whole series [windows, series] of mean 0 and variance 1."""
    whitener = Whitener(phi.tolist(), share.tolist())
    rows = zip(gaps_of(times_ms, length_ms).tolist(), series.tolist(), strict=True)
    return np.array([whitener.step(gap, row) for gap, row in rows])


def gaps_of(times_ms: NDArray[np.int64], length_ms: int) -> Floats:
    """Windows' time between each window and the one before; 1 for the first, and for a clock that
    went back."""
    gaps = np.diff(times_ms, prepend=times_ms[0] - length_ms) / max(length_ms, 1)
    return np.where(gaps > 0, gaps, 1.0)


def caution(innovations: Floats) -> Floats:
    """v: how much more sums of innovations vary than independent ones would, at least 1.

    The largest over sums of 4, 16, 64 and 256 windows of the variance of their means times their
    length, over that of single windows; each with a standard error on top, so that a short
    reference is used with more caution than a long one.
    """
    result = np.ones(innovations.shape[1])
    single = np.maximum(innovations.var(axis=0), 1e-12)
    for length in BATCHES:
        count = len(innovations) // length
        if count < LEAST_BATCHES:
            break
        sums = innovations[: count * length].reshape(count, length, -1).sum(axis=1)
        ratio = (sums**2).mean(axis=0) / (length * single)
        result = np.maximum(result, ratio * (1 + Z_CAUTION * np.sqrt(2 / count)))
    return result
