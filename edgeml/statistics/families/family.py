"""What a family of statistics is, and what it is told of the tensor that it looks at."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgeml.statistics.grid import Grid
from edgeml.statistics.places import MISSING

Matrix = NDArray[np.float64]
Vectors = dict[str, NDArray[np.float32]]
Batch = NDArray[Any]

TINY = 1e-12

__all__ = ["MISSING", "TINY", "Batch", "Context", "Family", "Matrix", "Vectors"]


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
    classes: int = 0
    """Of scores."""
    columns: tuple[str, ...] = ()
    """Names of feature columns."""
    categorical: tuple[str, ...] = ()
    """Columns that hold categories: integers that are names, not amounts."""
    row_step: int = 1
    """Images: each how-manieth row is looked at."""


def _stateless(context: Context) -> None:  # noqa: ARG001
    return None


def _no_vectors(batch: Batch, context: Context) -> Vectors:  # noqa: ARG001
    return {}


def _none_fixed(context: Context) -> dict[str, Grid]:  # noqa: ARG001
    return {}


class Family(msgspec.Struct, frozen=True, kw_only=True):
    """Names of the statistics in a tensor of this context, and how to compute them."""

    names: Callable[[Context], tuple[str, ...]]
    """Of the columns that ``compute`` gives."""
    compute: Callable[[Batch, Context, Any], Matrix]
    """(batch [n, …], context, state) → float64 [n, streams]. Any values at all, NaN and infinities
    included, make numbers, NaN or MISSING among them perhaps; never an error, nor a warning."""
    state: Callable[[Context], Any] = _stateless
    """A new object that ``compute`` may change: what it has to remember of the samples before, such
    as the last frame. One a tensor and observer, handed to every call in the order of the samples.
    None where samples are looked at one by one."""
    vectors: Callable[[Batch, Context], Vectors] = _no_vectors
    """(batch [n, …], context) → float32 [n, d] by name: what is counted as a vector, after the
    columns."""
    grids: Callable[[Context], dict[str, Grid]] = _none_fixed
    """Grids of those columns whose meaning says what they must be; the others are fitted."""
    temporal: frozenset[str] = frozenset()
    """Columns that compare a sample with the one before it. Calibration samples have no order, so
    these are never compared with training, only with the device's own past."""
