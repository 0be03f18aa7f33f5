"""Short-time spectra as constant arrays: which samples make a frame, the windowed Fourier transform
as a matrix, and the mel filters.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


def frames(
    samples: int, fft: int, hop: int, centre: Literal["reflect", "zero"] | None
) -> tuple[Array, Array]:
    """Samples of each frame.

    Args:
        samples: of the signal.
        fft: samples a frame.
        hop: from frame to frame.
        centre: how the signal is padded by ``fft // 2`` at both ends, if it is.

    Returns:
        Indices int64 [frames, fft] into the signal, and bool of the same shape: whether the sample
        is one of the signal at all, and not a zero of the padding.

    Raises:
        ValueError: the signal is shorter than a frame, or than the padding that mirrors it.
    """
    pad = fft // 2 if centre else 0
    if centre == "reflect" and samples <= pad:
        raise ValueError(f"{samples} samples mirrored over {pad}")
    count = 1 + (samples + 2 * pad - fft) // hop
    if count < 1:
        raise ValueError(f"{samples} samples in frames of {fft}")
    index = hop * np.arange(count)[:, np.newaxis] + np.arange(fft) - pad
    valid = (index >= 0) & (index < samples)
    if centre == "reflect":
        index = np.abs(index)
        index = np.where(index >= samples, 2 * (samples - 1) - index, index)
        valid[:] = True
    return np.clip(index, 0, samples - 1), valid


def transform(window: str, length: int, fft: int) -> Array:
    """Window and Fourier transform of real frames in one.

    Returns:
        float32 [fft, 2·bins]: cosines of the bins 0 … fft/2, then as many sines.
    """
    n = np.arange(length)
    weights = {
        "hann": 0.5 - 0.5 * np.cos(2 * np.pi * n / length),
        "hamming": 0.54 - 0.46 * np.cos(2 * np.pi * n / length),
        "rectangular": np.ones(length),
    }[window]
    framed = np.zeros(fft)
    start = (fft - length) // 2
    framed[start : start + length] = weights
    bins = np.arange(fft // 2 + 1)
    # Reduced first: the cosine of a large number would lose digits.
    angle = 2 * np.pi * ((np.arange(fft)[:, np.newaxis] * bins) % fft) / fft
    parts = np.concatenate([np.cos(angle), -np.sin(angle)], axis=1)
    return (framed[:, np.newaxis] * parts).astype(np.float32)


def mel_bank(
    rate: int, fft: int, mels: int, fmin: float, fmax: float, scale: str, norm: str | None
) -> Array:
    """Triangular filters, evenly spaced on the mel axis.

    ``htk``: 2595·log10(1 + f/700) (O'Shaughnessy, "Speech communication", 1987). ``slaney``: linear
    below 1,000 Hz and logarithmic above (Slaney, "Auditory Toolbox", 1998).

    Args:
        rate: of the signal, Hz.
        fft: of the transform.
        mels: how many filters.
        fmin: where the first one begins, Hz.
        fmax: where the last one ends, Hz.
        scale: of the mel axis.
        norm: ``slaney``: each filter's area is one; None: its height.

    Returns:
        float32 [fft // 2 + 1, mels].

    Raises:
        ValueError: a filter is so narrow that no frequency falls into it.
    """
    edges = _hertz(np.linspace(_mel(fmin, scale), _mel(fmax, scale), mels + 2), scale)
    bins = np.arange(fft // 2 + 1) * (rate / fft)
    low, mid, high = edges[:-2], edges[1:-1], edges[2:]
    rising = (bins[:, np.newaxis] - low) / (mid - low)
    falling = (high - bins[:, np.newaxis]) / (high - mid)
    bank = np.maximum(0, np.minimum(rising, falling))
    empty = np.flatnonzero(bank.sum(axis=0) == 0)
    if empty.size:
        raise ValueError(
            f"mel band {int(empty[0])} of {mels} lies between two frequencies of a transform of "
            f"{fft}: fewer mels, or a longer transform"
        )
    if norm == "slaney":
        bank = bank * (2 / (high - low))
    return bank.astype(np.float32)


_LINEAR = 200 / 3
_KNEE = 1000.0
_STEP = np.log(6.4) / 27


def _mel(hertz: float, scale: str) -> float:
    if scale == "htk":
        return float(2595 * np.log10(1 + hertz / 700))
    if hertz < _KNEE:
        return hertz / _LINEAR
    return float(_KNEE / _LINEAR + np.log(hertz / _KNEE) / _STEP)


def _hertz(mel: Array, scale: str) -> Array:
    if scale == "htk":
        return 700 * (10 ** (mel / 2595) - 1)
    knee = _KNEE / _LINEAR
    return np.where(mel < knee, mel * _LINEAR, _KNEE * np.exp((mel - knee) * _STEP))
