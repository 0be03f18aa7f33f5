"""What a window costs the drift collector, by the size of the fleet.

    python benchmarks/collector.py [--devices N …] [--write]

A fleet of N devices at ten a site sends a window a minute, each of 21 statistics (15 numbers, 2
categories, and what class scores have) of 60 rows. The windows are drawn from a pool of 200 that
the device's own observer counted. Streams are armed after 8 windows, with no season, so that both
halves of the work, learning and watching, are in few windows.

*Stored* is what the writer's thread does, without a broker: payloads are decoded and checked, and
go into an SQLite file in batches of what comes in a minute, at most 500, one transaction each. The
figures are of the second half of the windows, when streams are armed. *Retracted* is one device
with all its windows, *undone* the same again. The page is asked for three times from a collector
that runs on that database, and the fastest answer counts. *Through the broker* sends as many
windows again, by one connection to the embedded broker, to that collector.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import numpy as np
import paho.mqtt.client as mqtt
import sqlalchemy as sa
from page import setting, table, write_section
from paho.mqtt.enums import CallbackAPIVersion

from edgeml.bundle import Tensor
from edgeml.collector.config import AlarmConfig
from edgeml.collector.ingest.validate import Received, validate
from edgeml.collector.store import tables
from edgeml.collector.store.database import open_database
from edgeml.collector.store.evaluation import Evaluator
from edgeml.collector.store.intake import Intake
from edgeml.collector.store.retraction import retract, undo
from edgeml.collector.store.selection import Selection
from edgeml.statistics import Baseline, Observer, fit_baseline, pack
from edgeml.telemetry import Topics, Window, encode

NUMBERS, CLASSES = 15, 4
ROWS, POOL, A_SITE = 60, 200, 10
WINDOWS = {10: 100, 100: 30, 1000: 14}
"""Windows of each device, by the size of the fleet; of another size, the least."""
SENT = 200
"""Through the broker, windows at most."""
LENGTH_MS = 60_000
START_MS = 1_800_000_000_000
BATCH = 500
BUNDLE = "b" * 64
ALARMS = AlarmConfig(reference_windows=8, season="none")
Arrays = dict[str, np.ndarray]


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """A fleet."""

    devices: int
    windows: int
    """Of each device."""
    processor_us: float
    """Of a stream-window, in the writer's thread."""
    stored: float
    """Stream-windows a second, on the wall's clock."""
    bytes: float
    """Of the database, a stream-window."""
    retracted_s: float
    undone_s: float
    page_s: float
    through_broker: float
    """Stream-windows a second."""


def samples(random: np.random.Generator, rows: int) -> tuple[Arrays, Arrays]:
    """What goes into a model, and what comes out of it."""
    numbers = random.normal(size=(rows, NUMBERS)).astype(np.float32)
    codes = random.integers(0, 6, (rows, 2))
    scores = np.exp(random.normal(size=(rows, CLASSES)))
    scores /= scores.sum(axis=1, keepdims=True)
    return {"numbers": numbers, "codes": codes}, {"scores": scores.astype(np.float32)}


class Fleet:
    """Windows of so many devices, as they come from the broker."""

    def __init__(self, devices: int) -> None:
        random = np.random.default_rng(0)
        inputs, outputs = samples(random, 2000)
        tensors = (
            Tensor(name="numbers", shape=(1, NUMBERS), dtype="float32", meaning="features"),
            Tensor(name="codes", shape=(1, 2), dtype="int64", meaning="features"),
            Tensor(name="scores", shape=(1, CLASSES), dtype="float32", meaning="scores"),
        )
        fitted = fit_baseline(
            inputs, outputs, input_tensors=tensors[:2], output_tensors=tensors[2:]
        )
        self.baseline = Baseline.decode(fitted.encode())
        self.streams = len(self.baseline.streams)
        self.topics = [Topics(f"site-{n // A_SITE}", f"device-{n}") for n in range(devices)]
        self._random = random
        observer = Observer(self.baseline)
        self._pool: list[list[bytes]] = []
        for _ in range(POOL):
            observer.observe(*samples(random, ROWS))
            self._pool.append([pack(counts) for counts in observer.take().values()])

    def slot(self, number: int) -> Iterator[tuple[str, bytes]]:
        """Topic and payload of each device's window of a minute."""
        chosen: list[int] = self._random.integers(POOL, size=len(self.topics)).tolist()
        for at, (topics, statistics) in enumerate(zip(self.topics, chosen, strict=True)):
            window = Window(
                boot="boot-1",
                sequence=number + 1,
                oldest=number + 1,
                model="model",
                version="1.0",
                bundle=BUNDLE,
                artifact="onnx-fp32",
                start_ms=START_MS + number * LENGTH_MS + at,
                duration_ms=LENGTH_MS,
                rows=ROWS,
                outcomes={"served": ROWS},
                baseline=self.baseline.hash,
                statistics=self._pool[statistics],
            )
            yield topics.stats("model"), encode(window)


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
    if outcome.accepted != len(payloads):
        message = f"{outcome.accepted} of {len(payloads)} windows were taken"
        raise RuntimeError(message)


