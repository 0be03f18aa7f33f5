"""A collector's store that grows old under its keeper, by clocks that are set."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec
import sqlalchemy as sa

from edgeml.collector.keep.keeper import Keeper
from edgeml.collector.keep.rule import DAY_MS, HOUR_MS, Rule
from edgeml.collector.store import fleet_tables, tables
from edgeml.statistics import Counts, unpack
from edgeml.telemetry import Window
from support.devices import START_MS
from support.fleets import FleetStore

MIDNIGHT = START_MS - START_MS % DAY_MS
RULE = Rule(windows_days=2, hours_days=5, days_days=20)


class Aging:
    """A store that grows old: a keeper with clocks that are set.

    Args:
        kept: test windows that are kept whatever their age.
    """

    def __init__(self, store: FleetStore, *, rule: Rule = RULE, kept: int = 3) -> None:
        self.store = store
        self.seconds = 0.0
        self._rule, self._kept = rule, kept
        self.restart()

    def restart(self) -> None:
        self.store.restart()
        self.keeper = Keeper(
            self.store.engine,
            self.store.intake.judging,
            self._rule,
            kept=self._kept,
            clock=lambda: self.seconds,
        )

    def until(self, now_ms: int) -> None:
        """Time goes on to then, day by day as it does, with a pass of the keeper each."""
        while True:
            with self.store.engine.begin() as connection:
                seen = connection.execute(sa.select(fleet_tables.keeping.c.seen_ms)).scalar()
            today = now_ms if seen is None else min(seen + DAY_MS, now_ms)
            self.seconds += DAY_MS / 1000
            while self.keeper.step(today):
                pass
            if today >= now_ms:
                return

    def resolutions(self) -> dict[int, int]:
        """Windows by resolution, in hours."""
        w = tables.windows.c
        query = sa.select(w.resolution_ms, sa.func.count()).group_by(w.resolution_ms)
        with self.store.engine.begin() as connection:
            return {row[0] // HOUR_MS: row[1] for row in connection.execute(query)}


def at(window: Window, start_ms: int) -> Window:
    return msgspec.structs.replace(window, start_ms=start_ms)


def totals(store: FleetStore) -> dict[str, Any]:
    """What was counted, whatever its resolution: by the windows, and by the rollups."""
    w, c, r, o = tables.windows, tables.counts, tables.count_rollups, tables.outcome_rollups
    names = list(store.streams)
    found: dict[str, Any] = {"windows": {}, "rollups": {}}

    def add(what: str, key: tuple[int, str], packed: bytes) -> None:
        counts = unpack(packed, store.streams[key[1]].grid)
        total = found[what].get(key)
        found[what][key] = counts if total is None else total + counts

    with store.engine.begin() as connection:
        stored = sa.select(w.c.device_id, c.c.place, c.c.packed).join(w, w.c.id == c.c.window_id)
        for device, place, packed in connection.execute(stored.where(w.c.retraction_id.is_(None))):
            add("windows", (int(device), names[place]), packed)
        for row in connection.execute(sa.select(r)):
            add("rollups", (row.device_id, row.stream), row.packed)
        found["number"] = connection.execute(sa.select(sa.func.sum(w.c.merged))).scalar()
        found["rows"] = connection.execute(sa.select(sa.func.sum(w.c["rows"]))).scalar()
        requests = sa.select(o.c.device_id, o.c.outcome, sa.func.sum(o.c["count"]))
        requests = requests.group_by(o.c.device_id, o.c.outcome)
        found["requests"] = sorted(tuple(row) for row in connection.execute(requests))
    return found


def sums(counts: dict[Any, Counts]) -> dict[Any, Any]:
    return {key: (each.cells.tolist(), each.sums.tolist()) for key, each in counts.items()}


def spread(windows: Iterable[Window], *, step_ms: int = 20 * 60_000) -> list[Window]:
    return [at(window, MIDNIGHT + step_ms * slot) for slot, window in enumerate(windows)]
