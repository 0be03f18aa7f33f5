"""What a score's own past foretells, taken out of it: innovations that no longer follow each other.

The model is a slow wander seen through noise: a state that keeps the share φ of itself from one
window to the next, and sampling noise on top, so that autocorrelations are λ·φʰ. That is
ARMA(1, 1); an AR(1) alone either misses the noise or the memory. The Kalman filter gives the
innovations, and takes irregular reporting as it comes: over a gap of g windows the state keeps φᵍ.

Memories are fitted to arrays [windows, streams]. The filters are plain floats: a stream has one to
three scores, and an array of three costs twenty times as much as its three numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite, sqrt

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
    parts = SHARES[:, None]
    for one in PHIS.tolist():
        wander: Floats = (1 - one**2) / (1 - 2 * one * cosine + one**2)
        mixed: Floats = parts * wander + 1 - parts  # [shares, frequencies]
        for column in range(series.shape[1]):
            spectrum = came[column] * mixed + (1 - came[column])
            likelihood = -(np.log(spectrum) + power[:, column] / spectrum).sum(axis=1)
            at = int(likelihood.argmax())
            if likelihood[at] > best[column]:
                best[column], phi[column], share[column] = likelihood[at], one, SHARES[at]
    return phi, share


def lag_one(series: Floats) -> Floats:
    """Lag-1 autocorrelation of each column [windows, streams]; 0 of a constant."""
    centred = series - series.mean(axis=0)
    power = (centred**2).sum(axis=0)
    return (centred[1:] * centred[:-1]).sum(axis=0) / np.maximum(power, 1e-300)


class Whitener:
    """Kalman filters, one a stream.

    Args:
        phi: of each stream.
        share: λ of each.
    """

    def __init__(self, phi: Sequence[float], share: Sequence[float]) -> None:
        self._models = list(zip(phi, share, strict=True))
        self.state = [0.0] * len(self._models)
        self.variance = list(share)
        """Of the state, where the whole score's is 1."""

    def step(self, gap: float, scores: Sequence[float]) -> list[float]:
        """Let time pass, and take in a window.

        Args:
            gap: windows' time since the last window, above 0.
            scores: of mean 0, one a stream; NaN, where there is none, tells nothing and is passed
                through.

        Returns:
            Innovations in units of the score's own deviation less what was foretold.
        """
        innovations: list[float] = []
        for at, ((phi, share), score) in enumerate(zip(self._models, scores, strict=True)):
            keep = phi**gap
            state = keep * self.state[at]
            variance = keep**2 * self.variance[at] + (1 - keep**2) * share
            spread = max(variance + (1 - share), 1e-12)
            innovation = score - state
            if isfinite(innovation):
                gain = variance / spread
                state, variance = state + gain * innovation, (1 - gain) * variance
            self.state[at], self.variance[at] = state, variance
            innovations.append(innovation / sqrt(spread))
        return innovations
