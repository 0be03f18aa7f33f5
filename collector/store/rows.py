"""What is known of a stream, as the rows of the tables that hold it."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np

from edgeml.collector.drift.chi2 import chi_square
from edgeml.collector.drift.effects import effects
from edgeml.collector.drift.monitor import Monitor, Record, Step
from edgeml.collector.drift.policy import RUNGS
from edgeml.collector.drift.scores import MEAN, numbers
from edgeml.collector.drift.stuck import Repeats
from edgeml.collector.store.packing import pack
from edgeml.collector.store.past import encode_numbers, pack_state


class Followed(msgspec.Struct):
    """A stream that is followed in memory."""

    stream_id: int
    monitor: Monitor
    offset_js: float | None = None
    threshold: float = 0.0
    last_ms: int = 0
    repeats: Repeats = msgspec.field(default_factory=Repeats)


def test_row(known: Followed, record: Record, *, window_id: int, excluded: bool) -> dict[str, Any]:
    """Of ``tests``: a window with its scores, its effects and what came of it."""
    monitor, point = known.monitor, record.point
    grid, baseline = monitor.grid, monitor.baseline
    cells = record.cells[: grid.cells]
    test = chi_square(grid, cells, baseline.cells)
    found = msgspec.structs.asdict(effects(grid, cells, baseline.cells))
    if grid.kind == "vector":
        found["excess_js"] = monitor.scorer.effect(record.cells, numbers(grid, baseline))
    return {
        **found,
        **{name: getattr(test, name) for name in ("dof", "p", "n", "m", "effect", "detectable")},
        **{name: getattr(point, name) for name in ("index", "start_ms", "seed", "evidence")},
        "scores": encode_numbers(point.scores),
        "common": encode_numbers(point.common),
        "innovations": encode_numbers(point.innovations),
        "mean": _finite(point.scores[MEAN]) if len(point.scores) > MEAN else None,
        "rung": record.rung,
        "role": "excluded" if excluded else "reference",
        "chi2": test.statistic,
        "cells": pack(record.cells),
        "stream_id": known.stream_id,
        "window_id": window_id,
        "threshold": known.threshold,
    }


def _finite(number: float) -> float | None:
    return number if np.isfinite(number) else None


def track_row(known: Followed, rung: int) -> dict[str, Any]:
    """Of ``tracks``."""
    state = known.monitor.tracks[RUNGS.index(rung)].save()
    return {"stream_id": known.stream_id, "rung": rung, "state": pack_state(state)}


def stream_row(known: Followed) -> dict[str, Any]:
    """Of ``streams``: where it stands."""
    monitor = known.monitor
    return {
        "at_stream": known.stream_id,
        "saved": msgspec.msgpack.encode(monitor.saved),
        "phase": monitor.phase,
        "reason": monitor.reason,
        "reference": monitor.reference_size,
        "offset_js": known.offset_js,
        "evidence": monitor.evidence,
        "windows": monitor.windows,
        "threshold": known.threshold,
        "last_ms": known.last_ms,
        "stuck": msgspec.json.encode(known.repeats).decode(),
    }


def alarm_row(known: Followed, step: Step, *, received_ms: int) -> dict[str, Any]:
    """Of ``alarms``."""
    return {
        "stream_id": known.stream_id,
        "opened_ms": received_ms,
        "since_ms": step.since_ms,
        "change": step.change,
        "moved": encode_numbers(step.moved),
        "evidence": known.monitor.evidence,
        "threshold": known.threshold,
        "windows": step.since,
        "first_index": step.excluded_from,
        "last_index": step.records[0].point.index,
    }
