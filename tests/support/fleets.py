"""A store without a broker: what the writer's thread does to it, window by window."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from edgeml.bundle import open_bundle
from edgeml.collector.config import AlarmConfig
from edgeml.collector.ingest.validate import Received
from edgeml.collector.store import fleet_tables, tables
from edgeml.collector.store.database import open_database
from edgeml.collector.store.evaluation import Evaluator
from edgeml.collector.store.intake import Intake
from edgeml.collector.store.queries import Reader
from edgeml.collector.store.retraction import retract, undo
from edgeml.collector.store.selection import Selection
from edgeml.collector.views import RetractionView
from edgeml.statistics import Counts, unpack
from edgeml.telemetry import Status, Topic, Window
from support.devices import START_MS, Source

ALARMS = AlarmConfig(reference_windows=20, per_windows=2000, season="none")

TABLES_4 = Path(__file__).parent / "schemas" / "collector-4.sql"

LUMA = "input.image.luma_mean"
MEAN = "input.image.mean"
"""Of a bundle with few statistics, what is nearest to it."""
HALL = [f"hall/cam-{n}" for n in range(4)]
YARD = [f"yard/cam-{n}" for n in range(4)]


def fleet(bundle: Path, names: list[str]) -> dict[str, Source]:
    """A source of windows for each."""
    return {name: Source(bundle, seed=n) for n, name in enumerate(names, start=1)}


class FleetStore:
    """A database with the bundle in it, and what the writer's thread does to it."""

    def __init__(
        self, path: Path, bundle: Path, *, known: bool = True, alarms: AlarmConfig = ALARMS
    ) -> None:
        self.path, self.alarms = path, alarms
        baseline = open_bundle(bundle).baseline()
        assert baseline is not None
        self.streams = baseline.streams
        self.open()
        if known:
            self.intake.add_bundle(open_bundle(bundle), size=1, now_ms=1)

    def open(self) -> None:
        self.engine = open_database(str(self.path))
        self.intake = Intake(self.engine, Evaluator(self.alarms.policy, self.alarms.budget))
        self.reader = Reader(self.engine)

    def restart(self) -> None:
        self.engine.dispose()
        self.open()

    def send(self, *sent: tuple[str, Window | Status]) -> None:
        """As ``("hall/cam", window)``, all in one batch."""
        batch: list[Received] = []
        for name, message in sent:
            site, device = name.split("/")
            if isinstance(message, Window):
                topic = Topic(site, device, "stats", message.model)
                batch.append(Received(topic, message, message.start_ms + 1000))
            else:
                batch.append(Received(Topic(site, device, "status", ""), message, START_MS))
        if batch:
            self.intake.store(batch)

    def retract(self, **selection: Any) -> RetractionView:
        wanted = Selection(**selection)
        return self.intake.change(
            lambda connection, evaluator: retract(
                connection, evaluator, wanted, by="ann", why="wet lens", now_ms=START_MS
            )
        )

    def undo(self, number: int) -> RetractionView:
        return self.intake.change(
            lambda connection, evaluator: undo(
                connection, evaluator, number, by="bob", now_ms=START_MS
            )
        )

    def contents(self) -> dict[str, Any]:
        """All that counts: rollups, evidence and alarms that stand, but for the numbers of rows."""
        c, o = tables.count_rollups.c, tables.outcome_rollups.c
        g, p = fleet_tables.groups.c, fleet_tables.group_points.c
        with self.engine.begin() as connection:

            def rows(*columns: Any) -> list[tuple[Any, ...]]:
                return sorted(tuple(row) for row in connection.execute(sa.select(*columns)))

            found: dict[str, Any] = {
                "counts": [
                    (*key, *_sums(unpack(packed, self.streams[key[1]].grid)))
                    for *key, packed in rows(c.device_id, c.stream, c.hour_ms, c.windows, c.packed)
                ],
                "outcomes": rows(o.device_id, o.hour_ms, o.outcome, o["count"]),
                "groups": rows(g.site, g.stream, g.phase, g.evidence),
                "points": rows(p.start_ms, p.scores, p.role),
            }
        found["streams"] = [
            (
                f"{s.site}/{s.device}",
                s.stream,
                s.phase,
                s.reference,
                s.evidence,
                s.offset_js,
                s.last,
            )
            for s in self.reader.streams()
            if s.reference
        ]
        found["alarms"] = [
            (f"{a.site}/{a.device}", a.stream, a.since_ms, a.open)
            for a in self.reader.alarms()
            if a.reason != "retracted"
        ]
        return found


def _sums(counts: Counts) -> tuple[list[int], list[int]]:
    """All that adds and subtracts; extremes are bounds after a subtraction."""
    return counts.cells.tolist(), counts.sums.tolist()


def phases(store: FleetStore, stream: str = LUMA) -> dict[str, str]:
    """Phase of each group of a statistic, by site."""
    g = fleet_tables.groups.c
    with store.engine.begin() as connection:
        rows = connection.execute(sa.select(g.site, g.phase).where(g.stream == stream)).all()
    return {row.site: row.phase for row in rows}


def as_schema(path: Path, schema: int) -> None:
    """Make a store's file what an older edgeml would have made of the same windows: the tables of
    schema 3 or 4, with all that today's have of their columns; pages of such a file cannot be given
    back."""
    older = path.with_suffix(".older")
    with closing(sqlite3.connect(older)) as database:
        database.executescript(TABLES_4.read_text())
        database.execute("ATTACH ? AS today", [str(path)])
        for (table,) in database.execute("SELECT name FROM main.sqlite_master WHERE type='table'"):
            rows = database.execute(f"PRAGMA table_info('{table}')").fetchall()
            columns = ", ".join(f'"{row[1]}"' for row in rows)
            database.execute(
                f'INSERT INTO main."{table}" ({columns}) SELECT {columns} FROM today."{table}"'
            )
        database.execute("UPDATE main.schema SET version = ?", [schema])
        database.commit()
    older.replace(path)
