"""What a device's peers saw in the same stretch of time, and what all of them saw together.

Windows of many devices arrive asynchronously, by clocks of their own, some late. Time is cut into
*slots* (:func:`slot_length`, start divided by it), and a :class:`Peers` keeps the scores of the
last few slots of one *series*: one statistic of one model version. It answers two questions:

* :meth:`Peers.common`: the median of the *other* devices of the site, or of all devices of the
  version where the site never had enough; a site that has fallen silent is not replaced by the
  version, which would be another thing to be compared with. Subtracted from a device's score it
  leaves what is the device's own: seasons and weather are seen by all.
* :meth:`Peers.add` returns, once a slot is complete, the median of a whole site and of a whole
  version: a point of a *group stream*, so that what all see is raised once, not once a device.

Pure, and restart-safe: what is kept depends only on which scores were added and which points were
emitted last (``emitted``), so it is rebuilt by adding the stored scores again.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from math import isfinite
from statistics import median

import msgspec

Scores = tuple[float, ...]
"""Finite numbers, as many for each window of a series; their order is the caller's."""

SITE_PEERS = 3
"""Devices whose median stands for a site, at least: of two, one is half of it."""

VERSION_PEERS = 5
"""Devices whose median stands for a version, at least: they share less than those of a site."""

KEPT_SLOTS = 4
"""Slots that are remembered: this one, the last, and two for what comes late."""

WAIT_SLOTS = 2
"""A slot is complete this many slots later, whoever is still missing."""

_LENGTHS_S = (
    *(1, 2, 5, 10, 15, 20, 30, 60, 120, 300, 600, 900, 1200, 1800, 3600),
    *(7200, 10_800, 21_600, 43_200, 86_400),
)


@lru_cache(maxsize=4096)
def slot_length(duration_ms: int) -> int:
    """The usual length next to a measured one, in ms: a window of 60,003 ms is one of a minute.

    A device measures its windows, and nobody's two are equally long to the millisecond.
    """
    seconds = max(duration_ms, 1) / 1000
    return 1000 * min(_LENGTHS_S, key=lambda length: max(length, seconds) / min(length, seconds))


def comparable(scores: Scores) -> bool:
    """Whether they have a place among others': those of a window without any value have not."""
    return all(map(isfinite, scores))


class Device(msgspec.Struct, frozen=True):
    """Who reports. ``id`` is unique in the fleet."""

    site: str
    id: int


class Point(msgspec.Struct, frozen=True, kw_only=True):
    """One slot of a group stream."""

    site: str
    """Empty: all devices of the version."""
    slot: int
    devices: int
    """How many had reported."""
    scores: Scores
    """Their median, component by component."""

    @classmethod
    def of(cls, site: str, slot: int, scores: Sequence[Scores]) -> Point:
        """The point of all devices that reported in a slot, at least one."""
        middle = tuple(median(column) for column in zip(*scores, strict=True))
        return cls(site=site, slot=slot, devices=len(scores), scores=middle)


class _Bag:
    """The scores of one group in one slot, sorted by component."""

    __slots__ = ("_columns", "scores")

    def __init__(self) -> None:
        self.scores: dict[int, Scores] = {}
        self._columns: tuple[list[float], ...] = ()

    def add(self, device: int, scores: Scores) -> None:
        self.remove(device)
        if not self._columns:
            self._columns = tuple([] for _ in scores)
        self.scores[device] = scores
        for column, value in zip(self._columns, scores, strict=True):
            insort(column, value)

    def remove(self, device: int) -> None:
        """Forget a device; it need not be there."""
        old = self.scores.pop(device, None)
        for column, value in zip(self._columns, old or (), strict=bool(old)):
            del column[bisect_left(column, value)]

    def others(self, device: int) -> int:
        return len(self.scores) - (device in self.scores)

    def median(self, *, without: int | None = None) -> Scores:
        """Of each component, over all or all but one device; there has to be one left."""
        own = self.scores.get(without) if without is not None else None
        skipped = own or (None,) * len(self._columns)
        return tuple(map(_median, self._columns, skipped))


def _median(ascending: list[float], without: float | None) -> float:
    skipped = len(ascending) if without is None else bisect_left(ascending, without)
    count = len(ascending) - (without is not None)
    low, high = (count - 1) // 2, count // 2
    return (ascending[low + (low >= skipped)] + ascending[high + (high >= skipped)]) / 2


