"""The life of a group stream: what a whole site, or all devices of a version, saw together.

A group's point is a median of its devices' scores, one a slot (:mod:`edgeml.collector.drift.peers`)
and is monitored as a device's window is: collected for a reference, ranked among all before it, and
an alarm when the evidence reaches its threshold and the shift is worth it. There are no counts
behind it, so how far it moved is the difference of medians.

Pure, and rebuilt from its records, as :mod:`edgeml.collector.drift.monitor` is.
"""

from __future__ import annotations

from collections.abc import Iterable
from statistics import median
from typing import Literal

import msgspec

from edgeml.collector.drift.conformal import Ranks, uniform
from edgeml.collector.drift.evidence import Evidence
from edgeml.collector.drift.monitor import Policy, lag_one
from edgeml.collector.drift.peers import Point, Scores


class GroupRecord(msgspec.Struct, kw_only=True):
    """A point as it is stored."""

    slot: int
    start_ms: int
    devices: int
    scores: Scores
    role: Literal["collected", "reference", "excluded"] = "collected"
    ps: tuple[float, ...] = ()
    """Conformal p-values, two directions a component; none before the stream was armed."""
    before: int = 0
    """Points that it was ranked among."""
    evidence: float | None = None


class GroupSaved(msgspec.Struct, kw_only=True):
    """What a monitor is rebuilt from beside its records."""

    armed: bool = False
    first_slot: int = 0
    """Records before it are history."""
    evidence_from: int = 0
    """Evidence started anew at this slot."""
    in_alarm: bool = False
    reason: str = ""
    """Why the stream is not armed."""


def rebaselined(last_slot: int) -> GroupSaved:
    """A monitor whose reference and evidence start anew after its last slot."""
    return GroupSaved(first_slot=last_slot + 1, evidence_from=last_slot + 1)


class GroupStep(msgspec.Struct, kw_only=True):
    """What came of a point."""

    records: list[GroupRecord]
    """To be inserted, or replaced where the slot is there already."""
    opened: bool = False
    closed: bool = False
    shift: Scores = ()
    """With ``opened``: medians since the estimated change less those of the reference."""
    since_ms: int = 0
    """With ``opened``: start of the first slot since the estimated change."""


