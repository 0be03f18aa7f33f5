"""WAV files as raw audio: int16 PCM, as a microphone gives it. Needs SciPy.

Other sample formats become int16 by full scale: 8 bits are shifted up, 24 and 32 bits down, floats
of −1..1 multiplied by 32,768, rounded and clipped.
"""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edgeml.bundle.manifest import Tensor
from edgeml.data.samples import Array
from edgeml.errors import RefusedError, SourceError

SUFFIXES = (".wav",)


def reader(tensor: Tensor, declared: Mapping[str, Any] | None) -> Callable[[Path], Array]:
    """What turns a file into a sample of an input.

    Args:
        tensor: the input, whose shape has one axis longer than 1 at most: the samples.
        declared: the parameters of the step ``audio``: ``rate`` in Hz, and what happens to files
            with several ``channels``, and to ``shorter`` and ``longer`` ones; None: nothing is
            declared.

    Raises:
        SourceError: nothing is declared, and the input takes no PCM.
    """
    shape = tensor.shape[1:]
    length = int(np.prod(shape))
    plain = sum(size > 1 for size in shape) <= 1
    if declared is None and (tensor.dtype not in {"int16", "float32"} or not plain):
        raise _undeclared(tensor, "PCM samples")
    rates: dict[int, Path] = {}

    def read(file: Path) -> Array:
        rate, found = wave(file)
        if declared is not None and rate != declared["rate"]:
            raise SourceError(
                f"{file} has a sample rate of {rate:,} Hz",
                expected=f"{declared['rate']:,} Hz, as declared",
                remedy="Resample it as the training did; edgeml does not.",
            )
        first = rates.setdefault(rate, file)
        if len(rates) > 1:
            other = next(path for path in rates.values() if path != first)
            raise SourceError(
                f"{file} has a sample rate of {rate:,} Hz, and {other} has another",
                expected="one sample rate",
            )
        mono = _mono(file, found, str((declared or {}).get("channels", "refuse")))
        if declared is None and tensor.dtype == "float32":
            if mono.dtype != np.float32:
                raise _undeclared(tensor, f"{mono.dtype} PCM ({file})")
        else:
            mono = to_int16(mono)
        return _fitted(file, mono, length, declared or {}).reshape(shape)

    return read


def wave(file: Path) -> tuple[int, Array]:
    """Sample rate in Hz, and the samples [n] or [n, channels] as the file has them.

    Raises:
        SourceError: the file is damaged, or compressed.
    """
    try:
        library: Any = importlib.import_module("scipy.io.wavfile")
    except ImportError as error:
        raise RefusedError(
            "Reading WAV files needs SciPy, which is not installed here",
            remedy="pip install scipy, or give the samples as .npy.",
        ) from error
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", library.WavFileWarning)  # of chunks of metadata
            rate, found = library.read(file)
    except Exception as error:  # SciPy lets whatever a damaged file leads to come through
        raise SourceError(
            f"{file} cannot be read as a WAV file: {error}",
            expected="a complete WAV file of PCM samples, integers or floats",
            remedy="Remove it, or write it again.",
        ) from error
    if not len(found):
        raise SourceError(f"{file} holds no samples", expected="a recording")
    return int(rate), np.asarray(found)


def to_int16(samples: Array) -> Array:
    """PCM of any width as int16, by full scale."""
    if samples.dtype == np.int16:
        return samples
    if samples.dtype == np.uint8:
        return (samples.astype(np.int16) - 128) * 256
    if samples.dtype.kind == "i":
        return (samples >> (8 * samples.dtype.itemsize - 16)).astype(np.int16)
    return np.clip(np.rint(samples * 32768.0), -32768, 32767).astype(np.int16)


def _mono(file: Path, found: Array, channels: str) -> Array:
    if found.ndim == 1:
        return found
    if found.shape[1] == 1 or channels == "first":
        return np.ascontiguousarray(found[:, 0])
    if channels == "average":
        return to_int16(found).mean(axis=1).round().astype(np.int16)
    raise SourceError(
        f"{file} has {found.shape[1]} channels",
        expected="one",
        remedy='Declare channels = "first" or "average" (docs/preprocessing.md).',
    )


def _fitted(file: Path, samples: Array, length: int, declared: Mapping[str, Any]) -> Array:
    if len(samples) < length:
        if declared.get("shorter") == "pad":
            return np.pad(samples, (0, length - len(samples)))
        how = 'shorter = "pad" adds silence at the end'
    elif len(samples) > length:
        if declared.get("longer") == "cut":
            return samples[:length]
        how = 'longer = "cut" keeps the beginning'
    else:
        return samples
    raise SourceError(
        f"{file} has {len(samples):,} samples",
        expected=f"{length:,}, the length of the model's input",
        remedy=f"Cut the recordings as the device will, or declare it: {how} "
        "(docs/preprocessing.md).",
    )


def _undeclared(tensor: Tensor, found: str) -> SourceError:
    return SourceError(
        f"The recordings hold {found}, and '{tensor.name}' takes {tensor.dtype} "
        f"{list(tensor.shape)}",
        expected="a model that takes int16 PCM, or a declaration of what makes its input of it",
        remedy="The scaling and features of the training are not guessed: declare --preprocess "
        "FILE.toml (docs/preprocessing.md), and the artifacts take raw PCM themselves.",
    )