class Peers:
    """One series of a fleet.

    Args:
        emitted: the slot of the last point of each group, by site (empty: the version), of an
            earlier life.
        members: devices that were ever heard, of an earlier life.
    """

    def __init__(
        self, emitted: Mapping[str, int] | None = None, members: Iterable[Device] = ()
    ) -> None:
        self.emitted: dict[str, int] = dict(emitted or {})
        self._members: dict[str, set[int]] = {}
        for device in members:
            self._members.setdefault(device.site, set()).add(device.id)
        self._bags: dict[str, dict[int, _Bag]] = {"": {}}
        self._slots: dict[Device, list[int]] = {}
        self._newest: Counter[int] = Counter()
        """Devices by the last slot that they have reported in."""

    def __len__(self) -> int:
        """Windows that are remembered: at most :data:`KEPT_SLOTS` a device."""
        return sum(len(bag.scores) for bag in self._bags[""].values())

    @property
    def frontier(self) -> int | None:
        """The slot that the fleet has come to: three devices at least are there or beyond, so that
        no single clock that is ahead takes the others with it. None before there are three."""
        devices = 0
        for slot in sorted(self._newest, reverse=True):
            devices += self._newest[slot]
            if devices >= SITE_PEERS:
                return slot
        return None

    def restore(self, scores: Iterable[tuple[Device, int, Scores]]) -> None:
        """Add what was added in an earlier life; it gives no points, they have been emitted."""
        for device, slot, found in scores:
            self._keep(device, slot, found)
        self._prune(self.frontier)

    def common(self, device: Device, slot: int) -> Scores | None:
        """The median of the device's peers: of its site where that has enough devices, else of the
        version; in this slot where enough have reported, else in the one before; else None."""
        enough = len(self._members.get(device.site, set()) - {device.id}) >= SITE_PEERS
        site, least = (device.site, SITE_PEERS) if enough else ("", VERSION_PEERS)
        for at in (slot, slot - 1):
            bag = self._bags.get(site, {}).get(at)
            if bag is not None and bag.others(device.id) >= least:
                return bag.median(without=device.id)
        return None

    def add(self, device: Device, slot: int, scores: Scores) -> list[Point]:
        """Take in a window's scores; the points of the group streams that are due now.

        A second window of a device in the same slot takes the place of the first. One that is more
        than :data:`KEPT_SLOTS` late comes too late.
        """
        before = self.frontier
        if before is not None and slot <= before - KEPT_SLOTS:
            return []
        self._keep(device, slot, scores)
        frontier = self.frontier
        if frontier is None:
            return []
        moved = frontier != before
        sites = set(self._bags) if moved else {device.site, ""}
        points = [point for site in sorted(sites) for point in self._due(site, frontier)]
        if moved:
            self._prune(frontier)
        return points

    def _keep(self, device: Device, slot: int, scores: Scores) -> None:
        self._members.setdefault(device.site, set()).add(device.id)
        slots = self._slots.setdefault(device, [])
        if not slots or slot > slots[-1]:
            self._leaves(slots[-1:])
            self._newest[slot] += 1
        if slot not in slots:
            insort(slots, slot)
        for site in (device.site, ""):
            self._bags.setdefault(site, {}).setdefault(slot, _Bag()).add(device.id, scores)
        if len(slots) > KEPT_SLOTS:
            self._drop(device, slots.pop(0))

    def _drop(self, device: Device, slot: int) -> None:
        for site in (device.site, ""):
            bag = self._bags[site][slot]
            bag.remove(device.id)
            if not bag.scores:
                del self._bags[site][slot]

    def _leaves(self, newest: Sequence[int]) -> None:
        """A device's last slot, if it has one, is its last no more."""
        for slot in newest:
            self._newest[slot] -= 1
            if not self._newest[slot]:
                del self._newest[slot]

    def _due(self, site: str, frontier: int) -> Iterable[Point]:
        least = SITE_PEERS if site else VERSION_PEERS
        for slot, bag in sorted(self._bags.get(site, {}).items()):
            if len(bag.scores) < least or slot <= self.emitted.get(site, slot - 1):
                continue
            if not self._complete(site, slot, frontier):
                return
            self.emitted[site] = slot
            yield Point(site=site, slot=slot, devices=len(bag.scores), scores=bag.median())

    def _complete(self, site: str, slot: int, frontier: int) -> bool:
        """Whether all that were there in the slot before are there, or it is late enough."""
        if frontier >= slot + WAIT_SLOTS:
            return True
        earlier, now = (self._bags[site].get(at) for at in (slot - 1, slot))
        return bool(earlier and now and earlier.scores.keys() <= now.scores.keys())

    def _prune(self, frontier: int | None) -> None:
        if frontier is None:
            return
        for device, slots in list(self._slots.items()):
            last = slots[-1:]
            while slots and slots[0] <= frontier - KEPT_SLOTS:
                self._drop(device, slots.pop(0))
            if not slots:
                self._leaves(last)
                del self._slots[device]
