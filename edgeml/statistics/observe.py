"""Counting beside inference: what the agent calls for every request.

Statistics of single samples go into a small buffer of numbers; a full buffer is counted in one
vectorised step, which costs nanoseconds a number instead of microseconds.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from edgeml.statistics.baseline import Baseline, TensorStatistics
from edgeml.statistics.counts import Counts

BUFFER_ROWS = 64


class Observer:
    """Counts a model's inputs and outputs on the baseline's grids. Not thread-safe."""

    def __init__(self, baseline: Baseline) -> None:
        self._tensors = [_TensorObserver(tensor) for tensor in baseline.tensors]
        self.rows = 0
        """Samples seen since the last :meth:`take`."""

    def observe(
        self,
        inputs: Mapping[str, NDArray[np.generic]],
        outputs: Mapping[str, NDArray[np.generic]],
    ) -> None:
        """Take in a batch: arrays [n, …] by tensor name, the same n in all of them."""
        sides = {"input": inputs, "output": outputs}
        rows = 0
        for tensor in self._tensors:
            rows = tensor.observe(sides[tensor.spec.side][tensor.spec.tensor])
        self.rows += rows

    def take(self) -> dict[str, Counts]:
        """The counts by stream name since the last call, and start anew."""
        taken: dict[str, Counts] = {}
        for tensor in self._tensors:
            taken |= tensor.take()
        self.rows = 0
        return taken


class _TensorObserver:
    def __init__(self, spec: TensorStatistics) -> None:
        self.spec = spec
        self._state = spec.state()
        self._buffer = np.empty((BUFFER_ROWS, len(spec.streams)))
        self._filled = 0
        self._cells = [np.zeros(stream.grid.cells, dtype=np.int64) for stream in spec.streams]

    def observe(self, batch: NDArray[np.generic]) -> int:
        matrix = self.spec.compute(batch, self._state)
        for start in range(0, len(matrix), BUFFER_ROWS):
            chunk = matrix[start : start + BUFFER_ROWS]
            if self._filled + len(chunk) > BUFFER_ROWS:
                self._count()
            self._buffer[self._filled : self._filled + len(chunk)] = chunk
            self._filled += len(chunk)
        return len(matrix)

    def _count(self) -> None:
        filled = self._buffer[: self._filled]
        for column, stream, cells in zip(filled.T, self.spec.streams, self._cells, strict=True):
            np.add(
                cells,
                np.bincount(stream.grid.locate(column), minlength=stream.grid.cells),
                out=cells,
            )
        self._filled = 0

    def take(self) -> dict[str, Counts]:
        self._count()
        taken = {
            stream.name: Counts(stream.grid.hash, cells.copy())
            for stream, cells in zip(self.spec.streams, self._cells, strict=True)
        }
        for cells in self._cells:
            cells[:] = 0
        return taken
