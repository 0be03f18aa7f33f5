"""The tables, in SQLAlchemy Core: SQLite by default, and nothing in them that PostgreSQL would
refuse.

Times are Unix milliseconds, counts as :func:`edgeml.statistics.pack` makes them, the cells of tests
MessagePack arrays of integers, records JSON text.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
)

SCHEMA = 6
"""Of the tables; a database with another one is refused, but for :data:`TAKEN_OVER`. 1 and 2 held
counts on grids, and bundles with baselines, that are no longer read."""

TAKEN_OVER = (3, 4, 5)
"""They lack what :mod:`edgeml.collector.store.takeover` adds, but for 5. 3 held the state of each
track as of its last window, which may lie some windows back now, and all counts packed plainly; up
to 5 counts were packed as windows of schema 3 have them. All of it is read as ever. Once it is
opened it is of this schema, lest an edgeml that knows none of it opens it again."""

metadata = MetaData()

# SQLite numbers rows by itself only for a column that is called exactly INTEGER.
Id = BigInteger().with_variant(Integer, "sqlite")

schema = Table("schema", metadata, Column("version", Integer, primary_key=True))

bundles = Table(
    "bundles",
    metadata,
    Column("sha256", Text, primary_key=True),
    Column("name", Text, nullable=False),
    Column("version", Text, nullable=False),
    Column("added_ms", BigInteger, nullable=False),
    Column("bytes", BigInteger, nullable=False),
    Column("manifest", LargeBinary, nullable=False),
    Column("baseline", LargeBinary),  # null: exported without calibration data
)

devices = Table(
    "devices",
    metadata,
    Column("id", Id, primary_key=True),
    Column("site", Text, nullable=False),
    Column("device", Text, nullable=False),
    Column("first_seen_ms", BigInteger, nullable=False),
    Column("last_seen_ms", BigInteger),
    Column("online", Boolean, nullable=False, default=False),
    Column("status", Text),
    Column("reported", Text),
    UniqueConstraint("site", "device"),
)

boots = Table(
    "boots",
    metadata,
    Column("device_id", Id, ForeignKey("devices.id"), primary_key=True),
    Column("boot", Text, primary_key=True),
    Column("through", BigInteger, nullable=False),  # the high-water mark
    Column("agent", Text, nullable=False, server_default=""),  # its version, as the birth said
    # The highest sequence of a window that was merged: at and below it nothing is new.
    Column("merged", BigInteger, nullable=False, server_default="0"),
)

windows = Table(
    "windows",
    metadata,
    Column("id", Id, primary_key=True),
    Column("device_id", Id, ForeignKey("devices.id"), nullable=False),
    Column("boot", Text, nullable=False),
    Column("sequence", BigInteger, nullable=False),
    Column("model", Text, nullable=False),
    Column("version", Text, nullable=False),
    Column("start_ms", BigInteger, nullable=False),
    Column("artifact", Text, nullable=False),
    Column("bundle", Text, nullable=False),
    Column("duration_ms", BigInteger, nullable=False),
    Column("rows", BigInteger, nullable=False),
    # Windows that the device added up to this one.
    Column("merged", BigInteger, nullable=False, server_default="1"),
    Column("outcomes", Text, nullable=False),
    Column("baseline", Text, nullable=False),  # hash of the one that its counts are on
    Column("received_ms", BigInteger, nullable=False),
    Column("evaluated", Boolean, nullable=False),
    Column("refused", Text),  # why its counts were not taken; it is settled all the same
    Column("retraction_id", BigInteger),  # taken back: it counts nowhere, and is kept
    # 0: as it came; else all that came in this time, merged when they grew old.
    Column("resolution_ms", BigInteger, nullable=False, server_default="0"),
    UniqueConstraint("device_id", "boot", "sequence", "model", "version", "start_ms"),
)
Index("windows_waiting", windows.c.evaluated, windows.c.bundle, windows.c.id)
Index("windows_by_age", windows.c.resolution_ms, windows.c.received_ms)
Index("windows_by_start", windows.c.device_id, windows.c.start_ms)
_refused = windows.c.refused.is_not(None)
Index(
    "windows_refused",
    windows.c.device_id,
    windows.c.refused,
    sqlite_where=_refused,
    postgresql_where=_refused,
)

# Statistics of a window whose evaluation failed: counted, and not judged yet.
unjudged = Table(
    "unjudged",
    metadata,
    Column("window_id", Id, ForeignKey("windows.id"), primary_key=True),
    Column("stream", Text, primary_key=True),  # empty: all of them
    Column("reason", Text, nullable=False),
    Column("start", Text, nullable=False),  # of the collector that tried last
    Column("edgeml", Text, nullable=False),  # its version
)

# What a window's statistics came to, as the device packed them: by their place among the streams of
# the bundle's baseline, whose names are known once the bundle is.
counts = Table(
    "counts",
    metadata,
    Column("window_id", Id, ForeignKey("windows.id"), primary_key=True),
    Column("place", Integer, primary_key=True),
    Column("packed", LargeBinary, nullable=False),
)

outcome_rollups = Table(
    "outcome_rollups",
    metadata,
    Column("device_id", Id, ForeignKey("devices.id"), primary_key=True),
    Column("model", Text, primary_key=True),
    Column("version", Text, primary_key=True),
    Column("hour_ms", BigInteger, primary_key=True),
    Column("outcome", Text, primary_key=True),
    Column("count", BigInteger, nullable=False),
)

count_rollups = Table(
    "count_rollups",
    metadata,
    Column("device_id", Id, ForeignKey("devices.id"), primary_key=True),
    Column("model", Text, primary_key=True),
    Column("version", Text, primary_key=True),
    Column("stream", Text, primary_key=True),
    Column("grid", Text, primary_key=True),
    Column("hour_ms", BigInteger, primary_key=True),
    Column("windows", BigInteger, nullable=False),
    Column("packed", LargeBinary, nullable=False),
)

# Days whose rollups are merged: one row a day, with the day's start in the place of its hour.
merged_days = Table(
    "merged_days",
    metadata,
    Column("device_id", Id, ForeignKey("devices.id"), primary_key=True),
    Column("model", Text, primary_key=True),
    Column("version", Text, primary_key=True),
    Column("day_ms", BigInteger, primary_key=True),
)

streams = Table(
    "streams",
    metadata,
    Column("id", Id, primary_key=True),
    Column("device_id", Id, ForeignKey("devices.id"), nullable=False),
    Column("model", Text, nullable=False),
    Column("version", Text, nullable=False),
    Column("artifact", Text, nullable=False),
    Column("stream", Text, nullable=False),
    Column("grid", Text, nullable=False),
    Column("bundle", Text, nullable=False),
    Column("saved", LargeBinary, nullable=False),
    Column("phase", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("reference", Integer, nullable=False),  # test windows in the reference
    Column("offset_js", Float),  # excess JS of the reference against the baseline, bits
    Column("evidence", Float, nullable=False),
    Column("windows", BigInteger, nullable=False),  # the mean of the evidence, at most
    Column("threshold", Float, nullable=False),
    Column("last_ms", BigInteger, nullable=False),
    Column("stuck", Text, nullable=False, server_default="{}"),  # repeats of the last window
    UniqueConstraint("device_id", "model", "version", "artifact", "stream", "grid"),
)

tracks = Table(
    "tracks",
    metadata,
    Column("stream_id", Id, ForeignKey("streams.id"), primary_key=True),
    Column("rung", Integer, primary_key=True),
    Column("state", LargeBinary, nullable=False),
)

tests = Table(
    "tests",
    metadata,
    Column("stream_id", Id, ForeignKey("streams.id"), primary_key=True),
    Column("rung", Integer, primary_key=True),  # test windows that it is merged of
    Column("index", BigInteger, primary_key=True),  # of the first of them
    Column("window_id", Id, ForeignKey("windows.id"), nullable=False),
    Column("start_ms", BigInteger, nullable=False),
    Column("cells", LargeBinary, nullable=False),
    Column("seed", BigInteger, nullable=False),
    Column("role", Text, nullable=False),  # reference, excluded, past
    Column("scores", Text, nullable=False),  # JSON: distance, mean, spread
    Column("common", Text),  # JSON: what its peers' scores were just then
    Column("innovations", Text),  # JSON: what the past did not foretell, in deviations
    Column("mean", Float),
    Column("evidence", Float),
    Column("threshold", Float, nullable=False),
    Column("js", Float, nullable=False),
    Column("excess_js", Float, nullable=False),
    Column("psi", Float, nullable=False),
    Column("w1", Float),
    Column("ks", Float),
    Column("chi2", Float, nullable=False),
    Column("dof", Integer, nullable=False),
    Column("p", Float, nullable=False),
    Column("n", BigInteger, nullable=False),
    Column("m", BigInteger, nullable=False),
    Column("effect", Float, nullable=False),
    Column("detectable", Float, nullable=False),
)
Index("tests_of_window", tests.c.window_id)

alarms = Table(
    "alarms",
    metadata,
    Column("id", Id, primary_key=True),
    Column("stream_id", Id, ForeignKey("streams.id"), nullable=False),
    Column("opened_ms", BigInteger, nullable=False),
    Column("since_ms", BigInteger, nullable=False),  # start of the first drifted window, estimated
    Column("closed_ms", BigInteger),
    Column("reason", Text, nullable=False, server_default=""),  # why it closed, if not by itself
    Column("change", Float, nullable=False),  # excess JS, bits
    Column("evidence", Float, nullable=False),
    Column("threshold", Float, nullable=False),
    Column("windows", Integer, nullable=False),
    Column("moved", Text, nullable=False),  # JSON: the scores' mean since then less the reference's
    Column("first_index", BigInteger, nullable=False),
    Column("last_index", BigInteger, nullable=False),
)
Index("alarms_by_stream", alarms.c.stream_id, alarms.c.closed_ms)

events = Table(
    "events",
    metadata,
    Column("id", Id, primary_key=True),
    Column("device_id", Id, ForeignKey("devices.id"), nullable=False),
    Column("boot", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("time_ms", BigInteger, nullable=False),
    Column("digest", Text, nullable=False),
    Column("model", Text, nullable=False),
    Column("message", Text, nullable=False),
    Column("details", Text, nullable=False),
    Column("received_ms", BigInteger, nullable=False),
    UniqueConstraint("device_id", "boot", "kind", "time_ms", "digest"),
)
