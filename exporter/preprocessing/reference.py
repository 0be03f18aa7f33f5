"""What the declared preprocessing means, by other people's implementations: Pillow resizes with
antialias, SciPy makes spectra. What neither has is written pixel by pixel, not as a matrix.

Slow and in float64 where it can be: it judges the program in front of the model.
"""

from __future__ import annotations

import importlib
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeml.columns import ColumnWriter, rows
from edgeml.exporter.preprocessing.declaration import (
    AudioInput,
    Crop,
    ImageInput,
    Input,
    Layout,
    LogMel,
    Normalize,
    Order,
    Resize,
    Scale,
)
from edgeml.exporter.preprocessing.front import MakeJob

Array = NDArray[Any]


def make(job: MakeJob) -> int:
    """In the child: what the model itself is to be fed, from raw samples."""
    for declared, raw, made in zip(job.inputs, job.raw, job.made, strict=True):
        with ColumnWriter(made) as writer:
            for (sample,) in rows([raw]):
                found = sample if declared is None else preprocess(declared, sample[0])
                writer.append(found)
    return job.count


def preprocess(declared: Input, raw: Array) -> Array:
    """One raw sample, without the batch axis, to float32 [1, …] as the model takes it."""
    made = _image(declared, raw) if isinstance(declared, ImageInput) else _audio(declared, raw)
    return np.ascontiguousarray(made, dtype=np.float32)


def _image(declared: ImageInput, raw: Array) -> Array:
    x = raw.astype(np.float64)
    order = declared.order
    layout = "NCHW"
    for step in declared.steps:
        match step:
            case Crop():
                height, width = step.size
                if step.at == "centre":
                    top, left = round((len(x) - height) / 2), round((x.shape[1] - width) / 2)
                else:
                    top, left = step.at
                x = x[top : top + height, left : left + width]
            case Resize():
                x = np.stack([resize(x[..., c], step) for c in range(x.shape[2])], axis=2)
            case Order():
                x = x if step.to == order else x[..., ::-1]
                order = step.to
            case Scale():
                x = x * step.factor + step.offset
            case Normalize():
                x = (x - np.array(step.mean)) / np.array(step.std)
            case Layout():
                layout = step.to
    return x[np.newaxis].transpose(["NHWC".index(letter) for letter in layout])


def resize(plane: Array, step: Resize) -> Array:
    """One channel [height, width] at the declared size."""
    height, width = step.size
    if step.method == "nearest":
        for _ in range(2):
            length, size = len(plane), height
            apart = np.abs(
                np.subtract.outer(
                    (2 * np.arange(size) + 1) * length, (2 * np.arange(length) + 1) * size
                )
            )
            plane = plane[length - 1 - apart[:, ::-1].argmin(axis=1)].T
            height, width = width, height
        return plane
    if step.antialias and step.method != "area":
        image: Any = importlib.import_module("PIL.Image")
        method = getattr(image.Resampling, step.method.upper())
        if step.round:
            whole = image.fromarray(np.rint(plane).astype(np.uint8))
            return np.asarray(whole.resize((width, height), method), np.float64)
        single = image.fromarray(plane.astype(np.float32))
        return np.asarray(single.resize((width, height), method), np.float64)
    found = plane
    for size in (width, height):
        found = np.array([_along(row, size, step.method) for row in found])
        if step.round:
            found = np.clip(np.floor(found + 0.5), 0, 255)
        found = found.T
    return found


def _along(row: Array, size: int, method: str) -> Array:
    """A row at another length, pixel by pixel."""
    length = len(row)
    made = np.empty(size)
    whole = np.concatenate([[0.0], np.cumsum(row)])
    for place in range(size):
        if method == "area":  # the integral over the pixel's part of the row
            edges = np.array([place, place + 1]) * length / size
            low, high = np.interp(edges, np.arange(length + 1), whole)
            made[place] = (high - low) * size / length
            continue
        at = (place + 0.5) * length / size - 0.5
        base = int(np.floor(at))
        t = at - base
        if method == "bilinear":
            weights = {0: 1 - t, 1: t}
        else:
            a = -0.75
            weights = {
                -1: a * (t - 2 * t**2 + t**3),
                0: 1 - (a + 3) * t**2 + (a + 2) * t**3,
                1: -a * t + (2 * a + 3) * t**2 - (a + 2) * t**3,
                2: a * (t**2 - t**3),
            }
        made[place] = sum(
            weight * row[min(max(base + offset, 0), length - 1)]
            for offset, weight in weights.items()
        )
    return made


