"""What a large fleet of armed devices costs the collector, and what it takes to change its past.

    python benchmarks/collector_armed.py [--devices N …] [--write]

A site of ten devices is brought up as ``collector.py`` does it, 36 windows of 21 statistics each
through the collector's own intake, so that its streams are armed. Then it is copied in the
database, with all that was made of it, until there are N devices; each copy is what it would have
become from the same windows. What follows is the collector's own again, in one process:

*First* is a window from every device, in which each stream is read from the database; *then* one
more, which is the steady state; both in processor time a stream-window. *Retracted* is one device
with all its windows, and *undone* that again. *Pages* are what is read for the fleet's page.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import msgspec
import sqlalchemy as sa
from collector_fleet import A_SITE, LENGTH_MS, START_MS, Fleet
from collector_store import BATCH, open_store, resident_kb, take_in, timed
from page import setting, table, write_section
from sqlalchemy.engine import Connection

from edgeml.collector.store.fleet_tables import group_points, groups
from edgeml.collector.store.intake import Intake
from edgeml.collector.store.overview import standings
from edgeml.collector.store.retraction import retract, undo
from edgeml.collector.store.selection import Selection
from edgeml.collector.store.tables import (
    boots,
    count_rollups,
    counts,
    devices,
    outcome_rollups,
    streams,
    tests,
    tracks,
    windows,
)

WINDOWS = 36
"""Of each device, before it is copied: streams learned at 32, and do so again at 64."""
NUMBERED = {
    devices: ("id",),
    boots: ("device_id",),
    windows: ("id", "device_id"),
    counts: ("window_id",),
    count_rollups: ("device_id",),
    outcome_rollups: ("device_id",),
    streams: ("id", "device_id"),
    tracks: ("stream_id",),
    tests: ("stream_id", "window_id"),
    groups: ("id",),
    group_points: ("group_id",),
}
"""Columns that hold the number of a device, window, stream or group, in an order in which rows can
be added."""
OF = {"device_id": devices, "window_id": windows, "stream_id": streams, "group_id": groups}


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """A fleet."""

    devices: int
    first_us: float
    then_us: float
    memory_kb: float
    """Of a stream, in the writer's process."""
    retracted_s: float
    undone_s: float
    page_s: float


def copy_sites(connection: Connection, sites: int) -> None:
    """Have the first site as often as that, with its own devices."""
    highest = {
        of: connection.execute(sa.select(sa.func.max(of.c.id))).scalar_one()
        for of in (devices, windows, streams, groups)
    }
    for number in range(1, sites):
        for of, columns in NUMBERED.items():
            shifted = [
                column + number * highest[_owner(of, column.name)]
                if column.name in columns
                else _named(of, column, number)
                for column in of.c
            ]
            # Of the first site only, and what all devices of the version have in common once.
            query = sa.select(*shifted).where(of.c[columns[0]] <= highest[_owner(of, columns[0])])
            if of is group_points:
                query = query.join(groups, groups.c.id == group_points.c.group_id)
            if of in {groups, group_points}:
                query = query.where(groups.c.site == "site-0")
            connection.execute(sa.insert(of).from_select([c.name for c in of.c], query))


def _owner(of: sa.Table, column: str) -> sa.Table:
    """What the column numbers."""
    return OF.get(column, of)


def _named(of: sa.Table, column: sa.Column[Any], number: int) -> sa.ColumnElement[Any]:
    """The names of a copy: devices are numbered through, as the fleet's are."""
    if of in {devices, groups} and column.name == "site":
        return sa.literal(f"site-{number}")
    if of is devices and column.name == "device":
        last = sa.cast(sa.func.substr(column, len("device-") + 1), sa.Integer)
        return sa.literal("device-") + sa.cast(last + number * A_SITE, sa.Text)
    return column


def measure(number: int) -> Row:
    """One fleet."""
    site, fleet = Fleet(A_SITE), Fleet(number)
    with tempfile.TemporaryDirectory() as folder:
        intake = open_store(Path(folder) / "fleet.sqlite", site.baseline)
        send(intake, list(site.births()), START_MS)
        for slot in range(WINDOWS):
            send(intake, list(site.slot(slot)), START_MS + (slot + 1) * LENGTH_MS)
        intake.change(lambda connection, _: copy_sites(connection, number // A_SITE))
        before_kb = resident_kb()
        took = [
            send(intake, list(fleet.slot(slot)), START_MS + (slot + 1) * LENGTH_MS)
            for slot in (WINDOWS, WINDOWS + 1)
        ]
        memory_kb = resident_kb() - before_kb
        page_s = min(timed(lambda: intake.change(lambda c, _: standings(c))) for _ in range(2))
        chosen = Selection(device="device-0")

        def taken(connection: Connection, evaluator: object) -> object:
            return retract(
                connection,
                evaluator,  # type: ignore[arg-type]
                chosen,
                by="benchmark",
                why="",
                now_ms=START_MS,
            )

        retracted_s = timed(lambda: intake.change(taken))
        undone_s = timed(
            lambda: intake.change(lambda c, e: undo(c, e, 1, by="benchmark", now_ms=START_MS))
        )
    of_all = number * site.streams
    return Row(
        devices=number,
        first_us=1e6 * took[0] / of_all,
        then_us=1e6 * took[1] / of_all,
        memory_kb=memory_kb / of_all,
        retracted_s=retracted_s,
        undone_s=undone_s,
        page_s=page_s,
    )


def send(intake: Intake, payloads: list[tuple[str, bytes]], at_ms: int) -> float:
    """Take in what comes in a minute; seconds of the processor."""
    begin = time.process_time()
    for first in range(0, len(payloads), BATCH):
        take_in(intake, payloads[first : first + BATCH], at_ms)
    return time.process_time() - begin


def render(rows: list[Row]) -> str:
    """The table as Markdown."""
    names = (
        *("devices", "first, µs a stream-window", "then, µs", "memory, kB a stream"),
        *("a device retracted, s", "undone, s", "devices read for the fleet's page, s"),
    )
    lines = [
        (
            f"{row.devices:,}",
            f"{row.first_us:,.0f}",
            f"{row.then_us:,.0f}",
            f"{row.memory_kb:,.1f}",
            f"{row.retracted_s:.2f}",
            f"{row.undone_s:.2f}",
            f"{row.page_s:.2f}",
        )
        for row in rows
    ]
    return "\n\n".join((setting("numpy", "sqlalchemy", "msgspec"), table(names, lines)))


def main() -> None:
    """Measure, print, and write where that is wanted."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--devices", type=int, nargs="+", default=[100, 1000])
    parser.add_argument("--write", action="store_true", help="to docs/benchmarks.md, too")
    options = parser.parse_args()
    text = render([measure(devices) for devices in options.devices])
    print(text)
    if options.write:
        write_section("collector armed", text)


if __name__ == "__main__":
    main()
