"""What is known of a stream, as the rows of the tables that hold it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgeml.collector.drift.chi2 import chi_squares
from edgeml.collector.drift.effects import many_effects
from edgeml.collector.drift.monitor import Monitor
from edgeml.collector.drift.policy import RUNGS
from edgeml.collector.drift.saved import Record, Step
from edgeml.collector.drift.scores import MEAN, numbers
from edgeml.collector.drift.stuck import Repeats
from edgeml.collector.store.packing import pack
from edgeml.collector.store.past import encode_numbers, pack_state

Cells = NDArray[np.int64]

_OF_TEST = ("dof", "p", "n", "m", "effect", "detectable")


class Followed(msgspec.Struct):
    """A stream that is followed in memory."""

    stream_id: int
    monitor: Monitor
    offset_js: float | None = None
    threshold: float = 0.0
    last_ms: int = 0
    repeats: Repeats = msgspec.field(default_factory=Repeats)


def test_row(known: Followed, record: Record, *, window_id: int, excluded: bool) -> dict[str, Any]:
    """Of ``tests``: a window with its scores and what came of it, but for its effects."""
    point = record.point
    return {
        **{name: getattr(point, name) for name in ("index", "start_ms", "seed", "evidence")},
        "scores": encode_numbers(point.scores),
        "common": encode_numbers(point.common),
        "innovations": encode_numbers(point.innovations),
        "mean": _finite(point.scores[MEAN]) if len(point.scores) > MEAN else None,
        "rung": record.rung,
        "role": "excluded" if excluded else "reference",
        "cells": pack(record.cells),
        "stream_id": known.stream_id,
        "window_id": window_id,
        "threshold": known.threshold,
    }


def add_effects(rows: Sequence[tuple[Monitor, Cells, dict[str, Any]]]) -> None:
    """Add to rows of ``tests`` how far each of their windows lies from its training data, all that
    lie on one baseline at once: alone, each would cost as much as all the rest of its row."""
    alike: dict[int, list[tuple[Monitor, Cells, dict[str, Any]]]] = {}
    for row in rows:
        alike.setdefault(id(row[0].baseline), []).append(row)
    for group in alike.values():
        grid, baseline = group[0][0].grid, group[0][0].baseline
        cells = np.array([cells[: grid.cells] for _, cells, _ in group])
        tests = chi_squares(grid, cells, baseline.cells)
        found = many_effects(grid, cells, baseline.cells)
        for (monitor, whole, row), test, effect in zip(group, tests, found, strict=True):
            row.update(msgspec.structs.asdict(effect))
            row.update({name: getattr(test, name) for name in _OF_TEST})
            row["chi2"] = test.statistic
            if grid.kind == "vector":
                row["excess_js"] = monitor.scorer.effect(whole, numbers(grid, baseline))


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
