"""Where each tensor lies in the memory that agent and worker share. Pure arithmetic, and views.

All of it is allocated when the worker starts: a page that cannot be had later, on a full
``/dev/shm``, is a bus error that no program can catch.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterable
from math import prod
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

ALIGNMENT = 64
"""Bytes: a cache line, and the widest vector register. Runtimes use such memory without a copy."""

Array = NDArray[Any]


class TensorSpec(msgspec.Struct, frozen=True):
    """A tensor of fixed shape under its source name."""

    name: str
    shape: tuple[int, ...]
    dtype: str

    @property
    def nbytes(self) -> int:
        """Its size in bytes."""
        return prod(self.shape) * np.dtype(self.dtype).itemsize


class Layout(msgspec.Struct, frozen=True):
    """Inputs and outputs one after another, each at a multiple of :data:`ALIGNMENT`."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]

    def offsets(self) -> tuple[int, ...]:
        """The first byte of each tensor, inputs before outputs."""
        return tuple(self._starts()[:-1])

    @property
    def nbytes(self) -> int:
        """How much memory it takes, at least one page."""
        return max(self._starts()[-1], mmap.PAGESIZE)

    def _starts(self) -> list[int]:
        starts = [0]
        for tensor in (*self.inputs, *self.outputs):
            end = starts[-1] + tensor.nbytes
            starts.append(-(-end // ALIGNMENT) * ALIGNMENT)
        return starts

    def views(self, memory: mmap.mmap) -> tuple[dict[str, Array], dict[str, Array]]:
        """Arrays over the memory: inputs and outputs by name."""
        offsets = self.offsets()
        cut = len(self.inputs)
        return (
            _views(memory, zip(self.inputs, offsets[:cut], strict=True)),
            _views(memory, zip(self.outputs, offsets[cut:], strict=True)),
        )


def _views(memory: mmap.mmap, places: Iterable[tuple[TensorSpec, int]]) -> dict[str, Array]:
    views: dict[str, Array] = {}
    for tensor, offset in places:
        flat = np.frombuffer(memory, tensor.dtype, prod(tensor.shape), offset)
        views[tensor.name] = flat.reshape(tensor.shape)
    return views
