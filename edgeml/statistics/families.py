"""From tensors to the few numbers a sample that are worth counting.

A family belongs to what a tensor means (image, audio, features, scores …), and turns a batch into a
matrix: one row a sample, one column a statistic. All of it is NumPy on a single frame's cost budget
(tens of microseconds for a small image), since it runs beside every inference.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float64]

MAX_COLUMNS = 256
"""More feature columns than this are summarised, not counted one by one."""

MAX_CLASSES = 256
"""Likewise for classes."""

LARGE_FRAME = 128
"""From this many pixels on along both sides, photometry subsamples."""

PHOTOMETRY_STEP = 4

_TINY = 1e-12


class Context(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a family needs to know of its tensor beyond the values."""

    layout: str = ""
    low: float = 0.0
    """Smallest and largest calibration value: where an image clips."""
    high: float = 1.0
    probabilities: bool = False
    """Scores are probabilities already, so no softmax."""
    channels: int = 1
    columns: tuple[str, ...] = ()
    """Names of feature columns."""


class Family(msgspec.Struct, frozen=True):
    """Names of the statistics in a tensor of this context, and how to compute them."""

    names: Callable[[Context], tuple[str, ...]]
    compute: Callable[[NDArray[np.generic], Context], Matrix]


def _image_names(context: Context) -> tuple[str, ...]:
    names = ("luma_mean", "contrast", "clip_low", "clip_high", "sharpness")
    return (*names, "red_green", "blue_green") if context.channels == 3 else names


def _image(batch: NDArray[np.generic], context: Context) -> Matrix:
    """Photometry and sharpness of frames [n, c, h, w] or [n, h, w, c].

    Photometry looks at each fourth pixel of a large frame, sharpness at all of them: subsampling
    would take away what it measures. Sharpness is the logarithm of the variance of the 4-neighbour
    Laplacian (Pech-Pacheco and others, "Diatom autofocusing in brightfield microscopy", 2000).
    Colour order is taken as RGB; for BGR frames the two ratios merely change places.
    """
    frames = np.asarray(batch, dtype=np.float32)
    planes = frames if context.layout == "NCHW" else np.moveaxis(frames, -1, 1)
    n, channels, height, width = planes.shape
    luma = planes[:, 0]
    for channel in range(1, channels):
        luma = luma + planes[:, channel]
    if channels > 1:
        luma *= np.float32(1 / channels)

    step = PHOTOMETRY_STEP if min(height, width) >= LARGE_FRAME else 1
    flat = np.ascontiguousarray(luma[:, ::step, ::step]).reshape(n, -1)
    span = context.high - context.low
    mean = flat.mean(axis=1, dtype=np.float64)
    columns = [
        mean,
        np.sqrt(_variance(flat, mean)),
        np.count_nonzero(flat <= context.low + 0.01 * span, axis=1) / flat.shape[1],
        np.count_nonzero(flat >= context.high - 0.01 * span, axis=1) / flat.shape[1],
        np.log10(_laplacian_variance(luma) / max(span, _TINY) ** 2 + 1e-8),
    ]
    if context.channels == 3:
        sampled = planes[:, :, ::step, ::step].mean(axis=(2, 3), dtype=np.float64)
        logs = np.log(np.maximum(sampled - context.low + 0.01 * span, _TINY))
        columns += [logs[:, 0] - logs[:, 1], logs[:, 2] - logs[:, 1]]
    return np.stack(columns, axis=1)


def _laplacian_variance(luma: NDArray[np.float32]) -> NDArray[np.float64]:
    if min(luma.shape[1:]) < 3:
        return np.zeros(len(luma))
    laplacian = luma[:, 1:-1, 1:-1] * np.float32(-4)
    for neighbour in (
        luma[:, :-2, 1:-1],
        luma[:, 2:, 1:-1],
        luma[:, 1:-1, :-2],
        luma[:, 1:-1, 2:],
    ):
        laplacian += neighbour
    flat = laplacian.reshape(len(luma), -1)
    return _variance(flat, flat.mean(axis=1, dtype=np.float64))


def _variance(rows: NDArray[np.float32], means: NDArray[np.float64]) -> NDArray[np.float64]:
    """Of each row. Centred first: E[x²] − E[x]² would lose a small variance to rounding."""
    centred = rows - means[:, None].astype(np.float32)
    squares = np.einsum("ij,ij->i", centred, centred)
    return squares.astype(np.float64) / rows.shape[1]


def _audio(batch: NDArray[np.generic], context: Context) -> Matrix:
    """Level in dB of full scale, share of clipped samples, offset, and zero crossings a sample."""
    wave = np.asarray(batch, dtype=np.float64).reshape(len(batch), -1)
    full = max(abs(context.low), abs(context.high), _TINY)
    wave = wave / full
    centred = wave - wave.mean(axis=1, keepdims=True)
    return np.stack(
        [
            20 * np.log10(np.sqrt((wave**2).mean(axis=1)) + 1e-6),
            (np.abs(wave) >= 0.99).mean(axis=1),
            wave.mean(axis=1),
            (np.diff(np.signbit(centred), axis=1) != 0).mean(axis=1),
        ],
        axis=1,
    )


def _feature_names(context: Context) -> tuple[str, ...]:
    return context.columns


def _features(batch: NDArray[np.generic], context: Context) -> Matrix:
    """The columns themselves."""
    return np.asarray(batch, dtype=np.float64).reshape(len(batch), -1)[:, : len(context.columns)]


def _summary(batch: NDArray[np.generic], context: Context) -> Matrix:  # noqa: ARG001
    """Mean, spread and extremes of a tensor that nothing more is known about."""
    flat = np.asarray(batch, dtype=np.float64).reshape(len(batch), -1)
    return np.stack(
        [flat.mean(axis=1), flat.std(axis=1), flat.min(axis=1), flat.max(axis=1)], axis=1
    )


def _embedding(batch: NDArray[np.generic], context: Context) -> Matrix:  # noqa: ARG001
    """Norm and mean of each vector."""
    flat = np.asarray(batch, dtype=np.float64).reshape(len(batch), -1)
    return np.stack([np.linalg.norm(flat, axis=1), flat.mean(axis=1)], axis=1)


def softmax(scores: Matrix) -> Matrix:
    """Along the last axis, shifted so that it cannot overflow."""
    shifted = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return shifted / shifted.sum(axis=-1, keepdims=True)


def _scores(batch: NDArray[np.generic], context: Context) -> Matrix:
    """Class, confidence and entropy (0 certain … 1 uniform) of class scores [n, classes]."""
    scores = np.asarray(batch, dtype=np.float64).reshape(len(batch), -1)
    shares = scores if context.probabilities else softmax(scores)
    entropy = -(shares * np.log(np.maximum(shares, _TINY))).sum(axis=1) / np.log(scores.shape[1])
    # A NaN among the scores is no class: −1 falls into "anything else".
    broken = np.isnan(scores).any(axis=1)
    decided = np.where(broken, -1, np.argmax(np.nan_to_num(scores, nan=-np.inf), axis=1))
    return np.stack([decided.astype(np.float64), shares.max(axis=1), entropy], axis=1)


FAMILIES: dict[str, Family] = {
    "image": Family(_image_names, _image),
    "audio": Family(lambda _: ("level_db", "clipped", "offset", "zero_crossings"), _audio),
    "features": Family(_feature_names, _features),
    "embedding": Family(lambda _: ("norm", "mean"), _embedding),
    "scores": Family(lambda _: ("class", "confidence", "entropy"), _scores),
    "tensor": Family(lambda _: ("mean", "spread", "smallest", "largest"), _summary),
}
