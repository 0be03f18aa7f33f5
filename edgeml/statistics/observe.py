"""Counting beside inference: what the agent calls for every request.

Statistics of single samples gather in a buffer of numbers; a full one is counted in few vectorised
steps for all streams of a tensor together, which costs nanoseconds a number, not microseconds.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from edgeml.statistics.baseline import Baseline, TensorStatistics
from edgeml.statistics.categorical import CategoricalTally
from edgeml.statistics.counts import Counts
from edgeml.statistics.grid import Grid
from edgeml.statistics.numeric import NumericTally
from edgeml.statistics.vector import VectorTally


class Observer:
    """Counts a model's inputs and outputs on the baseline's grids. Not thread-safe.

    What compares a sample with the one before it (a run of one value, a family with a state) goes
    on from window to window.
    """

    def __init__(self, baseline: Baseline) -> None:
        self._tensors = [_TensorObserver(tensor) for tensor in baseline.tensors]
        self._remembers = any(tensor.remembers for tensor in self._tensors)
        self.rows = 0
        """Samples counted since the last :meth:`take`."""

    def observe(
        self,
        inputs: Mapping[str, NDArray[np.generic]],
        outputs: Mapping[str, NDArray[np.generic]],
        *,
        gap: bool = False,
    ) -> None:
        """Take in a batch: arrays [n, …] by tensor name, the same n in all of them.

        Args:
            inputs: of the model.
            outputs: likewise.
            gap: there were samples between the last one and these. Where a family compares
                neighbours, the first of these is then what the second is compared with, and is
                counted nowhere: what is counted must not depend on how often one looks.
        """
        sides = {"input": inputs, "output": outputs}
        rows, first = 0, int(gap and self._remembers)
        for tensor in self._tensors:
            rows = tensor.observe(sides[tensor.spec.side][tensor.spec.tensor], first)
        self.rows += rows

    @property
    def grids(self) -> dict[str, Grid]:
        """Those of the streams, by name."""
        specs = (tensor.spec for tensor in self._tensors)
        return {stream.name: stream.grid for spec in specs for stream in spec.streams}

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
        kinds = [stream.grid.kind for stream in spec.streams]
        columns = [n for n, kind in enumerate(kinds) if kind != "vector"]
        self._numeric = [n for n in columns if kinds[n] == "numeric"]
        self._all_numeric = self._numeric == columns
        grids = [stream.grid for stream in spec.streams]
        self._numbers = NumericTally([grids[n] for n in self._numeric])
        self._categories = {
            n: CategoricalTally(grids[n]) for n in columns if kinds[n] == "categorical"
        }
        self._vectors = [VectorTally(grids[n]) for n in range(len(columns), len(kinds))]

    @property
    def remembers(self) -> bool:
        return self._state is not None

    def observe(self, batch: NDArray[np.generic], first: int = 0) -> int:
        """Count from the row ``first`` on; returns how many."""
        matrix = self.spec.compute(batch, self._state)[first:]
        self._numbers.add(matrix if self._all_numeric else matrix[:, self._numeric])
        for column, tally in self._categories.items():
            tally.add_codes(matrix[:, column])
        if self._vectors:
            found = self.spec.vectors(batch[first:]).values()
            for tally, vectors in zip(self._vectors, found, strict=True):
                tally.add(vectors)
        return len(matrix)

    def take(self) -> dict[str, Counts]:
        numbers = iter(self._numbers.take())
        vectors = iter(self._vectors)
        taken: dict[str, Counts] = {}
        for n, stream in enumerate(self.spec.streams):
            match stream.grid.kind:
                case "numeric":
                    taken[stream.name] = next(numbers)
                case "categorical":
                    taken[stream.name] = self._categories[n].take()
                case "vector":
                    taken[stream.name] = next(vectors).take()
        return taken
