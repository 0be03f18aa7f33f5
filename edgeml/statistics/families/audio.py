"""Sound: level, clipping, offset, silence, zero crossings, and energies in mel bands.

A clip is an array of samples, of any shape; samples of several channels follow each other as they
lie in memory.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from edgeml.statistics.families.family import MISSING, TINY, Batch, Context, Family, Matrix

BANDS = 16
FRAME = 512
"""Samples of a frame of the spectrum, 32 ms at 16 kHz: speech is steady for so long."""
FRAMES = 24
"""Frames of the spectrum that are looked at, spread over the clip: so its cost is bounded."""
NYQUIST = 8000.0
"""The bands are placed as if the sample rate were 16 kHz, since a tensor does not say. Of other
rates they are the same shares of the spectrum, on another curve."""
BLOCK = 256
"""Samples of a block that is silent or not."""
SILENCE_DB = -50.0
"""Of full scale: a block whose level is lower is silent."""
CLIPPED = 0.99
"""Of full scale, or of the peak."""
FLOOR = 1e-10
"""Power that is added before a logarithm: −100 dB of full scale."""

NAMES = ("level_db", "clipped", "at_peak", "offset", "silence", "zero_crossings")


def names(context: Context) -> tuple[str, ...]:  # noqa: ARG001
    """The same for every clip."""
    return (*NAMES, *(f"mel_{band:02}" for band in range(BANDS)))


def compute(batch: Batch, context: Context, state: None) -> Matrix:  # noqa: ARG001
    """Statistics of clips [n, …].

    Level in dB of full scale; share of samples within 1 % of it, and within 1 % of the clip's own
    peak, where an amplifier that clips before the converter leaves its flat tops; offset, in shares
    of full scale; share of the blocks that are silent; zero crossings a sample, about the mean; and
    the mean of the log₁₀ energy in each of 16 bands of equal width in mel (Davis, Mermelstein,
    "Comparison of parametric representations for monosyllabic word recognition", 1980).
    """
    full = max(abs(context.low), abs(context.high), TINY)
    out = np.empty((len(batch), len(NAMES) + BANDS))
    with np.errstate(all="ignore"):
        for row, clip in zip(out, batch, strict=True):
            if not clip.size:
                row[:] = MISSING
                continue
            wave = clip.ravel().astype(np.float32)
            wave *= np.float32(1 / full)
            row[: len(NAMES)] = _time_domain(wave)
            row[len(NAMES) :] = _mel_energies(wave)
    return out


def _time_domain(wave: NDArray[np.float32]) -> list[float]:
    mean = float(np.add.reduce(wave, dtype=np.float64)) / wave.size
    power = float(wave @ wave) / wave.size
    block = min(BLOCK, wave.size)
    whole = wave[: wave.size // block * block].reshape(-1, block)
    powers = np.einsum("ij,ij->i", whole, whole) / block
    silent = np.count_nonzero(powers < 10 ** (SILENCE_DB / 10)) / len(powers)
    above = wave > np.float32(mean)
    sizes = np.abs(wave)
    peak = float(np.maximum.reduce(sizes))
    return [
        10 * float(np.log10(power + FLOOR)),
        int(np.count_nonzero(sizes >= CLIPPED)) / wave.size,
        int(np.count_nonzero(sizes >= CLIPPED * peak)) / wave.size if peak else 0.0,
        mean,
        silent if power == power else np.nan,  # noqa: PLR0124  # NaN is no sound, and no silence
        int(np.count_nonzero(above[1:] != above[:-1])) / max(wave.size - 1, 1),
    ]


def _mel_energies(wave: NDArray[np.float32]) -> NDArray[np.float64]:
    """[BANDS]: the mean over some frames of the logarithm of each band's energy."""
    if wave.size < FRAME:
        wave = np.concatenate([wave, np.zeros(FRAME - wave.size, np.float32)])
    possible = (wave.size - FRAME) // (FRAME // 2) + 1
    starts = np.linspace(0, wave.size - FRAME, min(FRAMES, possible)).astype(np.int64)
    frames = np.lib.stride_tricks.sliding_window_view(wave, FRAME)[starts]
    spectrum = np.fft.rfft(frames * _window(), axis=1)
    powers = spectrum.real**2 + spectrum.imag**2
    return np.log10(powers @ _filters() + FLOOR).mean(axis=0)


@lru_cache(maxsize=1)
def _window() -> NDArray[np.float32]:
    """Hann's, scaled so that a full-scale sine has a power of about 1 in its band."""
    window = np.hanning(FRAME)
    return (window / window.sum() * 2).astype(np.float32)


@lru_cache(maxsize=1)
def _filters() -> NDArray[np.float64]:
    """Triangles [frequencies, BANDS], half of each over its neighbour's half."""
    top = 2595 * np.log10(1 + NYQUIST / 700)
    mel: NDArray[np.float64] = np.linspace(0, float(top), BANDS + 2)
    edges = 700 * (np.exp(mel / 2595 * np.log(10)) - 1)
    frequency = np.linspace(0, NYQUIST, FRAME // 2 + 1)[:, None]
    left, centre, right = edges[:-2], edges[1:-1], edges[2:]
    rising = (frequency - left) / (centre - left)
    falling = (right - frequency) / (right - centre)
    return np.maximum(0.0, np.minimum(rising, falling))


FAMILY = Family(names=names, compute=compute)
