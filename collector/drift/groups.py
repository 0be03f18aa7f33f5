"""The life of a group stream: what a whole site, or all devices of a version, saw together.

A group's point is a median of its devices' scores, one a slot
(:mod:`edgeml.collector.drift.peers`). The points are a
:class:`~edgeml.collector.drift.track.Track` as a device's windows are, and an alarm when the
evidence reaches its threshold and the shift is worth it. There are no counts behind it, so how far
it moved is the difference of medians.

Pure; goes on from its :attr:`GroupMonitor.saved` and its track's state.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median
from typing import Literal, Protocol

import msgspec
import numpy as np

from edgeml.collector.drift import track
from edgeml.collector.drift.monitor import USUAL
from edgeml.collector.drift.peers import Point, Scores
from edgeml.collector.drift.policy import Policy
from edgeml.collector.drift.ranks import uniform
from edgeml.collector.drift.scores import DIRECTIONS
from edgeml.collector.drift.track import Track, TrackState


class GroupSaved(msgspec.Struct, kw_only=True):
    """What a monitor is rebuilt from, beside the state of its track."""

    least: Scores
    """How far each score has to move to be worth an alarm."""
    in_alarm: bool = False
    recent: list[Scores] = []
    """While in alarm: how far from usual the last points lie."""


class GroupStep(msgspec.Struct, kw_only=True):
    """What came of a point."""

    point: track.Point
    """To be stored; its index is the slot."""
    opened: bool = False
    closed: bool = False
    excluded_from: int | None = None
    """Points of this slot and later ones are no part of the reference any more."""
    shift: Scores = ()
    """With ``opened``: medians since the estimated change less those of the reference."""
    since_ms: int = 0
    """With ``opened``: start of the first slot since the estimated change."""


class GroupSource(Protocol):
    """The stored past of one group; asked only when something is to be learned or judged."""

    def points(self, limit: int) -> Sequence[track.Point]:
        """The last points that are not excluded, the oldest first."""
        ...


class GroupMonitor:
    """One group stream.

    Args:
        saved: with ``least``, and what else an earlier life left.
        policy: of the reference and of closing.
        state: of the track.
    """

    def __init__(self, saved: GroupSaved, policy: Policy, state: TrackState | None = None) -> None:
        self.policy = policy
        self.saved = saved
        self._directions = DIRECTIONS[len(saved.least)]
        self.track = Track(self._directions, policy.of_rung(1), state)

    @property
    def phase(self) -> Literal["collecting", "armed", "alarm"]:
        """Where in its life the stream is."""
        if self.saved.in_alarm:
            return "alarm"
        return "armed" if self.track.armed else "collecting"

    @property
    def reason(self) -> str:
        """Why the stream is not armed."""
        wanted = f"{self.track.state.count} of {self.policy.reference} reference slots"
        return "" if self.track.armed else self.track.state.reason or wanted

    @property
    def evidence(self) -> float:
        """R now."""
        return self.track.evidence

    @property
    def reference_size(self) -> int:
        """Points in the reference, or collected for it."""
        return self.track.state.before if self.track.armed else self.track.state.count

    def step(
        self, point: Point, *, start_ms: int, key: str, threshold: float, source: GroupSource
    ) -> GroupStep:
        """Take in the point of the next slot.

        Args:
            point: of a later slot than any before.
            start_ms: of the slot.
            key: names stream and slot, the same in every replay; breaks ties.
            threshold: evidence that makes an alarm.
            source: the group's past.
        """
        seed = int(uniform(key, "ties") * 2**48)
        taken = track.Point(
            index=point.slot, start_ms=start_ms, seed=seed, scores=list(point.scores)
        )
        step = GroupStep(point=taken)
        if self.saved.in_alarm:
            self._wait_for_recovery(step, source)
            return step
        longest = self.policy.longest_reference
        self.track.step(taken, lambda: _with(source.points(longest), taken))
        if self.track.armed and self.evidence >= threshold:
            self._judge(step, source)
        return step

    def restart(self, source: GroupSource) -> None:
        """End an alarm, and begin evidence anew, on the reference that is stored."""
        self.saved.in_alarm = False
        self.saved.recent = []
        points = source.points(self.policy.longest_reference)
        self.track = Track(self._directions, self.policy.of_rung(1))
        self.track.state.count = len(points)
        self.track.learn(points)

    def _judge(self, step: GroupStep, source: GroupSource) -> None:
        points = _with(source.points(self.policy.longest_reference), step.point)
        since = min(self.track.windows_since_change, len(points) - 1)
        rest, changed = points[:-since], points[-since:]
        step.shift = tuple(a - b for a, b in zip(_middle(changed), _middle(rest), strict=True))
        worth = zip(step.shift, self.saved.least, strict=True)
        if not any(abs(moved) >= least for moved, least in worth):
            return
        self.saved.in_alarm = True
        step.opened = True
        step.excluded_from, step.since_ms = changed[0].index, changed[0].start_ms

    def _wait_for_recovery(self, step: GroupStep, source: GroupSource) -> None:
        step.excluded_from = step.point.index
        residuals = tuple(self.track.residuals(step.point))
        self.saved.recent = [*self.saved.recent, residuals][-self.policy.close_after :]
        if len(self.saved.recent) < self.policy.close_after:
            return
        if (np.abs(np.mean(self.saved.recent, axis=0)) < USUAL).all():
            step.closed = True
            self.restart(source)


def windows(state: TrackState, *, in_alarm: bool, last_slot: int) -> int:
    """What R of a group has as its mean, at most, where nothing changed: the points since the
    evidence began, and all slots since the alarm that holds it as it was.

    Args:
        state: of the group's track.
        in_alarm: whether an alarm is open.
        last_slot: of the group's last point.
    """
    waited = last_slot - state.through if in_alarm and state.through is not None else 0
    return state.windows + waited


def _with(stored: Sequence[track.Point], newest: track.Point) -> list[track.Point]:
    """The stored points and the newest, which may not be stored yet."""
    return [*(p for p in stored if p.index != newest.index), newest]


def _middle(points: Sequence[track.Point]) -> Scores:
    return tuple(median(column) for column in zip(*(p.scores for p in points), strict=True))
