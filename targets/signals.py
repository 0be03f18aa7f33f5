"""The arithmetic behind layer signals: noise by layer, and which layers must stay float together.

It touches no framework: a target hands in its layers, and functions that run an artifact and give
what its layers made.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import msgspec
import numpy as np

from edgeml.targets.layers import LayerSignal
from edgeml.targets.runtime import Array

Feeds = Mapping[str, Array]
Values = Callable[[Feeds], Mapping[str, Array]]
"""Runs one sample, batch axis 1, and gives what each layer made of it, by the layer's name."""

MOST_SAMPLES = 16
"""Noise is looked for by the tens of decibels: a handful of samples shows it."""

COARSE_DB = 10.0
"""Under this a tensor is too coarse in eight bits: of half its channels at least a tenth of what
varies is rounding. The coarsest tensors of a digits classifier, ResNet-8 and DS-CNN have 40, 32
and 24 dB."""


class Layer(msgspec.Struct, frozen=True, kw_only=True):
    """One operator of a float artifact.

    Attributes:
        name: as in :class:`LayerSignal`.
        operator: as the target calls it.
        reads: names of the layers whose output it takes.
        channel_axis: of the output; −1 is the last.
        module: as in :class:`LayerSignal`.
        line: likewise.
        weighted: whether it has weights that int8 rounds.
    """

    name: str
    operator: str
    reads: tuple[str, ...] = ()
    channel_axis: int = -1
    module: str = ""
    line: str = ""
    weighted: bool = False


def few(samples: Path, names: Sequence[str]) -> Iterator[dict[str, Array]]:
    """At most :data:`MOST_SAMPLES` samples, at even distance, of an ``.npz``, or of a folder with
    ``0.npy``, … in the order of ``names``. Those with a NaN for a missing value, whose signal has
    no size, are left out."""
    if samples.is_dir():
        arrays = {n: np.load(samples / f"{i}.npy", mmap_mode="r") for i, n in enumerate(names)}
    else:
        with np.load(samples, allow_pickle=False) as data:
            arrays = {name: data[name] for name in names}
    count = min(len(array) for array in arrays.values())
    for row in np.linspace(0, count - 1, min(count, MOST_SAMPLES)).round().astype(int):
        feeds = {name: np.array(array[row : row + 1]) for name, array in arrays.items()}
        if not any(array.dtype.kind == "f" and np.isnan(array).any() for array in feeds.values()):
            yield feeds


def compare(
    layers: Sequence[Layer], exact: Values, quantized: Values, samples: Iterable[Feeds]
) -> tuple[LayerSignal, ...]:
    """The signal of each layer that both artifacts show, in the order of ``layers``.

    A layer that one of them lacks hands its inputs' noise on to those that read it.
    """
    signal: dict[str, float] = {}
    noise: dict[str, float] = {}
    shapes: dict[str, tuple[int, ...]] = {}
    for feeds in samples:
        left, right = exact(feeds), quantized(feeds)
        for name in left.keys() & right.keys():
            a = left[name].astype(np.float64)
            difference = right[name].astype(np.float64).reshape(a.shape) - a
            signal[name] = signal.get(name, 0.0) + float(np.vdot(a, a))
            noise[name] = noise.get(name, 0.0) + float(np.vdot(difference, difference))
            shapes[name] = a.shape
    at: dict[str, float] = {}
    found: list[LayerSignal] = []
    for layer in layers:
        before = min((at[name] for name in layer.reads if name in at), default=math.inf)
        if layer.name not in shapes:
            at[layer.name] = before
            continue
        at[layer.name] = decibels(signal[layer.name], noise[layer.name])
        found.append(
            LayerSignal(
                name=layer.name,
                operator=layer.operator,
                snr_db=at[layer.name],
                input_snr_db=before,
                module=layer.module,
                line=layer.line,
                shape=shapes[layer.name],
            )
        )
    return tuple(found)


def decibels(signal: float, noise: float) -> float:
    """The ratio of two energies; infinite without noise, −infinite where there is nothing else."""
    if not noise:
        return math.inf
    return 10 * math.log10(signal / noise) if signal and math.isfinite(noise) else -math.inf


def kept_together(
    keep: Iterable[str], layers: Sequence[Layer], exact: Values, samples: Iterable[Feeds]
) -> tuple[str, ...]:
    """The layers that must stay float so that those in ``keep`` are of use, in order.

    An integer kernel rounds what it takes and what it makes. Where a tensor is too coarse in eight
    bits (an outlier stretches its range), the layer that makes it and those that take it stay float
    together, or it would be rounded all the same.
    """
    coarse = _coarse(layers, exact, samples)
    readers: dict[str, list[str]] = {}
    for layer in layers:
        for name in layer.reads:
            readers.setdefault(name, []).append(layer.name)
    reads = {layer.name: layer.reads for layer in layers}
    kept: set[str] = set()
    waiting = [name for name in keep if name in reads]
    while waiting:
        name = waiting.pop()
        if name in kept:
            continue
        kept.add(name)
        if name in coarse:
            waiting += readers.get(name, [])
        waiting += [other for other in reads[name] if other in coarse]
    return tuple(layer.name for layer in layers if layer.name in kept)


def _coarse(layers: Sequence[Layer], exact: Values, samples: Iterable[Feeds]) -> set[str]:
    """The layers whose output, in 255 steps from its least to its largest value, is too coarse.

    The rounding's variance is step²/12. It is set against the variance of each channel, since one
    channel of large values has all the energy, and the others all the information.
    """
    axes = {layer.name: layer.channel_axis for layer in layers}
    low: dict[str, float] = {}
    high: dict[str, float] = {}
    columns: dict[str, list[Array]] = {}
    for feeds in samples:
        for name, array in exact(feeds).items():
            if name not in axes or not array.size or array.dtype.kind != "f":
                continue
            low[name] = min(low.get(name, 0.0), float(array.min()))
            high[name] = max(high.get(name, 0.0), float(array.max()))
            flat = _by_channel(array, axes[name])
            sums = np.stack([np.full(len(flat), flat.shape[1]), flat.sum(1), (flat**2).sum(1)])
            columns.setdefault(name, []).append(sums)
    found: set[str] = set()
    for name, parts in columns.items():
        count, total, squares = np.sum(parts, axis=0)
        variance = squares / count - (total / count) ** 2
        step = (high[name] - low[name]) / 255
        # Of its own energy, not of the largest channel's: that may be anything times as large.
        varied = variance[variance > np.maximum(1e-12 * squares / count, 1e-30)]
        if varied.size and 10 * math.log10(float(np.median(varied)) / (step**2 / 12)) < COARSE_DB:
            found.add(name)
    return found


def _by_channel(array: Array, axis: int) -> Array:
    """float64 [channels, values]: along the channels' axis, or along the longest where that has a
    single value, as of a mean over pixels that a converter left in another layout."""
    if not -array.ndim <= axis < array.ndim:
        axis = -1
    if array.ndim and array.shape[axis] == 1:
        axis = int(np.argmax(array.shape))
    flat = np.moveaxis(array, axis, 0) if array.ndim else array.reshape(1)
    return flat.reshape(len(flat), -1).astype(np.float64)