class GroupMonitor:
    """One group stream.

    Args:
        least: how far each component has to move to be worth an alarm, as
            :func:`edgeml.collector.drift.moments.least_moments` has it.
        policy: of the reference and of closing.
    """

    def __init__(self, least: Scores, policy: Policy) -> None:
        self.policy = policy
        self.saved = GroupSaved()
        self._least = least
        self._records: list[GroupRecord] = []
        self._start_anew()

    def _start_anew(self) -> None:
        self._ranks = tuple(Ranks() for _ in self._least)
        self._evidence = Evidence(2 * len(self._least))

    @property
    def phase(self) -> Literal["collecting", "armed", "alarm"]:
        """Where in its life the stream is."""
        if self.saved.in_alarm:
            return "alarm"
        return "armed" if self.saved.armed else "collecting"

    @property
    def evidence(self) -> float:
        """R now."""
        return self._evidence.value

    @property
    def reference_size(self) -> int:
        """Points in the reference, or collected for it."""
        return len(self._ranks[0]) if self.saved.armed else len(self._records)

    def step(self, point: Point, *, start_ms: int, key: str, threshold: float) -> GroupStep:
        """Take in the point of the next slot.

        Args:
            point: of a later slot than any before.
            start_ms: of the slot.
            key: names stream and slot, the same in every replay; breaks ties.
            threshold: evidence that makes an alarm.
        """
        record = GroupRecord(
            slot=point.slot, start_ms=start_ms, devices=point.devices, scores=point.scores
        )
        self._records.append(record)
        match self.phase:
            case "collecting":
                return self._collect(record)
            case "armed":
                return self._watch(record, key, threshold)
            case "alarm":
                return self._wait_for_recovery(record)

    def _collect(self, record: GroupRecord) -> GroupStep:
        wanted, count = self.policy.reference, len(self._records)
        if count % wanted:
            self.saved.reason = f"{count % wanted} of {wanted} reference slots"
            return GroupStep(records=[record])
        columns = zip(*(r.scores for r in self._records), strict=True)
        worst = max(abs(lag_one(list(column))) for column in columns)
        limit = max(0.3, 3 / count**0.5)
        if worst > limit:
            self.saved.reason = (
                f"the slots depend on each other (lag-1 correlation {worst:.2f}, at most "
                f"{limit:.2f} is taken)"
            )
            self._drop_oldest(count - 3 * wanted)
            return GroupStep(records=[record])
        self.saved.armed, self.saved.reason = True, ""
        self.saved.evidence_from = record.slot + 1
        for taken in self._records:
            self._join(taken)
        return GroupStep(records=list(self._records))

    def _watch(self, record: GroupRecord, key: str, threshold: float) -> GroupStep:
        record.before = len(self._ranks[0])
        up = [
            ranks.p_value(score, uniform(key, n))
            for n, (ranks, score) in enumerate(zip(self._ranks, record.scores, strict=True))
        ]
        record.ps = (*up, *(1 - p for p in up))
        record.evidence = self._evidence.update(record.ps, record.before)
        self._join(record)
        if record.evidence < threshold:
            self._let_go()
            return GroupStep(records=[record])
        changed = self._records[-self._evidence.windows_since_change :]
        shift = self._shift(changed)
        if not self._worth_it(shift):
            return GroupStep(records=[record])
        self.saved.in_alarm = True
        self.saved.evidence_from = record.slot + 1
        for old in changed:
            old.role = "excluded"
        self._refill()
        return GroupStep(records=changed, opened=True, shift=shift, since_ms=changed[0].start_ms)

    def _wait_for_recovery(self, record: GroupRecord) -> GroupStep:
        record.role = "excluded"
        self.saved.evidence_from = record.slot + 1
        recent = self._excluded()[-self.policy.close_after :]
        keep = {r.slot for r in recent}
        self._records = [r for r in self._records if r.role != "excluded" or r.slot in keep]
        closed = len(recent) == self.policy.close_after and not self._worth_it(self._shift(recent))
        if closed:
            self.saved.in_alarm = False
        return GroupStep(records=[record], closed=closed)

    def _excluded(self) -> list[GroupRecord]:
        return [r for r in self._records if r.role == "excluded"]

    def _shift(self, changed: list[GroupRecord]) -> Scores:
        """Medians of ``changed`` less those of the rest of the reference."""
        slots = {r.slot for r in changed}
        rest = [r for r in self._records if r.role == "reference" and r.slot not in slots]
        now, then = (
            [median(column) for column in zip(*(r.scores for r in records), strict=True)]
            for records in (changed, rest)
        )
        return tuple(a - b for a, b in zip(now, then, strict=True))

    def _worth_it(self, shift: Scores) -> bool:
        return any(abs(s) >= least for s, least in zip(shift, self._least, strict=True))

    def _join(self, record: GroupRecord) -> None:
        record.role = "reference"
        for ranks, score in zip(self._ranks, record.scores, strict=True):
            ranks.add(score)

    def _let_go(self) -> None:
        """Keep the reference within its bound: the youngest quarter of it starts a new one."""
        if len(self._ranks[0]) <= self.policy.longest_reference:
            return
        self._drop_oldest(len(self._records) - self.policy.longest_reference // 4)
        self.saved.evidence_from = self._records[-1].slot + 1
        self._refill()

    def _drop_oldest(self, count: int) -> None:
        if count > 0:
            del self._records[:count]
            self.saved.first_slot = self._records[0].slot

    def _refill(self) -> None:
        """Fill the reference from the records that belong to it, with evidence starting anew."""
        self._start_anew()
        for record in self._records:
            if record.role == "reference":
                self._join(record)

    @classmethod
    def restore(
        cls, least: Scores, policy: Policy, saved: GroupSaved, records: Iterable[GroupRecord]
    ) -> GroupMonitor:
        """Rebuild a monitor from ``saved`` after its last step and its records by slot, those from
        ``saved.first_slot`` on."""
        monitor = cls(least, policy)
        monitor.saved = saved
        monitor._records = list(records)
        keep = {r.slot for r in monitor._excluded()[-policy.close_after :]}
        monitor._records = [r for r in monitor._records if r.role != "excluded" or r.slot in keep]
        monitor._refill()
        for record in monitor._records:
            if record.slot >= saved.evidence_from and record.ps:
                monitor._evidence.update(record.ps, record.before)
        return monitor
