"""Windows that nobody expects, through the whole store: stored, shown, and raising nothing."""

from __future__ import annotations

from math import isfinite
from pathlib import Path

import numpy as np
import sqlalchemy as sa
from support.devices import START_MS
from support.fleets import ALARMS

from edgeml.bundle import Tensor
from edgeml.collector.ingest.validate import Received
from edgeml.collector.store import tables
from edgeml.collector.store.database import open_database
from edgeml.collector.store.evaluation import Evaluator
from edgeml.collector.store.intake import Intake
from edgeml.collector.store.queries import Reader
from edgeml.statistics import Baseline, Observer, fit_baseline, pack
from edgeml.telemetry import Topic, Window

BUNDLE = "b" * 64
COLUMNS = ("plain", "constant", "huge", "denormal", "mostly missing")


def rows(random: np.random.Generator, count: int) -> np.ndarray:
    """float64 [count, columns]."""
    missing = np.where(random.random(count) < 0.9, np.nan, random.normal(size=count))
    return np.column_stack(
        [
            random.normal(size=count),
            np.full(count, 21.5),
            random.choice([-1e300, 1e300], count),
            random.choice([0.0, 5e-324, 1e-310], count),
            missing,
        ]
    )


def strange(random: np.random.Generator, slot: int) -> np.ndarray:
    """Mostly like the training data; now and then empty, a single row, or nothing but missing."""
    match slot % 8:
        case 5:
            return rows(random, 0)
        case 6:
            return rows(random, 1)
        case 7:
            return np.full((40, len(COLUMNS)), np.nan) if slot == 7 else rows(random, 40)
        case _:
            return rows(random, 40)


def store(engine: sa.Engine, baseline: Baseline) -> Intake:
    """With a bundle of this baseline in it."""
    with engine.begin() as connection:
        named = {"sha256": BUNDLE, "name": "odd", "version": "1.0", "added_ms": 1, "bytes": 1}
        connection.execute(
            sa.insert(tables.bundles).values(manifest=b"", baseline=baseline.encode(), **named)
        )
    return Intake(engine, Evaluator(ALARMS.policy, ALARMS.budget))


def window(baseline: Baseline, observer: Observer, slot: int, rows: int) -> Received:
    """What was observed since the last one."""
    sent = Window(
        boot="boot-1",
        sequence=slot + 1,
        oldest=1,
        model="odd",
        version="1.0",
        bundle=BUNDLE,
        artifact="onnx-fp32",
        start_ms=START_MS + 60_000 * slot,
        duration_ms=60_000,
        rows=rows,
        outcomes={"served": rows},
        baseline=baseline.hash,
        statistics=[pack(counts) for counts in observer.take().values()],
    )
    return Received(Topic("hall", "cam", "stats", "odd"), sent, sent.start_ms)


def test_strange_windows_are_stored_and_shown_and_raise_no_alarm(tmp_path: Path) -> None:
    random = np.random.default_rng(1)
    tensor = Tensor(name="row", shape=(1, len(COLUMNS)), dtype="float64", meaning="features")
    fitted = fit_baseline(
        {"row": rows(random, 2000)}, {}, input_tensors=(tensor,), output_tensors=()
    )
    baseline = Baseline.decode(fitted.encode())
    engine = open_database(str(tmp_path / "fleet.sqlite"))
    intake = store(engine, baseline)
    observer = Observer(baseline)
    for slot in range(60):
        values = strange(random, slot)
        if len(values):
            observer.observe({"row": values}, {})
        outcome = intake.store([window(baseline, observer, slot, len(values))])
        assert (outcome.accepted, outcome.off_grid) == (1, 0)
    reader = Reader(engine)
    streams = reader.streams()
    assert len(streams) == len(COLUMNS)
    assert [alarm.stream for alarm in reader.alarms()] == []
    for stream in streams:
        assert isfinite(stream.evidence)
        assert stream.reference > 20
        assert stream.last is not None
        assert all(v is None or isfinite(v) for v in stream.last.values())
        shown = reader.histogram(stream.id)
        assert shown is not None
        assert all(map(isfinite, [*shown.window, *shown.baseline, *shown.past]))
    engine.dispose()


def test_a_new_category_is_shown_by_name(tmp_path: Path) -> None:
    random = np.random.default_rng(1)
    tensor = Tensor(name="code", shape=(1, 1), dtype="int64", meaning="features")
    codes = {"code": random.integers(0, 5, (2000, 1))}
    fitted = fit_baseline(codes, {}, input_tensors=(tensor,), output_tensors=())
    baseline = Baseline.decode(fitted.encode())
    engine = open_database(str(tmp_path / "fleet.sqlite"))
    intake, observer = store(engine, baseline), Observer(baseline)
    for slot in range(6):
        values = random.integers(0, 5, (40, 1))
        if slot >= 3:
            values[:9] = 404
            values[9] = 7  # a single row
        observer.observe({"code": values}, {})
        intake.store([window(baseline, observer, slot, len(values))])
    (stream,) = Reader(engine).streams()
    shown = Reader(engine).histogram(stream.id)
    assert shown is not None
    assert shown.names == ["0", "1", "2", "3", "4", "other", "missing"]
    assert shown.window[5] == 10 / 40
    assert set(shown.new) == {"404"}
    assert 27 <= shown.new["404"] <= 30
    engine.dispose()
