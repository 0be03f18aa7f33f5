"""What a monitor keeps between windows, what it asks of the store, and what it tells of one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgeml.collector.drift.track import Point

Cells = NDArray[np.int64]


class Record(msgspec.Struct, kw_only=True):
    """A test window, or several merged, as it is stored."""

    rung: int
    """How many test windows it is merged of."""
    cells: Cells
    point: Point
    """Its index is that of the first test window in it."""
    learned: bool = False
    """Whether its track learned with it, or tried to: what the track knows is new."""


class RungState(msgspec.Struct, kw_only=True):
    """The windows of a rung that wait to be merged."""

    pending: list[int] = []
    raw: list[int] = []
    """The same before thinning."""
    since_ms: int = 0
    first: int = 0
    filled: int = 0
    common: list[list[float]] = []


class Arrival(msgspec.Struct, kw_only=True):
    """A device window that waits."""

    cells: list[int]
    key: str
    start_ms: int
    common: list[float] | None
    merged: int = 1
    """Windows of the device that it is."""
    wanted: int = 1
    """Of those make a test window, at least."""


class Saved(msgspec.Struct, kw_only=True):
    """What a monitor is rebuilt from, beside the states of its tracks."""

    rows: int = 0
    """Rows that a test window is thinned to; 0 until it is decided."""
    next_index: int = 0
    waiting: list[Arrival] = []
    """The first windows, until ``rows`` is decided."""
    pending: list[int] = []
    """Counts that are waiting for more rows, or windows."""
    pending_since_ms: int = -1
    pending_windows: int = 0
    """Windows of the device that they are of."""
    in_alarm: bool = False
    reference: list[int] = []
    """Counts of the reference, merged."""
    reference_scores: list[float] = []
    """Sums of its windows' scores …"""
    reference_windows: int = 0
    """… how many there are …"""
    reference_absent: list[int] = []
    """… and in how many of them each score was not there."""
    recent: list[list[int]] = []
    """While in alarm: counts of the last windows …"""
    recent_residuals: list[list[float]] = []
    """… and how far from usual they lie."""
    rungs: list[RungState] = []


class Step(msgspec.Struct, kw_only=True):
    """What came of one device window."""

    records: list[Record]
    """Test windows to be stored."""
    opened: bool = False
    closed: bool = False
    excluded_from: int | None = None
    """Test windows that reach this index or beyond are no part of the reference any more."""
    change: float | None = None
    """Excess JS divergence since the change against the reference, in bits, where it
    was looked at."""
    moved: list[float] = []
    """With ``opened``: the scores' mean since the change less the reference's. Of distance in its
    own unit, of the mean in standard deviations of the training data, of the spread in nats."""
    since: int = 0
    """With ``opened``: test windows since the estimated change …"""
    since_ms: int = 0
    """… and when the first of them began."""


class Source(Protocol):
    """The stored past of one stream; asked only when something is to be learned or judged."""

    def points(self, rung: int, limit: int) -> Sequence[Point]:
        """The last windows of a rung that are not excluded, the oldest first."""
        ...

    def cells_from(self, index: int, limit: int) -> Cells:
        """Counts [windows, cells] of the last single test windows from an index on."""
        ...
