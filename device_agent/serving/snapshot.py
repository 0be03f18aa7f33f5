"""A model as it is this moment, for metrics and for a person. Data; the service fills it in."""

from __future__ import annotations

from bisect import bisect_left

import msgspec

from edgeml.device_agent.serving.pairs import Disagreement
from edgeml.telemetry import Building

BOUNDS_MS = (0.5, 1.0, 2.5, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1000.0, 2500.0, 10_000.0)
"""Upper bounds of the latency histogram's cells. Of a few per decade, as Prometheus has them."""


class LatencyHistogram(msgspec.Struct, kw_only=True):
    """Answer times of served requests, from arrival to answer, since the start.

    Attributes:
        bounds_ms: upper bounds, ascending; a last cell without a bound follows.
        counts: requests a cell, one more than bounds; not summed up.
        sum_ms: of all times.
    """

    bounds_ms: tuple[float, ...] = BOUNDS_MS
    counts: list[int] = msgspec.field(default_factory=lambda: [0] * (len(BOUNDS_MS) + 1))
    sum_ms: float = 0.0

    def add(self, ms: float) -> None:
        """Count a request."""
        self.counts[bisect_left(self.bounds_ms, ms)] += 1
        self.sum_ms += ms

    def copy(self) -> LatencyHistogram:
        """As it is now."""
        return LatencyHistogram(
            bounds_ms=self.bounds_ms, counts=list(self.counts), sum_ms=self.sum_ms
        )


class Profile(msgspec.Struct, frozen=True, kw_only=True):
    """What an artifact costs on this very device.

    Attributes:
        bundle: SHA-256 of the bundle.
        artifact: id of the artifact.
        runs: inferences behind the figures.
        p50_ms: median time of an inference in a worker.
        p99_ms: its 99th percentile.
        max_ms: the slowest.
        load_ms: from starting the process until the model was loaded, the latest time.
        first_load_ms: likewise, the first time: there may have been an engine to build.
        peak_mb: peak resident set of the worker, 10^6 bytes.
    """

    bundle: str
    artifact: str
    runs: int
    p50_ms: float
    p99_ms: float
    max_ms: float
    load_ms: float
    peak_mb: float
    first_load_ms: float = 0.0


class GuestSnapshot(msgspec.Struct, frozen=True, kw_only=True):
    """A second version beside the one that serves.

    Attributes:
        version: of the model.
        bundle: SHA-256 of its bundle.
        artifact: that runs.
        share: of the requests that it serves; 0 for a shadow.
        disagreement: a shadow's, with the version that serves.
    """

    version: str
    bundle: str
    artifact: str
    share: float
    disagreement: Disagreement | None


class ModelSnapshot(msgspec.Struct, frozen=True, kw_only=True):
    """One model, all it tells.

    Attributes:
        name: of the model.
        version: that serves.
        bundle: SHA-256 of its bundle.
        artifact: that serves.
        phase: as reported.
        memory_limit: what holds the memory limit: ``cgroup2``, ``cgroup1``, ``poll``, ``none``.
        outcomes: requests by what became of them, since the start.
        looked_at: of those served, how many the statistics have looked at.
        overruns: gaps in the sound that it hears, since the start: nobody read it in time.
        latency: of those served, since the start.
        waiting: requests in the queue.
        running: whether one is at work.
        restarts: workers that were lost and replaced, since the start.
        last_start_ms: how long the latest worker took until it could serve; None before the first.
        resident_mb: resident set of the worker, 10^6 bytes; None without one.
        limit_mb: what it may have; None where there is no limit.
        variants: the ladder's artifacts, the preferred one first.
        step: which of them serves, 0 for the first.
        standby: whether a warm second worker waits.
        profile: of the artifact on this device.
        building: an artifact on its way to serve.
        guest: a second version beside it.
    """

    name: str
    version: str
    bundle: str
    artifact: str
    phase: str
    memory_limit: str
    outcomes: dict[str, int]
    looked_at: int
    latency: LatencyHistogram
    waiting: int
    running: bool
    restarts: int
    last_start_ms: float | None
    resident_mb: float | None
    limit_mb: float | None
    variants: tuple[str, ...]
    step: int
    standby: bool
    profile: Profile | None
    overruns: int = 0
    guest: GuestSnapshot | None = None
    building: Building | None = None
