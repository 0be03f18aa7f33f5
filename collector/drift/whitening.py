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

PHIS = np.array([0.2, 0.35, 0.5, 0.6, 0.7, 0.77, 0.83, 0.88, 0.92, 0.95, 0.97, 0.985, 0.993])
SHARES = np.linspace(0.05, 1.0, 20)
LEAST_DEVIATION = 1e-9
"""What varies less is a constant, in any of the scores' units."""
EVIDENT = 4.0
"""Gain in log likelihood that two parameters have to bring: less is no memory."""


def fit_memory(series: Floats) -> tuple[Floats, Floats]:
    """φ and λ of each column by the likelihood of its periodogram (Whittle, 1953); both 0 where
    nothing but noise is seen.

    Args:
        series: [windows, streams] of variance 1, on an even grid of windows; NaN where none came.
            Windows that are lost at random, a share 1 − q of them, make the spectrum f into
            q·f + (1 − q).
    """
    known = np.isfinite(series)
    came = known.mean(axis=0)
    middle = np.nanmean(series, axis=0)
    deviation = np.maximum(np.nanstd(series, axis=0), 1e-12)
    filled = np.where(known, (series - middle) / deviation, 0.0)
    power = np.abs(np.fft.rfft(filled, axis=0))[1:] ** 2 / np.maximum(known.sum(axis=0), 1)
    cosine = np.cos(2 * np.pi * np.arange(1, len(power) + 1) / len(series))
    constant = np.nanstd(series, axis=0) <= LEAST_DEVIATION
    best = np.where(constant, np.inf, -power.sum(axis=0))
    phi, share = np.zeros(series.shape[1]), np.zeros(series.shape[1])
    best += EVIDENT
    for one in PHIS.tolist():
        wander: Floats = (1 - one**2) / (1 - 2 * one * cosine + one**2)
        for part in SHARES.tolist():
            spectrum: Floats = came * (part * wander + 1 - part)[:, None] + (1 - came)
            likelihood: Floats = -(np.log(spectrum) + power / spectrum).sum(axis=0)
            better = likelihood > best
            best = np.where(better, likelihood, best)
            phi, share = np.where(better, one, phi), np.where(better, part, share)
    return phi, share


def lag_one(series: Floats) -> Floats:
    """Lag-1 autocorrelation of each column [windows, streams]; 0 of a constant."""
    centred = series - series.mean(axis=0)
    power = (centred**2).sum(axis=0)
    return (centred[1:] * centred[:-1]).sum(axis=0) / np.maximum(power, 1e-300)


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
