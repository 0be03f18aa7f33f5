"""What a score's own past foretells, taken out of it: innovations that no longer follow each other.

The model is a slow wander seen through noise: a state that keeps the share φ of itself from one
window to the next, and sampling noise on top, so that autocorrelations are λ·φʰ. That is
ARMA(1, 1); an AR(1) alone either misses the noise or the memory. The Kalman filter gives the
innovations, and takes irregular reporting as it comes: over a gap of g windows the state keeps φᵍ.

All arrays are over streams that see their windows together.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

PHIS = np.array([0.3, 0.5, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99])
LONGEST_LAG = 48
NO_MEMORY = 0.0


def autocorrelations(series: Floats, lags: int) -> Floats:
    """Of each column, at the lags 1 … ``lags``: float64 [lags, streams].

    Args:
        series: [windows, streams] on an even grid of windows; NaN where none came.
    """
    known = np.isfinite(series)
    filled = np.where(known, series - np.nanmean(series, axis=0), 0.0)
    size = 2 ** int(np.ceil(np.log2(2 * len(series))))
    power = np.abs(np.fft.rfft(filled, size, axis=0)) ** 2
    products = np.fft.irfft(power, size, axis=0)[: lags + 1]
    pairs = np.fft.irfft(np.abs(np.fft.rfft(known.astype(float), size, axis=0)) ** 2, size, axis=0)
    means = products / np.maximum(pairs[: lags + 1], 1.0)
    return means[1:] / np.maximum(means[0], 1e-300)


def fit_memory(series: Floats) -> tuple[Floats, Floats]:
    """φ and λ of each column, both 0 where nothing but noise is seen.

    Least squares of λ·φʰ on the autocorrelations, lag h weighted 1/h: the near lags are what
    innovations are spoilt by, the far ones tell a slow wander from a quick one.
    """
    lags = int(min(LONGEST_LAG, max(len(series) // 4, 1)))
    found = autocorrelations(series, lags)
    weights = 1 / np.arange(1, lags + 1)
    curves = PHIS[:, None] ** np.arange(1, lags + 1)
    powers = (curves**2) @ weights
    shares = np.clip(((curves * weights) @ found) / powers[:, None], 0.0, 1.0)
    gains = 2 * shares * ((curves * weights) @ found) - shares**2 * powers[:, None]
    best = gains.argmax(axis=0)
    share = np.take_along_axis(shares, best[None, :], axis=0)[0]
    # Less than two standard errors of a correlation is no memory.
    seen = share * PHIS[best] > 2 / np.sqrt(np.isfinite(series).sum(axis=0))
    return np.where(seen, PHIS[best], NO_MEMORY), np.where(seen, share, NO_MEMORY)


class Whitener:
    """Kalman filters, one a stream.

    Args:
        phi: [streams].
        share: λ, [streams].
    """

    def __init__(self, phi: Floats, share: Floats) -> None:
        self.phi = phi
        self.share = share
        self.state = np.zeros_like(phi)
        self.variance = share.copy()
        """Of the state, where the whole score's is 1."""

    def predict(self, gap: float) -> None:
        """Let ``gap`` windows' time pass since the last window."""
        keep = self.phi**gap
        self.state = keep * self.state
        self.variance = keep**2 * self.variance + (1 - keep**2) * self.share

    def update(self, scores: Floats) -> Floats:
        """Innovations of scores [streams] of mean 0, in units of the score's own deviation less
        what was foretold; NaN, for a window without a score, is passed through and tells nothing.
        """
        spread = self.variance + (1 - self.share)
        innovation = scores - self.state
        gain = np.where(np.isfinite(innovation), self.variance / np.maximum(spread, 1e-12), 0.0)
        self.state = self.state + gain * np.nan_to_num(innovation)
        self.variance = (1 - gain) * self.variance
        return innovation / np.sqrt(np.maximum(spread, 1e-12))
