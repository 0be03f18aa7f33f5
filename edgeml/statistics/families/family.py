"""What a family of statistics is, and what it is told of the tensor that it looks at."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float64]
Vectors = dict[str, NDArray[np.float32]]
Batch = NDArray[Any]

TINY = 1e-12


class Context(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a family needs to know of its tensor beyond the values. A part of what the baseline's
    counts mean, so it stands in the baseline."""

    layout: str = ""
    low: float = 0.0
    """Smallest and largest calibration value: where an image or a microphone clips."""
    high: float = 1.0
    probabilities: bool = False
    """Scores are probabilities already, so no softmax."""
    channels: int = 1
    columns: tuple[str, ...] = ()
    """Names of feature columns."""
    row_step: int = 1
    """Images: each how-manieth row is looked at."""
    bandwidth: float = 0.0
    """Embeddings: the median distance of two calibration samples; 0 where they are all alike."""
    width: int = 0
    """Embeddings: numbers in one."""


def _stateless(context: Context) -> None:  # noqa: ARG001
    return None


def _no_vectors(batch: Batch, context: Context) -> Vectors:  # noqa: ARG001
    return {}


class Family(msgspec.Struct, frozen=True, kw_only=True):
    """Names of the statistics in a tensor of this context, and how to compute them."""

    names: Callable[[Context], tuple[str, ...]]
    """Of the columns that ``compute`` gives."""
    compute: Callable[[Batch, Context, Any], Matrix]
    """(batch [n, …], context, state) → float64 [n, streams]. Any values at all, NaN and infinities
    included, make numbers, some of them NaN perhaps; never an error, nor a warning."""
    state: Callable[[Context], Any] = _stateless
    """A new object that ``compute`` may change: what it has to remember of the samples before, such
    as the last frame. One a tensor and observer, handed to every call in the order of the samples.
    None where samples are looked at one by one."""
    vectors: Callable[[Batch, Context], Vectors] = _no_vectors
    """(batch [n, …], context) → float32 [n, d] by name: what is counted as a vector, after the
    columns."""
    temporal: frozenset[str] = frozenset()
    """Columns that compare a sample with the one before it. Calibration samples have no order, so
    these are never compared with training, only with the device's own past."""
    categories: frozenset[str] = frozenset()
    """Columns that hold the number of a category."""
    ranges: Mapping[str, tuple[float, float]] = {}
    """Columns whose range is known beforehand, and hence not fitted to the calibration data."""
