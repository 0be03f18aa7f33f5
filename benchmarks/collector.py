"""What a window costs the drift collector, by the size of the fleet.

    python benchmarks/collector.py [--devices N …] [--write]

A fleet of N devices at ten a site sends a window a minute, each of 21 statistics (15 numbers, 2
categories, and what class scores have) of 60 rows. The windows are drawn from a pool of 200 that
the device's own observer counted. Streams are armed after 8 windows, with no season, so that both
halves of the work, learning and watching, are in few windows.

*Stored* is what the writer's thread does, without a broker: payloads are decoded and checked, and
go into an SQLite file in batches of what comes in a minute, at most 500, one transaction each. The
figures are of the second half of the windows, when streams are armed; *learning* is the dearest
minute's, in which all of them learn their reference. *Memory* is what the process has grown by.

*Retracted* is one device with all its windows; a firmware, which every tenth device runs; and four
windows of each device of one site. *Undone* is the device's again, *re-baselined* a site. Pages are
asked for three times from a collector that runs on that database, and the fastest answer counts.
*Ready* is from its start to the line that says so. *Through the broker* sends 200 windows more, by
one connection to the embedded broker, to that collector.
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
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import paho.mqtt.client as mqtt
from collector_fleet import LENGTH_MS, START_MS, Fleet
from collector_store import BATCH, open_store, resident_kb, take_in, timed
from page import setting, table, write_section
from paho.mqtt.enums import CallbackAPIVersion

from edgeml.collector.store.intake import Intake
from edgeml.collector.store.rebaseline import rebaseline
from edgeml.collector.store.retraction import retract, undo
from edgeml.collector.store.selection import Selection, StreamSelection

WINDOWS = {10: 100, 100: 30, 1000: 14}
"""Windows of each device, by the size of the fleet; of another size, the least."""
PAGES = ("", "device/site-0/device-0", "api/v1/incidents")
SENT = 200
"""Through the broker, windows at most."""


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """A fleet."""

    devices: int
    windows: int
    """Of each device."""
    processor_us: float
    """Of a stream-window, in the writer's thread."""
    stored: float
    """Stream-windows a second, on the wall's clock."""
    learning_us: float
    """Of a stream, in the minute in which all learn."""
    memory_kb: float
    """Of a stream, in the writer's process."""
    bytes: float
    """Of the database, a stream-window."""
    taken_back: TakenBack
    beside: Beside


class TakenBack(msgspec.Struct, frozen=True, kw_only=True):
    """Seconds that changes of the past take, while nothing is stored."""

    device: float
    undone: float
    firmware: float
    span: float
    rebaselined: float


class Beside(msgspec.Struct, frozen=True, kw_only=True):
    """What a collector on the fleet's database takes."""

    ready_s: float
    fleet: Page
    device: Page
    incidents: Page
    """As JSON."""
    through_broker: float
    """Stream-windows a second."""


class Page(msgspec.Struct, frozen=True):
    """An answer."""

    seconds: float
    bytes: int


def measure(devices: int) -> Row:
    """One fleet, from its first window to its page."""
    windows = WINDOWS.get(devices, min(WINDOWS.values()))
    fleet = Fleet(devices)
    streams = devices * fleet.streams
    with tempfile.TemporaryDirectory() as folder:
        database = Path(folder) / "fleet.sqlite"
        intake = open_store(database, fleet.baseline)
        before_kb = resident_kb()
        take_in(intake, list(fleet.births()), START_MS)
        walls: list[float] = []
        processor: list[float] = []
        for number in range(windows):
            payloads = list(fleet.slot(number))
            wall_then, then = time.perf_counter(), time.process_time()
            for first in range(0, len(payloads), BATCH):
                at_ms = START_MS + (number + 1) * LENGTH_MS
                take_in(intake, payloads[first : first + BATCH], at_ms)
            walls.append(time.perf_counter() - wall_then)
            processor.append(time.process_time() - then)
        memory_kb = resident_kb() - before_kb
        size = database.stat().st_size / (streams * windows)
        taken_back = take_back(intake, windows)
        beside = beside_a_collector(database, fleet, windows)
    half = windows // 2
    return Row(
        devices=devices,
        windows=windows,
        processor_us=1e6 * sum(processor[half:]) / (windows - half) / streams,
        stored=streams * (windows - half) / sum(walls[half:]),
        learning_us=1e6 * max(processor) / streams,
        memory_kb=memory_kb / streams,
        bytes=size,
        taken_back=taken_back,
        beside=beside,
    )


