"""Labels that came back: true accuracy, calibration and the difference between groups.

A batch of feedback is counted by (device, model, version, hour, group) as confidence bin x right or
wrong (:mod:`edgeml.statistics.accuracy`), and only the counts are kept. A batch is known by the
hash of its content, so the same file twice changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray
from sqlalchemy.engine import Connection

from edgeml.collector.keep.places import place
from edgeml.collector.store.fleet_tables import feedback as table
from edgeml.collector.store.fleet_tables import feedback_batches
from edgeml.collector.store.tables import devices, windows
from edgeml.collector.views import AccuracyView, FeedbackView
from edgeml.decoding import from_json
from edgeml.errors import CollectorError
from edgeml.statistics import accuracy

Table = NDArray[np.int64]

_KEY = ("device_id", "model", "version", "hour_ms", "group")


class Label(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One prediction of which the truth is known."""

    device: str
    model: str
    time_ms: int
    """When it was made, or when its window began."""
    correct: bool
    confidence: float | None = None
    """0 … 1; without it the accuracy is known and the calibration is not."""
    group: str = ""
    site: str = ""
    """Needed where two sites have a device of that name."""


class Batch(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is handed in together."""

    sha256: str
    """Of the file's content: the same one twice is added once."""
    labels: list[Label]


def add_feedback(connection: Connection, batch: Batch, *, now_ms: int) -> FeedbackView:
    """Count a batch, once.

    Raises:
        CollectorError: a device is not known, or its name is another site's too.
    """
    known = connection.execute(sa.select(feedback_batches).filter_by(sha256=batch.sha256)).first()
    if known is not None:
        return FeedbackView(sha256=batch.sha256, new=False, rows=known.rows)
    added = sa.insert(feedback_batches)
    connection.execute(added.values(sha256=batch.sha256, at_ms=now_ms, rows=len(batch.labels)))
    heaps: dict[tuple[Any, ...], list[Label]] = {}
    ids: dict[tuple[str, str], int] = {}
    versions: dict[tuple[int, str, int], str] = {}
    for label in batch.labels:
        name = (label.site, label.device)
        device_id = ids.get(name) or ids.setdefault(name, _device(connection, *name))
        at = (device_id, label.model, place(label.time_ms))
        version = versions.get(at) or versions.setdefault(at, _version(connection, *at))
        heaps.setdefault((device_id, label.model, version, at[2], label.group), []).append(label)
    for key, labels in heaps.items():
        _add(connection, dict(zip(_KEY, key, strict=True)), _counts(labels))
    return FeedbackView(sha256=batch.sha256, new=True, rows=len(batch.labels))


PARTS = ("model", "device", "group", "hour", "day")


def accuracies(connection: Connection, *, by: str) -> list[AccuracyView]:
    """Accuracy, calibration error and the largest gap between groups, of each model version.

    Args:
        connection: to the database.
        by: ``device``, ``hour``, ``day``, ``group`` or ``model`` (the version as a whole).

    Raises:
        CollectorError: ``by`` is something else.
    """
    if by not in PARTS:
        raise CollectorError(f"accuracy by {by!r}", expected=f"by one of {', '.join(PARTS)}")
    query = sa.select(table, devices.c.site, devices.c.device).join(
        devices, devices.c.id == table.c.device_id
    )
    heaps: dict[tuple[str, str, str], dict[str, Table]] = {}
    for row in connection.execute(query.order_by(table.c.hour_ms)).mappings():
        key = (row["model"], row["version"], _part(row, by))
        groups = heaps.setdefault(key, {})
        groups[row["group"]] = groups.get(row["group"], 0) + _decode(row["counts"])
    return [_view(key, groups) for key, groups in heaps.items()]


def _part(row: sa.RowMapping, by: str) -> str:
    match by:
        case "device":
            return f"{row['site']}/{row['device']}"
        case "hour":
            return str(row["hour_ms"])
        case "day":
            return str(row["hour_ms"] - row["hour_ms"] % 86_400_000)
        case "group":
            return str(row["group"])
        case _:
            return ""


def _view(key: tuple[str, str, str], groups: dict[str, Table]) -> AccuracyView:
    model, version, part = key
    counts = sum(groups.values(), start=np.zeros(1, dtype=np.int64))
    said = accuracy.feedback(counts[:-1])
    # The last row holds labels without a confidence: they are right or wrong all the same.
    right = accuracy.wilson(int(counts[:, 1].sum()), int(counts.sum()))
    gap = accuracy.largest_gap(groups)
    return AccuracyView(
        model=model,
        version=version,
        part=part,
        n=right.n,
        accuracy=right.value,
        low=right.low,
        high=right.high,
        calibration_error=said.calibration_error if said.accuracy.n else None,
        calibration_error_by_chance=said.expected_error if said.accuracy.n else None,
        gap=None if gap is None else msgspec.structs.asdict(gap),
    )


def _counts(labels: Sequence[Label]) -> Table:
    """Confidence bins [bins + 1, 2] by wrong and right; the last for labels without one."""
    sure = [label for label in labels if label.confidence is not None]
    found = accuracy.feedback_counts(
        np.array([label.confidence for label in sure], dtype=np.float64),
        np.array([label.correct for label in sure], dtype=bool),
    )
    unsure = [label.correct for label in labels if label.confidence is None]
    return np.vstack([found, [len(unsure) - sum(unsure), sum(unsure)]])


def _add(connection: Connection, key: dict[str, Any], counts: Table) -> None:
    there = connection.execute(sa.select(table.c.counts).filter_by(**key)).scalar()
    if there is not None:
        counts = counts + _decode(there)
        connection.execute(sa.delete(table).filter_by(**key))
    text = msgspec.json.encode(counts.tolist()).decode()
    connection.execute(sa.insert(table).values(**key, counts=text))


def _decode(text: str) -> Table:
    return np.asarray(from_json(text), dtype=np.int64)


def _device(connection: Connection, site: str, device: str) -> int:
    query = sa.select(devices.c.id).where(devices.c.device == device)
    found = connection.execute(query.where(devices.c.site == site) if site else query)
    ids: Iterable[int] = found.scalars().all()
    if len(list(ids)) != 1:
        raise CollectorError(
            f"{len(list(ids))} devices are called {device!r}" + (f" in {site}" if site else ""),
            expected="the name of one that has reported, with its site where two share the name",
            remedy="Nothing was added. `edgeml fleet status` lists the devices.",
        )
    return next(iter(ids))


def _version(connection: Connection, device_id: int, model: str, hour_ms: int) -> str:
    """The version that ran at the time: of the last window of the device that began by then."""
    query = (
        sa.select(windows.c.version)
        .where(windows.c.device_id == device_id, windows.c.model == model)
        .order_by(
            (windows.c.start_ms > hour_ms + 3_600_000).asc(),
            sa.func.abs(windows.c.start_ms - hour_ms),
        )
        .limit(1)
    )
    version = connection.execute(query).scalar()
    if version is None:
        raise CollectorError(
            f"the model {model!r} never ran on that device (number {device_id})",
            expected="a model that the device has sent windows of",
            remedy="Nothing was added. `edgeml fleet status` lists models by device.",
        )
    return version
