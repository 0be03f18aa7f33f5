"""After power cuts at many moments: does the device serve, and is every promise kept?

``power_check IMAGE LOG [--cases N] [--first K] [--of TOTAL]``: IMAGE is the disk as it was at
first, LOG all that ``power_workload`` wrote to it. For each case the disk is made as a cut at one
moment leaves it, mounted by the kernel, which recovers its journal, and an agent is started. Needs
root. Case K of TOTAL is the same whichever others run.

``--lag N`` is a disk that lies: it lacks the last N requests, which it said were flushed.
Promises must break then, or this check could not see one that is broken.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from machine.power_workload import (
    MOUNT,
    NOTE,
    NOTES_AT,
    NotingCollector,
    start_agent,
    start_broker,
)
from machine.write_log import FLUSH, SECTOR, Entry, read_log, survivors, write_image
from support.agents import PATIENCE_S, AgentProcess
from support.weights import images, scores

from edgeml.device_agent.local.client import Client
from edgeml.telemetry import Window

Note = dict[str, Any]


def notes_before(log: Path, entries: list[Entry], cut: int) -> list[Note]:
    """What had been promised by then."""
    found: list[Note] = []
    with log.open("rb") as file:
        for entry in entries[:cut]:
            if entry.sector * SECTOR >= NOTES_AT and entry.length == NOTE:
                file.seek(entry.place)
                found.append(json.loads(file.read(NOTE).rstrip(b"\0")))
    return found


def moment(entries: list[Entry], case: int, total: int) -> int:
    """All through the log; every second one is put off to just before the next flush, where the
    most is at stake."""
    cut = round((case + 1) * len(entries) / (total + 1))
    while case % 2 and cut < len(entries) and not entries[cut].flags & FLUSH:
        cut += 1
    return cut


def check(notes: list[Note]) -> list[str]:
    """Start the agent on the mounted disk; say which promises were broken."""
    broker = start_broker()
    collector = NotingCollector()
    for note in notes:
        if note["kind"] == "collected":
            window = _window(note)
            collector.windows[window.boot, window.sequence] = window
    agent = start_agent()
    try:
        return _look(agent.ready(), collector, notes)
    except AssertionError as error:
        return [f"it does not serve: {error}"]
    finally:
        workers = agent.workers()
        agent.process.kill()
        agent.end()
        psutil.wait_procs([psutil.Process(pid) for pid in workers if psutil.pid_exists(pid)])
        collector.close()
        broker.kill()


def _look(agent: AgentProcess, collector: NotingCollector, notes: list[Note]) -> list[str]:
    broken: list[str] = []
    with Client(agent.socket, "sleeper") as client:
        _wait_for_empty_outbox(client)
        windows = list(collector.windows.values())
        closed = sum(note["rows"] for note in notes if note["kind"] == "closed")
        asked = sum(note["kind"] == "request" for note in notes)
        rows = sum(window.rows for window in windows)
        if not closed <= rows <= asked:
            broken.append(f"{closed} rows were stored, {asked} asked for; {rows} arrived")
        starts = Counter(window.start_ms for window in windows)
        twice = [start for start, count in starts.items() if count > 1]
        if twice:
            broken.append(f"windows that arrived twice: {twice}")
        frames = images(1)
        found = client.infer({"image": frames})["scores"]
        if not np.allclose(found, scores(frames), atol=1e-5):
            broken.append(f"wrong answer: {found}")
        (serves,) = client.metadata()["versions"]
        allowed = _allowed(notes)
        if serves not in allowed:
            broken.append(f"{serves} serves in place of {allowed}")
    broken += [line for line in agent.lines if "damaged" in line or " ERROR " in line]
    return broken


def _allowed(notes: list[Note]) -> set[str]:
    """Versions that may serve: the last that was said to, and the one on its way."""
    allowed = {"1.0"}
    for note in notes:
        if note["kind"] == "serves":
            allowed = {note["version"]}
        elif note["kind"] == "deploying":
            allowed.add(note["version"])
    return allowed


def _wait_for_empty_outbox(client: Client) -> None:
    def waiting() -> int:
        outbox = client.get("/edgeml/v1/status")["outbox"]
        return outbox["waiting"] + outbox["numbered"]

    end = time.monotonic() + PATIENCE_S
    while waiting():
        assert time.monotonic() < end, f"{waiting()} windows do not leave the outbox"
        time.sleep(0.05)  # no event tells that the agent has heard of the last


def _window(note: Note) -> Window:
    boot, sequence = note["key"]
    return Window(
        boot=boot,
        sequence=sequence,
        oldest=1,
        model="sleeper",
        version="1.0",
        bundle="0" * 64,
        artifact="sleeper-fp32",
        start_ms=note["start"],
        duration_ms=0,
        rows=note["rows"],
        outcomes={},
    )


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("image", type=Path)
    parser.add_argument("log", type=Path)
    parser.add_argument("--cases", type=int, default=60)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--of", type=int, default=0)
    parser.add_argument("--lag", type=int, default=0)
    given = parser.parse_args()
    entries = read_log(given.log)
    total = given.of or given.cases
    failed = 0
    lost = 0
    for case in range(given.first, min(total, given.first + given.cases)):
        cut = moment(entries, case, total)
        kept = list(survivors(entries, max(0, cut - given.lag), seed=case))
        lost += sum(there.count(False) for _, there in kept)
        image = given.image.with_suffix(".case")
        shutil.copyfile(given.image, image)
        write_image(given.log, image, kept)
        notes = notes_before(given.log, entries, cut)
        subprocess.run(["mount", "-o", "loop", image, MOUNT], check=True)
        try:
            broken = check(notes)
        finally:
            subprocess.run(["umount", MOUNT], check=True)
        if broken:
            failed += 1
            sys.stdout.write(f"case {case}, cut at {cut}: {'; '.join(broken)}\n")
        sys.stdout.flush()
    sys.stdout.write(
        f"machine: {given.cases} power cuts among {len(entries)} requests to the disk "
        f"({sum(1 for e in entries if e.flags & FLUSH)} flushes), {lost} unflushed sectors lost: "
        f"{failed} broke a promise\n"
    )
    return failed > 0


if __name__ == "__main__":
    sys.exit(main())