def take_back(intake: Intake, windows: int) -> TakenBack:
    """Seconds that it takes to retract, to undo that, and to start anew."""

    def taken(selection: Selection) -> float:
        return timed(
            lambda: intake.change(
                lambda c, e: retract(c, e, selection, by="benchmark", why="", now_ms=START_MS)
            )
        )

    def undone(number: int) -> float:
        return timed(
            lambda: intake.change(lambda c, e: undo(c, e, number, by="benchmark", now_ms=START_MS))
        )

    middle = START_MS + windows // 2 * LENGTH_MS
    device, back = taken(Selection(device="device-0")), undone(1)
    firmware = taken(Selection(agent="0.2.0"))
    undone(2)
    span = taken(Selection(site="site-0", from_ms=middle, to_ms=middle + 4 * LENGTH_MS))
    undone(3)
    site = StreamSelection(site="site-0")
    anew = timed(
        lambda: intake.change(lambda c, _: rebaseline(c, site, by="benchmark", now_ms=START_MS))
    )
    return TakenBack(device=device, undone=back, firmware=firmware, span=span, rebaselined=anew)


def beside_a_collector(database: Path, fleet: Fleet, windows: int) -> Beside:
    """How soon it serves, what its pages take, and stream-windows a second through the broker."""
    begin = time.perf_counter()
    with collector(database) as (page, port):
        ready_s = time.perf_counter() - begin
        pages = {path: answer(page + path) for path in PAGES}
        client = mqtt.Client(CallbackAPIVersion.VERSION2)
        client.connect("127.0.0.1", port)
        client.loop_start()
        slots = range(windows, windows + max(1, SENT // len(fleet.topics)))
        payloads = [each for number in slots for each in fleet.slot(number)][:SENT]
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
    fleet_page, device_page, incidents = pages.values()
    return Beside(
        ready_s=ready_s,
        fleet=fleet_page,
        device=device_page,
        incidents=incidents,
        through_broker=len(payloads) * fleet.streams / took,
    )


def answer(url: str) -> Page:
    """The fastest of three."""
    seconds = min(timed(lambda: fetch(url)) for _ in range(3))
    return Page(seconds, len(fetch(url)))


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


def render(rows: list[Row]) -> str:
    """The tables as Markdown."""
    windows = table(
        (
            *(
                "devices",
                "windows of each",
                "processor, µs a stream-window",
                "learning, µs a stream",
            ),
            *("stored, stream-windows/s", "through the broker, stream-windows/s"),
            *("memory, kB a stream", "database, bytes a stream-window"),
        ),
        [
            (
                f"{row.devices:,}",
                row.windows,
                f"{row.processor_us:,.0f}",
                f"{row.learning_us:,.0f}",
                f"{row.stored:,.0f}",
                f"{row.beside.through_broker:,.0f}",
                f"{row.memory_kb:,.1f}",
                f"{row.bytes:,.0f}",
            )
            for row in rows
        ],
    )
    taken = table(
        (
            *(
                "devices",
                "a device retracted, s",
                "undone, s",
                "a firmware, s",
                "a span of a site, s",
            ),
            "a site re-baselined, s",
        ),
        [
            (
                f"{row.devices:,}",
                *(f"{seconds:.2f}" for seconds in msgspec.structs.astuple(row.taken_back)),
            )
            for row in rows
        ],
    )
    pages = table(
        ("devices", "ready, s", "fleet page, s", "kB", "device page, s", "kB", "incidents, s"),
        [
            (
                f"{row.devices:,}",
                f"{row.beside.ready_s:.1f}",
                *(f"{row.beside.fleet.seconds:.2f}", f"{row.beside.fleet.bytes / 1e3:,.0f}"),
                *(f"{row.beside.device.seconds:.2f}", f"{row.beside.device.bytes / 1e3:,.0f}"),
                f"{row.beside.incidents.seconds:.2f}",
            )
            for row in rows
        ],
    )
    return "\n\n".join((setting("numpy", "sqlalchemy", "msgspec"), windows, taken, pages))


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
