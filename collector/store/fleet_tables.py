"""The tables of what is more than one device: group streams, retractions, feedback, the budget.

Lists of numbers are JSON text; everything else is as in :mod:`edgeml.collector.store.tables`, whose
metadata they share.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    Table,
    Text,
    UniqueConstraint,
)

from edgeml.collector.store.tables import Id, metadata

groups = Table(
    "groups",
    metadata,
    Column("id", Id, primary_key=True),
    Column("site", Text, nullable=False),  # empty: all devices of the version
    Column("model", Text, nullable=False),
    Column("version", Text, nullable=False),
    Column("stream", Text, nullable=False),
    Column("slot_ms", BigInteger, nullable=False),
    Column("saved", Text, nullable=False),
    Column("state", LargeBinary, nullable=False),  # of its track
    Column("phase", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("reference", Integer, nullable=False),
    Column("devices", Integer, nullable=False),
    Column("evidence", Float, nullable=False),
    Column("threshold", Float, nullable=False),
    Column("last_slot", BigInteger, nullable=False),
    Column("last_ms", BigInteger, nullable=False),
    UniqueConstraint("site", "model", "version", "stream", "slot_ms"),
)

group_points = Table(
    "group_points",
    metadata,
    Column("group_id", Id, ForeignKey("groups.id"), primary_key=True),
    Column("slot", BigInteger, primary_key=True),
    Column("start_ms", BigInteger, nullable=False),
    Column("devices", Integer, nullable=False),
    Column("scores", Text, nullable=False),
    Column("role", Text, nullable=False),
    Column("seed", BigInteger, nullable=False),
    Column("evidence", Float),
    Column("threshold", Float, nullable=False),
)

group_alarms = Table(
    "group_alarms",
    metadata,
    Column("id", Id, primary_key=True),
    Column("group_id", Id, ForeignKey("groups.id"), nullable=False),
    Column("opened_ms", BigInteger, nullable=False),
    Column("since_ms", BigInteger, nullable=False),
    Column("closed_ms", BigInteger),
    Column("reason", Text, nullable=False, server_default=""),
    Column("shift", Text, nullable=False),
    Column("evidence", Float, nullable=False),
    Column("threshold", Float, nullable=False),
)
Index("group_alarms_by_group", group_alarms.c.group_id, group_alarms.c.closed_ms)

budget_days = Table(
    "budget_days",
    metadata,
    Column("day_ms", BigInteger, primary_key=True),
    Column("windows", BigInteger, nullable=False),
    Column("expected", Float, nullable=False),  # Σ 1/c over the windows that were watched
)

retractions = Table(
    "retractions",
    metadata,
    Column("id", Id, primary_key=True),
    Column("at_ms", BigInteger, nullable=False),
    Column("by", Text, nullable=False),
    Column("why", Text, nullable=False),
    Column("selection", Text, nullable=False),
    Column("windows", BigInteger, nullable=False),
    Column("rows", BigInteger, nullable=False),
    Column("devices", Integer, nullable=False),
    Column("undone_ms", BigInteger),
    Column("undone_by", Text, nullable=False, server_default=""),
)

# One row: when the clock was last believed, by which ages are told.
keeping = Table(
    "keeping",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("seen_ms", BigInteger, nullable=False),
)

rebaselines = Table(
    "rebaselines",
    metadata,
    Column("id", Id, primary_key=True),
    Column("at_ms", BigInteger, nullable=False),
    Column("by", Text, nullable=False),
    Column("selection", Text, nullable=False),
    Column("streams", Integer, nullable=False),
)

feedback_batches = Table(
    "feedback_batches",
    metadata,
    Column("sha256", Text, primary_key=True),
    Column("at_ms", BigInteger, nullable=False),
    Column("rows", BigInteger, nullable=False),
)

feedback = Table(
    "feedback",
    metadata,
    Column("device_id", Id, ForeignKey("devices.id"), primary_key=True),
    Column("model", Text, primary_key=True),
    Column("version", Text, primary_key=True),
    Column("hour_ms", BigInteger, primary_key=True),
    Column("group", Text, primary_key=True),
    Column("counts", Text, nullable=False),
)