def measure(devices: int) -> Row:
    """One fleet, from its first window to its page."""
    windows = WINDOWS.get(devices, min(WINDOWS.values()))
    fleet = Fleet(devices)
    with tempfile.TemporaryDirectory() as folder:
        database = Path(folder) / "fleet.sqlite"
        intake = open_store(database, fleet.baseline)
        wall = processor = 0.0
        for number in range(windows):
            payloads = list(fleet.slot(number))
            wall_then, then = time.perf_counter(), time.process_time()
            for first in range(0, len(payloads), BATCH):
                at_ms = START_MS + (number + 1) * LENGTH_MS
                take_in(intake, payloads[first : first + BATCH], at_ms)
            if number >= windows // 2:
                wall += time.perf_counter() - wall_then
                processor += time.process_time() - then
        measured = devices * fleet.streams * (windows - windows // 2)
        retracted_s, undone_s = take_back(intake)
        size = database.stat().st_size / (devices * fleet.streams * windows)
        page_s, through = beside_a_collector(database, fleet, windows)
    return Row(
        devices=devices,
        windows=windows,
        processor_us=1e6 * processor / measured,
        stored=measured / wall,
        bytes=size,
        retracted_s=retracted_s,
        undone_s=undone_s,
        page_s=page_s,
        through_broker=through,
    )


def take_back(intake: Intake) -> tuple[float, float]:
    """Seconds that it takes to retract a device, and to undo that."""
    selection, now_ms = Selection(device="device-0"), START_MS
    taken = timed(
        lambda: intake.change(
            lambda c, e: retract(c, e, selection, by="benchmark", why="", now_ms=now_ms)
        )
    )
    undone = timed(lambda: intake.change(lambda c, e: undo(c, e, 1, by="benchmark", now_ms=now_ms)))
    return taken, undone


def beside_a_collector(database: Path, fleet: Fleet, windows: int) -> tuple[float, float]:
    """Seconds that the fleet's page takes, and stream-windows a second through the broker."""
    with collector(database) as (page, port):
        page_s = min(timed(lambda: fetch(page)) for _ in range(3))
        client = mqtt.Client(CallbackAPIVersion.VERSION2)
        client.connect("127.0.0.1", port)
        client.loop_start()
        slots = range(windows, windows + max(1, SENT // len(fleet.topics)))
        payloads = [each for number in slots for each in fleet.slot(number)]
        begin = time.perf_counter()
        for topic, payload in payloads:
            client.publish(topic, payload, qos=1)
        accepted = 0
        while accepted < len(payloads):
            time.sleep(0.05)  # between two questions, nothing waits for it
            accepted = msgspec.json.decode(fetch(f"{page}api/v1/counters"))["accepted"]
        took = time.perf_counter() - begin
        client.disconnect()
        client.loop_stop()
    return page_s, len(payloads) * fleet.streams / took


@contextmanager
def collector(database: Path) -> Generator[tuple[str, int]]:
    """A collector's process; the address of its page, and its broker's port."""
    command = [
        *(sys.executable, "-m", "edgeml", "collector", "run", "--embedded-broker"),
        *("--broker", "127.0.0.1:0", "--http", "127.0.0.1:0", "--database", str(database)),
        *("--reference-windows", "8", "--season", "none"),
    ]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=os.environ)
    assert process.stderr is not None
    try:
        for line in process.stderr:
            if found := re.search(r"ready page=(\S+) broker=\S+:(\d+)", line):
                yield found[1], int(found[2])
                return
        message = "the collector ended before it was ready"
        raise RuntimeError(message)
    finally:
        process.terminate()
        process.wait(30)


def fetch(url: str) -> bytes:
    """What stands there."""
    with urllib.request.urlopen(url, timeout=120) as answer:
        return answer.read()


def timed(work: Callable[[], object]) -> float:
    """Seconds on the wall's clock."""
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def render(rows: list[Row]) -> str:
    """The table as Markdown."""
    columns = (
        *("devices", "windows of each", "processor, µs a stream-window"),
        *("stored, stream-windows/s", "through the broker, stream-windows/s"),
        *("database, bytes a stream-window", "one device retracted, s", "undone, s"),
        "fleet page, s",
    )
    lines = [
        (
            f"{row.devices:,}",
            row.windows,
            f"{row.processor_us:,.0f}",
            f"{row.stored:,.0f}",
            f"{row.through_broker:,.0f}",
            f"{row.bytes:,.0f}",
            f"{row.retracted_s:.1f}",
            f"{row.undone_s:.1f}",
            f"{row.page_s:.2f}",
        )
        for row in rows
    ]
    return f"{setting('numpy', 'sqlalchemy', 'msgspec')}\n\n{table(columns, lines)}"


def main() -> None:
    """Measure, print, and write where that is wanted."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--devices", type=int, nargs="+", default=list(WINDOWS))
    parser.add_argument("--write", action="store_true", help="to docs/benchmarks.md, too")
    options = parser.parse_args()
    text = render([measure(devices) for devices in options.devices])
    print(text)
    if options.write:
        write_section("collector", text)


if __name__ == "__main__":
    main()
