"""The life of one stream: a reference, evidence, an alarm, and back.

Pure: counts and a threshold come in, a :class:`Step` comes out that says what to store and what
happened. A monitor goes on from its :attr:`Monitor.saved` and its tracks' states, so that evidence
outlives the collector's process and never runs ahead of a failed transaction.

Rules
    1. Rows come in *test windows* of at least ``rows`` rows and as many device windows as the
       season asks for (:meth:`Policy.windows_of`); device windows are merged until there are
       enough. They are thinned to exactly ``rows`` for scoring: no test window is more extreme just
       for being smaller. ``rows`` is 3/4 of what the median of the first device windows would give.
    2. Test windows are watched one by one and, on a ladder of *rungs*, merged by 4, 16 and 64: a
       change too weak to be seen in one window's noise is seen in the merged ones. Each rung is a
       :class:`~edgeml.collector.drift.track.Track` of its own, armed by itself.
    3. The stream's evidence is the average over its armed rungs, each weighted by its length: R of
       merged windows has a mean of at most t/length after t windows, so the average's is at most t.
    4. An alarm needs evidence ≥ threshold *and* an excess JS divergence of at least ``min_effect``
       between the windows since the estimated change and the reference.
    5. With the alarm, the windows since the change leave the reference, and none enters it while
       the alarm is open: it neither forgets nor fires again. It closes when ``close_after`` windows
       in a row, merged, are back below ``min_effect``, or all their scores are back within one
       usual deviation of what is usual at that hour. Evidence then starts anew.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import ceil, isnan
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from edgeml.collector.drift.policy import RUNGS, Policy
from edgeml.collector.drift.ranks import uniform
from edgeml.collector.drift.saved import Arrival, Record, RungState, Saved, Source, Step
from edgeml.collector.drift.scores import Scorers, numbers, rows_of
from edgeml.collector.drift.track import Point, Track, TrackState
from edgeml.statistics import Counts, Grid

Cells = NDArray[np.int64]
Floats = NDArray[np.float64]
Phase = Literal["collecting", "armed", "alarm"]

SIZING = 3
"""Device windows whose median decides how many rows a test window has."""
LOOKED_BACK = 512
"""Windows of a change that its effect is taken of, at most."""
USUAL = 1.0
"""Deviations within which an alarm's windows count as usual again."""