def _audio(declared: AudioInput, raw: Array) -> Array:
    x = raw.astype(np.float64).reshape(-1)
    letters = "T"
    for step in declared.steps:
        match step:
            case Scale():
                x = x * step.factor + step.offset
            case Normalize():
                x = (x - np.array(step.mean)) / np.array(step.std)
            case LogMel():
                x = log_mel(x, step, declared.rate)
                letters = "TF"
            case Layout():
                found = [letter for letter in step.to if letter in letters]
                x = x.transpose([letters.index(letter) for letter in found])
                sizes = dict(zip(found, x.shape, strict=True))
                return x.reshape([sizes.get(letter, 1) for letter in step.to])
    return x[np.newaxis]


def log_mel(signal: Array, step: LogMel, rate: int) -> Array:
    """[samples] to [frames, mels], with SciPy's windows and Fourier transform."""
    windows: Any = importlib.import_module("scipy.signal.windows")
    fft: Any = importlib.import_module("scipy.fft")
    name = {"rectangular": "boxcar"}.get(step.window, step.window)
    window: Any = getattr(windows, name)(step.length, sym=False)
    left = (step.fft - step.length) // 2
    window = np.pad(window, (left, step.fft - step.length - left))
    if step.centre:
        mode: Any = {"reflect": "reflect", "zero": "constant"}[step.centre]
        signal = np.pad(signal, step.fft // 2, mode=mode)
    frames = np.lib.stride_tricks.sliding_window_view(signal, step.fft)[:: step.hop]
    spectrum = np.abs(fft.rfft(frames * window, axis=1)) ** step.power
    bands = spectrum @ _bank(step, rate)
    raised = np.maximum(bands, step.floor) if step.floor_by == "max" else bands + step.floor
    found = np.log(raised) if step.log == "ln" else np.log10(raised)
    return 10 * found if step.log == "db" else found


def _bank(step: LogMel, rate: int) -> Array:
    """Filters by interpolation between the corners of each triangle."""
    if step.scale == "htk":
        low, high = (2595 * math.log10(1 + hertz / 700) for hertz in (step.fmin, step.fmax))
        edges = 700 * (np.power(10.0, np.linspace(low, high, step.mels + 2) / 2595) - 1)
    else:  # a table of the mel axis, looked up both ways
        below = np.arange(0, 15)
        above = np.arange(15, 15 + 27 * 8)
        hertz = np.concatenate([below * 200 / 3, 1000 * 6.4 ** ((above - 15) / 27)])
        fine = np.interp(
            np.linspace(0, len(hertz) - 1, 1 << 16), np.arange(len(hertz)), np.arange(len(hertz))
        )
        curve = np.where(fine < 15, fine * 200 / 3, 1000 * 6.4 ** ((fine - 15) / 27))
        low, high = np.interp([step.fmin, step.fmax], curve, fine)
        mels = np.linspace(low, high, step.mels + 2)
        edges = np.where(mels < 15, mels * 200 / 3, 1000 * 6.4 ** ((mels - 15) / 27))
    bins = (
        np.linspace(0, rate / 2, step.fft // 2 + 1)
        if step.fft % 2 == 0
        else (np.arange(step.fft // 2 + 1) * rate / step.fft)
    )
    bank = np.stack(
        [np.interp(bins, edges[m : m + 3], [0, 1, 0], left=0, right=0) for m in range(step.mels)],
        axis=1,
    )
    widths: Array = edges[2:] - edges[:-2]
    return bank * 2 / widths if step.norm == "slaney" else bank
