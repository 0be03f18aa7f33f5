"""The collector's own intake, in this process, for its benchmarks."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from pathlib import Path

import sqlalchemy as sa
from collector_fleet import BUNDLE

from edgeml.collector.config import AlarmConfig
from edgeml.collector.ingest.validate import Received, validate
from edgeml.collector.store import tables
from edgeml.collector.store.database import open_database
from edgeml.collector.store.evaluation import Evaluator
from edgeml.collector.store.intake import Intake
from edgeml.statistics import Baseline

BATCH = 500
ALARMS = AlarmConfig(reference_windows=8, season="none")


def open_store(database: Path, baseline: Baseline) -> Intake:
    """A new database that knows the baseline."""
    engine = open_database(str(database))
    with engine.begin() as connection:
        values = {"sha256": BUNDLE, "name": "model", "version": "1.0", "added_ms": 1, "bytes": 1}
        known = sa.insert(tables.bundles).values(manifest=b"", baseline=baseline.encode(), **values)
        connection.execute(known)
    return Intake(engine, Evaluator(ALARMS.policy, ALARMS.budget))


def take_in(intake: Intake, payloads: list[tuple[str, bytes]], at_ms: int) -> None:
    """Check, store and test a batch."""
    batch = [validate(topic, payload, received_ms=at_ms) for topic, payload in payloads]
    outcome = intake.store([each for each in batch if isinstance(each, Received)])
    if outcome.accepted + outcome.status != len(payloads):
        message = f"{outcome.accepted} of {len(payloads)} windows were taken"
        raise RuntimeError(message)


def resident_kb() -> int:
    """Memory of this process just now."""
    found = re.search(r"VmRSS:\s+(\d+)", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1])


def timed(work: Callable[[], object]) -> float:
    """Seconds on the wall's clock."""
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin
