"""A camera's faults, on photos."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from edgeml.bundle import Tensor
from edgeml.statistics import Stream, fit_baseline
from edgeml.statistics.baseline import TensorStatistics
from faults.windows import Matrix, Study, separation, study

Frames = NDArray[np.uint8]
Floats = NDArray[np.floating[Any]]
Fault = Callable[[Floats, np.random.Generator], Floats]
"""On one frame [h, w, 3], 0 … 255; what it gives is rounded and clipped to 8 bits."""

SIZE = 224
CAMERAS, VIEWS, JITTER = 60, 20, 16
"""Fixed cameras: how many, frames of each, and by how many pixels its view wanders."""


class OneCamera(msgspec.Struct, frozen=True, kw_only=True):
    """Frames of one fixed view against others of it that are flipped, and against others that are
    not: mean |2·AUC − 1| over cameras."""

    flip: str
    statistic: str
    separation: float
    unflipped: float


def load(folder: Path) -> Frames:
    """All photos, [n, 256, 256, 3]."""
    files = sorted(folder.glob("*.jpg"))
    return np.stack([np.asarray(Image.open(file).convert("RGB")) for file in files])


def measure(folder: Path, *, splits: int) -> tuple[Study, list[OneCamera]]:
    """Put each fault into every photo and see what becomes of the statistics."""
    whole = load(folder)
    photos = np.ascontiguousarray(whole[:, 16 : 16 + SIZE, 16 : 16 + SIZE])
    tensor = Tensor(
        name="frame", shape=(1, SIZE, SIZE, 3), dtype="uint8", meaning="image", layout="NHWC"
    )

    def fitted(rows: NDArray[np.int64]) -> TensorStatistics:
        frames = {"frame": photos[rows]}
        return fit_baseline(frames, {}, input_tensors=(tensor,), output_tensors=()).tensors[0]

    def fit(rows: NDArray[np.int64]) -> Sequence[Stream]:
        return fitted(rows).streams

    spec = fitted(np.arange(len(photos)))
    clean = _statistics(spec, photos)
    faulty = {
        (fault, strength): _statistics(spec, _with(photos, change))
        for fault, strengths in FAULTS.items()
        for strength, change in strengths.items()
    }
    # Neighbours here are photos of unlike things: what compares them says nothing of other faults.
    temporal = [stream.temporal for stream in spec.streams]
    for matrix in faulty.values():
        matrix[:, temporal] = clean[:, temporal]
    faulty |= {
        ("frozen", f"{share:.0%} of frames"): _statistics(spec, _frozen(photos, share))
        for share in (0.02, 0.05, 0.1, 0.3, 1.0)
    }
    names = [stream.name.rpartition(".")[2] for stream in spec.streams]
    return study(names, clean, faulty, fit, splits=splits), _one_camera(whole, spec, names)


def _statistics(spec: TensorStatistics, frames: Frames) -> Matrix:
    state = spec.state()
    spec.compute(frames[-1:], state)  # So that the first frame has one before it.
    return spec.compute(frames, state)


def _with(photos: Frames, change: Fault) -> Frames:
    random = np.random.default_rng(1)
    return np.stack(
        [
            np.clip(np.rint(change(photo.astype(np.float32), random)), 0, 255).astype(np.uint8)
            for photo in photos
        ]
    )


def _frozen(photos: Frames, share: float) -> Frames:
    """In a share of the frames the last one is shown again."""
    random = np.random.default_rng(1)
    shown = photos.copy()
    for i in range(1, len(shown)):
        if random.random() < share:
            shown[i] = shown[i - 1]
    return shown


def _one_camera(whole: Frames, spec: TensorStatistics, names: list[str]) -> list[OneCamera]:
    random = np.random.default_rng(2)
    found: dict[str, list[Matrix]] = {"": [], "vertical": [], "horizontal": []}
    for photo in whole[:CAMERAS]:
        usual = spec.compute(_views(photo, random), spec.state())
        others = _views(photo, random)
        for flip, frames in (
            ("", others),
            ("vertical", others[:, ::-1]),
            ("horizontal", others[:, :, ::-1]),
        ):
            seen = spec.compute(np.ascontiguousarray(frames), spec.state())
            found[flip].append(
                np.array([abs(separation(a, b)) for a, b in zip(usual.T, seen.T, strict=True)])
            )
    means = {flip: np.mean(each, axis=0) for flip, each in found.items()}
    best = {flip: int(np.argmax(means[flip])) for flip in ("vertical", "horizontal")}
    return [
        OneCamera(
            flip=f"{flip} flip",
            statistic=names[at],
            separation=float(means[flip][at]),
            unflipped=float(means[""][at]),
        )
        for flip, at in best.items()
    ]


def _views(photo: Frames, random: np.random.Generator) -> Frames:
    corners = random.integers(16 - JITTER // 2, 16 + JITTER // 2, (VIEWS, 2)).tolist()
    light = random.uniform(0.8, 1.2, VIEWS).tolist()
    return np.stack(
        [
            np.clip(photo[y : y + SIZE, x : x + SIZE] * gain, 0, 255).astype(np.uint8)
            for (y, x), gain in zip(corners, light, strict=True)
        ]
    )


def _blur(sigma: float) -> Fault:
    reach = max(1, int(4 * sigma + 0.5))
    kernel = np.exp(-(np.arange(-reach, reach + 1) ** 2) / (2 * sigma**2))
    kernel /= kernel.sum()

    def blur(frame: Floats, _: np.random.Generator) -> Floats:
        for axis in (0, 1):
            length = frame.shape[axis]
            around = [(reach, reach) if a == axis else (0, 0) for a in range(3)]
            wide = np.pad(frame, around, "edge")
            blurred = np.zeros_like(frame)
            for i, weight in enumerate(kernel.tolist()):
                blurred += np.float32(weight) * np.take(wide, range(i, i + length), axis=axis)
            frame = blurred
        return frame

    return blur


def _light(frame: Floats) -> Floats:
    """What fell on the sensor: a clipped value stood for more than it says, here by a quarter.
    Without that, the least dimming would empty the clipped pixels, as it does not in a camera."""
    return frame + 64.0 * (frame >= 255)


def _gain(gain: float, *, blue: float = 1.0) -> Fault:
    factors = np.array([gain, gain, gain * blue], np.float32)
    return lambda frame, _: _light(frame) * factors


def _noise(sigma: float) -> Fault:
    return lambda frame, random: frame + random.normal(0, sigma, frame.shape)


def _column(offset: float | None) -> Fault:
    def column(frame: Floats, random: np.random.Generator) -> Floats:
        where = random.choice(SIZE)
        frame[:, where] = 0 if offset is None else frame[:, where] + offset
        return frame

    return column


def _haze(share: float) -> Fault:
    return lambda frame, _: _light(frame) * np.float32(1 - share) + np.float32(share * 220)


def _occlusion(share: float) -> Fault:
    """A dark disc with a soft edge, out of focus as dirt on a lens is, somewhere in the frame."""

    def occlude(frame: Floats, random: np.random.Generator) -> Floats:
        high, wide = frame.shape[:2]
        radius = (share * high * wide / np.pi) ** 0.5
        y, x = random.uniform(0.2, 0.8, 2) * (high, wide)
        rows, columns = np.indices((high, wide), dtype=np.float64)
        distance = np.sqrt((rows - y) ** 2 + (columns - x) ** 2)
        cover = np.clip((radius - distance) / 8 + 0.5, 0, 1)[:, :, None].astype(np.float32)
        return frame * (1 - cover) + np.float32(30) * cover

    return occlude


def _order(*channels: int) -> Fault:
    return lambda frame, _: frame[:, :, list(channels)]


def _flip(axis: int, share: float) -> Fault:
    return lambda frame, random: np.flip(frame, axis) if random.random() < share else frame


_SHARES = (0.1, 0.25, 0.5, 0.75, 1.0)
FAULTS: dict[str, dict[str, Fault]] = {
    "blur": {f"σ {sigma} px": _blur(sigma) for sigma in (0.3, 0.5, 0.7, 1.0, 2.0)},
    "under-exposure": {f"× {gain}": _gain(gain) for gain in (0.95, 0.9, 0.8, 0.65, 0.5)},
    "over-exposure": {f"× {gain}": _gain(gain) for gain in (1.05, 1.1, 1.25, 1.5, 2.0)},
    "noise": {f"σ {sigma}": _noise(sigma) for sigma in (1, 2, 5, 10, 20)},
    "defect column": {f"+ {offset}": _column(offset) for offset in (5, 10, 20, 40)}
    | {"dead": _column(None)},
    "colour cast": {
        f"blue × {blue}": _gain(1, blue=blue) for blue in (0.98, 0.96, 0.92, 0.85, 0.7)
    },
    "haze": {f"{share:.0%}": _haze(share) for share in (0.02, 0.05, 0.1, 0.2, 0.4)},
    "occlusion": {
        f"{share:.0%} of it": _occlusion(share) for share in (0.02, 0.05, 0.1, 0.25, 0.5)
    },
    "swapped channels": {
        "red, blue": _order(2, 1, 0),
        "red, green": _order(1, 0, 2),
        "green, blue": _order(0, 2, 1),
        "all on by one": _order(1, 2, 0),
        "green in all": _order(1, 1, 1),
    },
    "vertical flip": {f"{share:.0%} of frames": _flip(0, share) for share in _SHARES},
    "horizontal flip": {f"{share:.0%} of frames": _flip(1, share) for share in _SHARES},
}
