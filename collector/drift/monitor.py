"""The life of one stream: collecting a reference, armed, alarm, and back.

Pure: counts and a threshold come in, a :class:`Step` comes out that says what to store and what
happened. A monitor is rebuilt from what its steps stored (:meth:`Monitor.restore`), so that
evidence outlives the collector's process and never runs ahead of a failed transaction.

Rules
    1. Rows come in *test windows* of at least ``rows`` rows (small device windows are merged until
       there are enough) and are thinned to exactly ``rows`` for scoring: no test window is more
       extreme just for being smaller. ``rows`` is fixed when the stream is armed: 3/4 of the median
       window of its reference.
    2. A stream is armed once it has ``reference`` test windows that do not visibly depend on each
       other (lag-1 correlation of both scores). Until then it says "not armed yet" and why.
    3. Armed, each window is ranked among all before it, bets, and then joins them.
    4. An alarm needs evidence ≥ threshold *and* an excess JS divergence of at least ``min_effect``
       between the windows since the estimated change and the reference.
    5. With the alarm, the windows since the change leave the reference, and none enters it while
       the alarm is open: it neither forgets nor fires again. It closes when ``close_after`` windows
       in a row, merged, are back below ``min_effect``; evidence starts anew.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgeml.collector.drift.conformal import Ranks, uniform
from edgeml.collector.drift.effects import excess_js
from edgeml.collector.drift.evidence import Evidence
from edgeml.collector.drift.score import Score, detectors, score
from edgeml.statistics import Grid

Cells = NDArray[np.int64]
Role = Literal["collected", "reference", "excluded"]
Phase = Literal["collecting", "armed", "alarm"]


class Policy(msgspec.Struct, frozen=True, kw_only=True):
    """The bounds of a monitor, each with its reason."""

    reference: int = 48
    """Test windows before a stream is armed: four hours of five-minute windows."""
    longest_reference: int = 1000
    """Windows that a window is ranked among; beyond it the older ones are let go."""
    min_rows: int = 30
    """Rows of a test window at least: fewer say too little about a distribution."""
    min_effect: float = 0.05
    """Excess JS divergence in bits that is worth an alarm: a shift of about half a standard
    deviation of a normal variable (JS ≈ 0.18·δ² bits)."""
    close_after: int = 10
    """Windows that have to look like the reference again before an alarm closes."""


class Record(msgspec.Struct, kw_only=True):
    """A test window as it is stored."""

    index: int
    cells: list[int]
    seed: int
    role: Role
    start_ms: int
    """When its first device window began."""
    distance: float | None = None
    mean: float | None = None
    p_distance: float | None = None
    p_mean: float | None = None
    before: int | None = None
    """Windows that it was ranked among."""
    evidence: float | None = None


class Saved(msgspec.Struct, kw_only=True):
    """What a monitor is rebuilt from beside its records."""

    rows: int = 0
    """Rows that a test window is thinned to; 0 before the stream is armed."""
    next_index: int = 0
    first_index: int = 0
    """Records before it are history."""
    evidence_from: int = 0
    """Evidence started anew at this record."""
    pending: list[int] = []
    """Counts that are waiting for more rows."""
    pending_since_ms: int = -1
    in_alarm: bool = False
    reason: str = ""
    """Why the stream is not armed."""


class Step(msgspec.Struct, kw_only=True):
    """What came of one device window."""

    records: list[Record]
    """To be inserted, or replaced where the index is there already."""
    opened: bool = False
    closed: bool = False
    change: float | None = None
    """Excess JS divergence since the change against the reference, in bits, where it
    was looked at."""
    since: int = 0
    """With ``opened``: test windows since the estimated change."""


class Monitor:
    """One stream. See the rules above."""

    def __init__(self, grid: Grid, baseline: Cells, policy: Policy) -> None:
        self.grid = grid
        self.baseline = baseline
        self.policy = policy
        self.saved = Saved(pending=[0] * grid.cells)
        self._records: list[Record] = []
        self._start_anew()

    def _start_anew(self) -> None:
        self._distances = Ranks()
        self._means = Ranks()
        self._reference = np.zeros(self.grid.cells, dtype=np.int64)
        self._evidence = Evidence(detectors(self.grid))

    @property
    def phase(self) -> Phase:
        """Where in its life the stream is."""
        if self.saved.in_alarm:
            return "alarm"
        return "armed" if self.saved.rows else "collecting"

    @property
    def evidence(self) -> float:
        """R now."""
        return self._evidence.value

    @property
    def reference_size(self) -> int:
        """Test windows in the reference, or collected for it."""
        return len(self._distances) if self.saved.rows else len(self._records)

    @property
    def reference_cells(self) -> Cells:
        """Counts of the reference, merged."""
        return self._reference

    def step(self, cells: Cells, *, key: str, threshold: float, start_ms: int = 0) -> Step:
        """Take in the counts of one device window.

        Args:
            cells: int64 [cells] on the stream's grid.
            key: names the window, the same in every replay; seeds whatever is random.
            threshold: evidence that makes an alarm.
            start_ms: when the window began; only noted.
        """
        if self.saved.pending_since_ms < 0:
            self.saved.pending_since_ms = start_ms
        pending = np.asarray(self.saved.pending, dtype=np.int64) + cells
        if pending.sum() < max(self.saved.rows, self.policy.min_rows):
            self.saved.pending = pending.tolist()
            return Step(records=[])
        self.saved.pending = [0] * self.grid.cells
        record = Record(
            index=self.saved.next_index,
            cells=pending.tolist(),
            seed=int(uniform(key, "thin") * 2**48),
            role="collected",
            start_ms=self.saved.pending_since_ms,
        )
        self.saved.pending_since_ms = -1
        self.saved.next_index += 1
        self._records.append(record)
        match self.phase:
            case "collecting":
                return self._collect(record)
            case "armed":
                return self._watch(record, key, threshold)
            case "alarm":
                return self._wait_for_recovery(record)

    def _collect(self, record: Record) -> Step:
        wanted = self.policy.reference
        if len(self._records) % wanted:
            self.saved.reason = f"{len(self._records) % wanted} of {wanted} reference windows"
            return Step(records=[record])
        rows = sorted(sum(r.cells) for r in self._records)
        unit = max(self.policy.min_rows, int(0.75 * rows[len(rows) // 2]))
        able = [r for r in self._records if sum(r.cells) >= unit]
        scores = [self._score(r, unit) for r in able]
        worst = max(
            abs(lag_one(list(column))) for column in zip(*map(as_pair, scores), strict=True)
        )
        limit = max(0.3, 3 / len(able) ** 0.5)
        if worst > limit or len(able) < wanted // 2:
            self.saved.reason = (
                f"the windows depend on each other (lag-1 correlation {worst:.2f}, at most "
                f"{limit:.2f} is taken)"
            )
            self._drop_oldest(len(self._records) - 3 * wanted)
            return Step(records=[record])
        self.saved.rows, self.saved.reason = unit, ""
        self.saved.evidence_from = self.saved.next_index
        for taken, found in zip(able, scores, strict=True):
            taken.distance, taken.mean = found.distance, found.mean
            self._join(taken)
        return Step(records=list(self._records))

    def _watch(self, record: Record, key: str, threshold: float) -> Step:
        found = self._score(record, self.saved.rows)
        record.distance, record.mean = found.distance, found.mean
        record.before = len(self._distances)
        record.p_distance = self._distances.p_value(found.distance, uniform(key, "distance"))
        record.p_mean = self._means.p_value(found.mean, uniform(key, "mean"))
        record.evidence = self._bet(record)
        self._join(record)
        if record.evidence < threshold:
            self._let_go()
            return Step(records=[record])
        since = self._evidence.windows_since_change
        changed = self._records[-since:]
        merged = merged_cells(changed)
        change = excess_js(merged, self._reference - merged)
        if change < self.policy.min_effect:
            return Step(records=[record], change=change)
        self.saved.in_alarm = True
        self.saved.evidence_from = self.saved.next_index
        for old in changed:
            old.role = "excluded"
        self._refill()
        return Step(records=changed, opened=True, change=change, since=since)

    def _wait_for_recovery(self, record: Record) -> Step:
        record.role = "excluded"
        self.saved.evidence_from = self.saved.next_index
        self._forget_excluded()
        recent = [r for r in self._records if r.role == "excluded"][-self.policy.close_after :]
        if len(recent) < self.policy.close_after:
            return Step(records=[record])
        merged = merged_cells(recent)
        change = excess_js(merged, self._reference)
        if change < self.policy.min_effect:
            self.saved.in_alarm = False
            return Step(records=[record], closed=True, change=change)
        return Step(records=[record], change=change)

    def _score(self, record: Record, rows: int) -> Score:
        cells = np.asarray(record.cells, dtype=np.int64)
        return score(self.grid, cells, self.baseline, rows=rows, seed=record.seed)

    def _bet(self, record: Record) -> float:
        """Feed a ranked record to the evidence."""
        assert record.p_distance is not None
        assert record.p_mean is not None
        # A p-value of the mean is small for a large mean, 1 - p for a small one.
        ps = (record.p_distance, record.p_mean, 1 - record.p_mean)
        return self._evidence.update(ps[: detectors(self.grid)], record.before or 0)

    def _join(self, record: Record) -> None:
        assert record.distance is not None
        assert record.mean is not None
        record.role = "reference"
        self._distances.add(record.distance)
        self._means.add(record.mean)
        self._reference = self._reference + np.asarray(record.cells, dtype=np.int64)

    def _let_go(self) -> None:
        """Keep the reference within its bound: the youngest quarter of it starts a new one."""
        if len(self._distances) <= self.policy.longest_reference:
            return
        self._drop_oldest(len(self._records) - self.policy.longest_reference // 4)
        self.saved.evidence_from = self.saved.next_index
        self._refill()

    def _drop_oldest(self, count: int) -> None:
        if count > 0:
            del self._records[:count]
            self.saved.first_index = self._records[0].index

    def _forget_excluded(self) -> None:
        """Of a long alarm, keep only what may still be asked for."""
        excluded = [r for r in self._records if r.role == "excluded"]
        if len(excluded) > 2 * self.policy.close_after:
            keep = {r.index for r in excluded[-self.policy.close_after :]}
            self._records = [r for r in self._records if r.role != "excluded" or r.index in keep]

    def _refill(self) -> None:
        """Fill the reference from the records that belong to it, with evidence starting anew."""
        self._start_anew()
        for record in self._records:
            if record.role == "reference":
                self._join(record)

    @classmethod
    def restore(
        cls, grid: Grid, baseline: Cells, policy: Policy, saved: Saved, records: Iterable[Record]
    ) -> Monitor:
        """Rebuild a monitor.

        Args:
            grid: the stream's.
            baseline: int64 [cells].
            policy: the bounds.
            saved: :attr:`saved` after the last step.
            records: those from ``saved.first_index`` on, by index; of the excluded ones only the
                last ``policy.close_after`` matter.
        """
        monitor = cls(grid, baseline, policy)
        monitor.saved = saved
        monitor._records = list(records)
        monitor._refill()
        for record in monitor._records:
            if record.index >= saved.evidence_from and record.p_distance is not None:
                monitor._bet(record)
        return monitor


def merged_cells(records: list[Record]) -> Cells:
    """Counts of all of them together, int64 [cells]."""
    return np.asarray([r.cells for r in records], dtype=np.int64).sum(axis=0)


def as_pair(found: Score) -> tuple[float, float]:
    """Both scores as a tuple."""
    return found.distance, found.mean


def lag_one(values: list[float]) -> float:
    """Lag-1 autocorrelation, 0 for a constant."""
    centred = np.asarray(values) - np.mean(values)
    power = float(centred @ centred)
    return float(centred[1:] @ centred[:-1]) / power if power > 0 else 0.0
