"""The past of one stream, kept in memory: for a monitor without a store, off line and in tests."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from edgeml.collector.drift.saved import Record, Step
from edgeml.collector.drift.track import Point


class Memory:
    """A :class:`~edgeml.collector.drift.monitor.Source` of what :meth:`add` was given."""

    def __init__(self) -> None:
        self.records: dict[tuple[int, int], Record] = {}
        """By rung and index."""
        self.excluded: set[tuple[int, int]] = set()

    def add(self, step: Step) -> None:
        """Take in what came of a window."""
        for record in step.records:
            self.records[record.rung, record.point.index] = record
        if step.excluded_from is not None:
            self.excluded |= {key for key in self.records if sum(key) > step.excluded_from}

    def points(self, rung: int, limit: int) -> Sequence[Point]:
        """The last windows of a rung that are not excluded, the oldest first."""
        keys = sorted(k for k in self.records if k[0] == rung and k not in self.excluded)
        return [self.records[key].point for key in keys[-limit:]]

    def cells_from(self, index: int, limit: int) -> NDArray[np.int64]:
        """Counts [windows, cells] of the last single test windows from an index on."""
        keys = sorted(k for k in self.records if k[0] == 1 and k[1] >= index)[-limit:]
        rows = [self.records[key].cells for key in keys]
        return np.array(rows, dtype=np.int64).reshape(len(rows), -1 if rows else 0)