class Monitor:
    """One stream. See the rules above.

    Args:
        grid: of the stream.
        baseline: of the training data.
        policy: the bounds.
        saved: what an earlier life left …
        tracks: … and its tracks' states by rung; one that is missing has not seen a window.
        scorers: those of the statistic, where many monitors share them.
    """

    def __init__(
        self,
        grid: Grid,
        baseline: Counts,
        policy: Policy,
        saved: Saved | None = None,
        tracks: Mapping[int, TrackState] | None = None,
        scorers: Scorers | None = None,
    ) -> None:
        self.grid = grid
        self.baseline = baseline
        self.policy = policy
        self._scorers = scorers or Scorers(grid, baseline)
        self._nothing = [0] * numbers(grid, baseline).size
        self.saved = saved or Saved(pending=self._nothing, reference=self._nothing)
        self.tracks: list[Track] = []
        if self.saved.rows:
            self._begin(tracks or {})

    def _begin(self, states: Mapping[int, TrackState]) -> None:
        """Set up the rungs, once the rows are known."""
        rows = self.saved.rows
        self.scorers = {n: self._scorers.of(n * rows) for n in RUNGS}
        self.scorer = self.scorers[1]
        if not self.saved.rungs:
            self.saved.rungs = [RungState() for _ in RUNGS]
        self.tracks = [
            Track(self.scorer.directions, self.policy.of_rung(length), states.get(length))
            for length in RUNGS
        ]

    @property
    def phase(self) -> Phase:
        """Where in its life the stream is."""
        if self.saved.in_alarm:
            return "alarm"
        return "armed" if self.tracks and self.tracks[0].armed else "collecting"

    @property
    def reason(self) -> str:
        """Why the stream is not armed."""
        if not self.tracks:
            return f"{len(self.saved.waiting)} of {SIZING} windows that its usual size comes from"
        if self.tracks[0].armed:
            return ""
        wanted = f"{self.tracks[0].state.count} of {self.policy.reference} reference windows"
        return self.tracks[0].state.reason or wanted

    @property
    def evidence(self) -> float:
        """R now: the average over the armed rungs, by their lengths."""
        armed = self._armed
        return sum(n * track.evidence for n, track in armed) / max(len(armed), 1)

    @property
    def windows(self) -> int:
        """What R has as its mean, at most, where nothing changed: the test windows since the
        evidence began, averaged over the armed rungs as R is, for each of them learns, and begins
        anew, at its own time. Those that pass while an alarm holds R as it was count too."""
        armed = self._armed
        gathered = sum(n * track.state.windows for n, track in armed) / max(len(armed), 1)
        through = self.tracks[0].state.through if self.saved.in_alarm else None
        waited = self.saved.next_index - 1 - through if through is not None else 0
        return ceil(gathered) + waited

    @property
    def _armed(self) -> list[tuple[int, Track]]:
        """Rungs that gather evidence, each with its length."""
        return [(n, track) for n, track in zip(RUNGS, self.tracks, strict=False) if track.armed]

    @property
    def reference_size(self) -> int:
        """Test windows in the reference, or collected for it."""
        return self.saved.reference_windows

    @property
    def reference_cells(self) -> Cells:
        """Counts of the reference, merged."""
        return np.asarray(self.saved.reference, dtype=np.int64)

    @property
    def offset(self) -> float:
        """How far the reference itself lies from the training data, as an effect."""
        return self.scorer.effect(self.reference_cells, numbers(self.grid, self.baseline))

    def step(
        self,
        cells: Cells,
        *,
        key: str,
        start_ms: int,
        length_ms: int,
        threshold: float,
        source: Source,
        merged: int = 1,
        common: Sequence[float] | None = None,
    ) -> Step:
        """Take in the counts of one device window.

        Args:
            cells: int64 [cells] on the stream's grid; :func:`numbers` of the window.
            key: names the window, the same in every replay; seeds whatever is random.
            start_ms: when the window began.
            length_ms: of a window as the device counts them.
            merged: how many of those it is.
            threshold: evidence that makes an alarm.
            source: the stream's past.
            common: what peers' scores were in this window; None where there are no peers.
        """
        shared = list(common) if common is not None else None
        arrival = Arrival(
            cells=cells.tolist(),
            key=key,
            start_ms=start_ms,
            common=shared,
            merged=merged,
            wanted=self.policy.windows_of(length_ms),
        )
        if self.saved.rows:
            return self._take(arrival, threshold, source)
        self.saved.waiting.append(arrival)
        if len(self.saved.waiting) < SIZING:
            return Step(records=[])
        sizes = sorted(
            rows_of(self.grid, np.asarray(a.cells)) * ceil(a.wanted / a.merged)
            for a in self.saved.waiting
        )
        self.saved.rows = max(self.policy.min_rows, int(0.75 * sizes[len(sizes) // 2]))
        self._begin({})
        waiting, self.saved.waiting = self.saved.waiting, []
        steps = [self._take(waited, threshold, source) for waited in waiting]
        return Step(records=[record for step in steps for record in step.records])

    def _take(self, arrival: Arrival, threshold: float, source: Source) -> Step:
        saved = self.saved
        if saved.pending_since_ms < 0:
            saved.pending_since_ms = arrival.start_ms
        counts = _sum(saved.pending, arrival.cells)
        saved.pending_windows += arrival.merged
        few = saved.pending_windows < arrival.wanted
        if few or sum(counts[: self.grid.cells]) < saved.rows:
            saved.pending = counts
            return Step(records=[])
        since_ms, saved.pending_since_ms, saved.pending_windows = saved.pending_since_ms, -1, 0
        saved.pending = self._nothing
        seed = int(uniform(arrival.key, "thin") * 2**48)
        pending = np.array(counts, dtype=np.int64)
        thinned = self.scorer.thin(pending, saved.rows, seed)
        point = Point(
            index=saved.next_index,
            start_ms=since_ms,
            seed=seed,
            scores=self.scorer.scores(thinned).tolist(),
            common=arrival.common,
        )
        saved.next_index += 1
        first = Record(rung=1, cells=pending, point=point)
        if saved.in_alarm:
            return self._wait_for_recovery(first, source)
        records = [first, *self._climb(first, counts, thinned.tolist())]
        for record in records:
            track = self.tracks[RUNGS.index(record.rung)]
            record.learned = track.step(record.point, _history(source, record, self.policy))
        saved.reference = _sum(saved.reference, counts)
        saved.reference_scores = _added(saved.reference_scores, point.scores)
        absent = [int(isnan(score)) for score in point.scores]
        saved.reference_absent = _sum(saved.reference_absent or [0] * len(absent), absent)
        saved.reference_windows += 1
        point.evidence = self.evidence if self.tracks[0].armed else None
        return self._judge(records, threshold, source)

    def _climb(self, first: Record, counts: list[int], thinned: list[int]) -> list[Record]:
        """Add a test window, and the same thinned, to each rung above; return those that are
        full."""
        full: list[Record] = []
        for length, rung in zip(RUNGS[1:], self.saved.rungs[1:], strict=True):
            if not rung.filled:
                rung.pending = rung.raw = self._nothing
                rung.since_ms, rung.first, rung.common = first.point.start_ms, first.point.index, []
            rung.pending, rung.raw = _sum(rung.pending, thinned), _sum(rung.raw, counts)
            rung.filled += 1
            if first.point.common is not None:
                rung.common.append(first.point.common)
            if rung.filled < length:
                continue
            cells = np.asarray(rung.pending, dtype=np.int64)
            common = None
            if len(rung.common) == length:
                common = self.scorer.merged(np.asarray(rung.common)).tolist()
            point = Point(
                index=rung.first,
                start_ms=rung.since_ms,
                seed=first.point.seed ^ length,
                scores=self.scorers[length].scores(cells).tolist(),
                common=common,
            )
            full.append(
                Record(rung=length, cells=np.asarray(rung.raw, dtype=np.int64), point=point)
            )
            rung.filled = 0
        return full

    def _judge(self, records: list[Record], threshold: float, source: Source) -> Step:
        step = Step(records=records)
        if not self.tracks[0].armed or self.evidence < threshold:
            return step
        strongest = max(range(len(RUNGS)), key=lambda at: RUNGS[at] * self.tracks[at].evidence)
        since = self.tracks[strongest].windows_since_change * RUNGS[strongest]
        since = min(max(since, 1), self.saved.next_index)
        first = self.saved.next_index - since
        # The newest window may not be stored yet, and may be all there is.
        newest = records[0]
        stored = list(source.cells_from(first, LOOKED_BACK))
        if len(stored) < min(since, LOOKED_BACK):
            stored.append(newest.cells)
        merged: Cells = np.sum(stored, axis=0)
        step.change = self.scorer.effect(merged, self._without(merged))
        if step.change < self.policy.min_effect:
            return step
        self.saved.in_alarm = True
        self.saved.recent, self.saved.recent_residuals = [], []
        step.opened, step.since, step.excluded_from = True, since, first
        self._leave(merged, since, newest, source, step)
        return step

    def _leave(self, merged: Cells, since: int, newest: Record, source: Source, step: Step) -> None:
        """Take the windows since the change out of the reference."""
        saved = self.saved
        points = [p for p in source.points(1, since) if p.index >= saved.next_index - since]
        if not points or points[-1].index != newest.point.index:
            points = [*points, newest.point]
        step.since_ms = points[0].start_ms
        scores = np.array([p.scores for p in points])
        absent = np.isnan(scores)
        changed, gone = np.where(absent, 0.0, scores).sum(axis=0), absent.sum(axis=0)
        left = np.asarray(saved.reference_scores) - changed
        windows = saved.reference_windows - len(points)
        missing = np.asarray(saved.reference_absent or 0 * gone) - gone
        # Over the windows in which there was one; of nothing on one side nothing has moved.
        here, there = len(points) - gone, windows - missing
        moved = changed / np.maximum(here, 1) - left / np.maximum(there, 1)
        step.moved = np.where((here > 0) & (there > 0), moved, 0.0).tolist()
        saved.reference = self._without(merged).tolist()
        saved.reference_scores, saved.reference_windows = left.tolist(), windows
        saved.reference_absent = missing.tolist()
        for rung in saved.rungs[1:]:
            rung.filled = 0

    def _without(self, merged: Cells) -> Cells:
        """The reference without windows that were added to it. Cells never go below zero, whatever
        somebody took back in the meantime."""
        left = self.reference_cells - merged
        np.maximum(left[: self.grid.cells], 0, out=left[: self.grid.cells])
        return left

    def _wait_for_recovery(self, record: Record, source: Source) -> Step:
        saved = self.saved
        step = Step(records=[record], excluded_from=record.point.index)
        wanted = self.policy.close_after
        residuals = self.tracks[0].residuals(record.point)
        saved.recent = [*saved.recent, record.cells.tolist()][-wanted:]
        saved.recent_residuals = [*saved.recent_residuals, residuals][-wanted:]
        if len(saved.recent) < wanted:
            return step
        merged = np.asarray(saved.recent, dtype=np.int64).sum(axis=0)
        step.change = self.scorer.effect(merged, self.reference_cells)
        usual = np.abs(np.mean(saved.recent_residuals, axis=0)) < USUAL
        if step.change < self.policy.min_effect or bool(usual.all()):
            step.closed = True
            self.restart(source)
        return step

    def restart(self, source: Source) -> None:
        """End an alarm, and begin evidence anew, on the reference that is stored."""
        self.saved.in_alarm = False
        self.saved.recent, self.saved.recent_residuals = [], []
        for at, length in enumerate(RUNGS if self.tracks else ()):
            track = Track(self.scorer.directions, self.policy.of_rung(length))
            points = source.points(length, self.policy.of_rung(length).longest_reference)
            track.state.count = len(points)
            track.state.through = points[-1].index if points else -1
            track.learn(points)
            self.tracks[at] = track
            self.saved.rungs[at] = RungState()


def _history(source: Source, record: Record, policy: Policy) -> Callable[[], Sequence[Point]]:
    longest = policy.of_rung(record.rung).longest_reference

    def history() -> Sequence[Point]:
        stored = list(source.points(record.rung, longest))
        if not stored or stored[-1].index != record.point.index:
            stored.append(record.point)
        return stored[-longest:]

    return history


def _sum(one: list[int], other: list[int]) -> list[int]:
    """Of counts that are kept as lists: for some forty of them a detour over arrays costs more."""
    return [a + b for a, b in zip(one, other, strict=True)]


def _added(sums: list[float], scores: list[float]) -> list[float]:
    found = [0.0 if isnan(score) else score for score in scores]
    return [a + b for a, b in zip(found, sums, strict=True)] if sums else found
