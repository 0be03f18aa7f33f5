"""From tensors to the few numbers a sample that are worth counting.

A family belongs to what a tensor means (image, audio, features, scores …), and turns a batch into a
matrix: one row a sample, one column a statistic; what is to be counted as a vector comes apart. All
of it is NumPy on a single frame's cost budget (tens of microseconds for a small image), since it
runs beside every inference.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgeml.statistics.grid import Grid

Matrix = NDArray[np.float64]
Vectors = dict[str, NDArray[np.float32]]

MAX_COLUMNS = 256
"""More feature columns than this are summarised, not counted one by one."""

MAX_CLASSES = 256
"""Likewise for classes."""

CONFIDENCE_BINS = 16

LARGE_FRAME = 128
"""From this many pixels on along both sides, photometry subsamples."""

PHOTOMETRY_STEP = 4

ROW_STEP = 8
"""Of a large frame, baselines that are fitted now look at each eighth row, and for sharpness at its
two neighbours: the whole frame would cost more than a fiftieth of a MobileNetV2's inference."""

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
    classes: int = 0
    """Of scores."""
    columns: tuple[str, ...] = ()
    """Names of feature columns."""
    categorical: tuple[str, ...] = ()
    """Columns that hold categories: integers that are names, not amounts."""
    row_step: int = 1
    """Images: which rows are looked at. In the baseline, since it is a part of what its counts
    mean; 1 in those that were fitted before there was a choice."""


def _stateless(context: Context) -> None:  # noqa: ARG001
    return None


def _no_vectors(batch: NDArray[np.generic], context: Context) -> Vectors:  # noqa: ARG001
    return {}


def _none_fixed(context: Context) -> dict[str, Grid]:  # noqa: ARG001
    return {}


class Family(msgspec.Struct, frozen=True, kw_only=True):
    """Names of the statistics in a tensor of this context, and how to compute them."""

    names: Callable[[Context], tuple[str, ...]]
    """Of the columns that ``compute`` gives."""
    compute: Callable[[NDArray[np.generic], Context, Any], Matrix]
    """(batch [n, …], context, state) → float64 [n, streams]."""
    state: Callable[[Context], Any] = _stateless
    """A new object that ``compute`` may change: what it has to remember of the samples before, such
    as the last frame. One a tensor and observer, handed to every call in the order of the samples.
    None where samples are looked at one by one."""
    vectors: Callable[[NDArray[np.generic], Context], Vectors] = _no_vectors
    """(batch [n, …], context) → float32 [n, d] by name: what is counted as a vector, after the
    columns."""
    grids: Callable[[Context], dict[str, Grid]] = _none_fixed
    """Grids of those columns whose meaning says what they must be; the others are fitted."""
    temporal: frozenset[str] = frozenset()
    """Columns that compare a sample with the one before it. Calibration samples have no order, so
    these are never compared with training, only with the device's own past."""


def _image_names(context: Context) -> tuple[str, ...]:
    names = ("luma_mean", "contrast", "clip_low", "clip_high", "sharpness")
    return (*names, "red_green", "blue_green") if context.channels == 3 else names


def _image(batch: NDArray[np.generic], context: Context, state: None) -> Matrix:  # noqa: ARG001
    """Photometry and sharpness of frames [n, c, h, w] or [n, h, w, c].

    Photometry looks at some pixels of a large frame. Sharpness is the logarithm of the variance of
    the 4-neighbour Laplacian (Pech-Pacheco and others, "Diatom autofocusing in brightfield
    microscopy", 2000): it may pass over rows, but each pixel needs its true neighbours.
    Colour order is taken as RGB; for BGR frames the two ratios merely change places.
    """
    frames = batch if context.layout == "NHWC" else np.moveaxis(batch, 1, -1)
    step = context.row_step
    if step == 1:
        luma = _luma(frames)
        every = PHOTOMETRY_STEP if min(luma.shape[1:]) >= LARGE_FRAME else 1
        sampled, seen = luma[:, ::every, ::every], frames[:, ::every, ::every]
        variance = _laplacian_variance(luma)
    else:
        # In the frame's own order in memory: a transposed copy would cost more than all the rest.
        above, here, below = (
            frames[:, n : n - 2 or None : step].astype(np.float32, order="K") for n in range(3)
        )
        rows = _luma(here)
        sampled, seen = rows[:, :, ::2], here[:, :, ::2]
        variance = _variance_of(_laplacian(_luma(above), rows, _luma(below)))

    flat = np.ascontiguousarray(sampled).reshape(len(sampled), -1)
    span = context.high - context.low
    mean = flat.mean(axis=1, dtype=np.float64)
    columns = [
        mean,
        np.sqrt(_variance(flat, mean)),
        np.count_nonzero(flat <= context.low + 0.01 * span, axis=1) / flat.shape[1],
        np.count_nonzero(flat >= context.high - 0.01 * span, axis=1) / flat.shape[1],
        np.log10(variance / max(span, _TINY) ** 2 + 1e-8),
    ]
    if context.channels == 3:
        red, green, blue = (
            np.log(
                np.maximum(
                    of.mean(axis=(1, 2), dtype=np.float64) - context.low + 0.01 * span, _TINY
                )
            )
            for of in np.moveaxis(seen, -1, 0)
        )
        columns += [red - green, blue - green]
    return np.stack(columns, axis=1)


def _luma(frames: NDArray[np.generic]) -> NDArray[np.float32]:
    """The mean of the channels: [n, h, w, c] → float32 [n, h, w]."""
    channels = frames.shape[-1]
    luma = frames[..., 0].astype(np.float32)
    for channel in range(1, channels):
        luma += frames[..., channel].astype(np.float32)
    if channels > 1:
        luma *= np.float32(1 / channels)
    return luma


def _laplacian_variance(luma: NDArray[np.float32]) -> NDArray[np.float64]:
    if min(luma.shape[1:]) < 3:
        return np.zeros(len(luma))
    return _variance_of(_laplacian(luma[:, :-2], luma[:, 1:-1], luma[:, 2:]))


def _laplacian(
    above: NDArray[np.float32], rows: NDArray[np.float32], below: NDArray[np.float32]
) -> NDArray[np.float32]:
    """The 4-neighbour Laplacian of ``rows`` [n, h, w], but for its first and last column."""
    laplacian = rows[:, :, 1:-1] * np.float32(-4)
    for neighbour in (above[:, :, 1:-1], below[:, :, 1:-1], rows[:, :, :-2], rows[:, :, 2:]):
        laplacian += neighbour
    return laplacian


def _variance_of(planes: NDArray[np.float32]) -> NDArray[np.float64]:
    """Of each of [n, h, w]."""
    flat = planes.reshape(len(planes), -1)
    return _variance(flat, flat.mean(axis=1, dtype=np.float64))


def _variance(rows: NDArray[np.float32], means: NDArray[np.float64]) -> NDArray[np.float64]:
    """Of each row. Centred first: E[x²] − E[x]² would lose a small variance to rounding."""
    centred = rows - means[:, None].astype(np.float32)
    squares = np.einsum("ij,ij->i", centred, centred)
    return squares.astype(np.float64) / rows.shape[1]


def _audio(batch: NDArray[np.generic], context: Context, state: None) -> Matrix:  # noqa: ARG001
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


def _features(batch: NDArray[np.generic], context: Context, state: None) -> Matrix:  # noqa: ARG001
    """The columns themselves."""
    return np.asarray(batch, dtype=np.float64).reshape(len(batch), -1)[:, : len(context.columns)]


def _summary(batch: NDArray[np.generic], context: Context, state: None) -> Matrix:  # noqa: ARG001
    """Mean, spread and extremes of a tensor that nothing more is known about."""
    flat = np.asarray(batch, dtype=np.float64).reshape(len(batch), -1)
    return np.stack(
        [flat.mean(axis=1), flat.std(axis=1), flat.min(axis=1), flat.max(axis=1)], axis=1
    )


def _embedding(batch: NDArray[np.generic], context: Context, state: None) -> Matrix:  # noqa: ARG001
    """Norm and mean of each vector."""
    flat = np.asarray(batch, dtype=np.float64).reshape(len(batch), -1)
    return np.stack([np.linalg.norm(flat, axis=1), flat.mean(axis=1)], axis=1)


def _embedded(batch: NDArray[np.generic], context: Context) -> Vectors:  # noqa: ARG001
    """The vectors themselves."""
    return {"vector": np.asarray(batch, dtype=np.float32).reshape(len(batch), -1)}


def softmax(scores: Matrix) -> Matrix:
    """Along the last axis, shifted so that it cannot overflow."""
    shifted = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return shifted / shifted.sum(axis=-1, keepdims=True)


def _scores(batch: NDArray[np.generic], context: Context, state: None) -> Matrix:  # noqa: ARG001
    """Class, confidence and entropy (0 certain … 1 uniform) of class scores [n, classes]."""
    scores = np.asarray(batch, dtype=np.float64).reshape(len(batch), -1)
    shares = scores if context.probabilities else softmax(scores)
    entropy = -(shares * np.log(np.maximum(shares, _TINY))).sum(axis=1) / np.log(scores.shape[1])
    # A NaN among the scores is no class: it is missing.
    broken = np.isnan(scores).any(axis=1)
    decided = np.where(broken, np.nan, np.argmax(np.nan_to_num(scores, nan=-np.inf), axis=1))
    return np.stack([decided, shares.max(axis=1), entropy], axis=1)


def _score_grids(context: Context) -> dict[str, Grid]:
    share = Grid(kind="numeric", bins=CONFIDENCE_BINS, low=0.0, high=1.0 + 1e-9)
    classes = Grid(kind="categorical", bins=context.classes)
    return {"class": classes, "confidence": share, "entropy": share}


FAMILIES: dict[str, Family] = {
    "image": Family(names=_image_names, compute=_image),
    "audio": Family(
        names=lambda _: ("level_db", "clipped", "offset", "zero_crossings"), compute=_audio
    ),
    "features": Family(names=_feature_names, compute=_features),
    "embedding": Family(names=lambda _: ("norm", "mean"), compute=_embedding, vectors=_embedded),
    "scores": Family(
        names=lambda _: ("class", "confidence", "entropy"), compute=_scores, grids=_score_grids
    ),
    "tensor": Family(names=lambda _: ("mean", "spread", "smallest", "largest"), compute=_summary),
}
