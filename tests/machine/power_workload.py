"""An agent at work on a disk whose every write is logged, and notes of what it has promised.

``power_workload prepare FOLDER`` puts what a device has before its first start into FOLDER, from
which the disk is made. ``power_workload run DISK`` runs inside the machine, started by
``power.service``, with DISK mounted at :data:`MOUNT`. Its notes lie on DISK behind the end of the
file system, written past all caches, so that the log has them in the order in which they are true.
What the agent stores is noted after it said so; what the collector stores, before the agent hears
of it.
"""

from __future__ import annotations

import itertools
import json
import mmap
import os
import re
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

from support.agents import PATIENCE_S, AgentProcess, Collector
from support.brokers import Mosquitto
from support.bundles import Budgets, sleeper_bundle
from support.programs import find_program
from support.weights import images

from edgeml.device_agent.local.client import Client
from edgeml.telemetry import Topics, Window

MOUNT = Path("/mnt")
PORT = 18831
NOTE = 4096
NOTES_AT = 96 * 2**20
"""Bytes on the disk: the file system ends here."""

VERSIONS = 6
REQUESTS = 12
"""For each version, in each of two halves: one with the collector, one without."""


class Notes:
    """What has been promised, in order."""

    def __init__(self, disk: Path) -> None:
        self._file = os.open(disk, os.O_WRONLY | os.O_DIRECT | os.O_DSYNC)
        self._block = mmap.mmap(-1, NOTE)  # O_DIRECT wants its memory aligned
        self._at = NOTES_AT
        self._lock = threading.Lock()

    def add(self, kind: str, **what: Any) -> None:
        with self._lock:
            text = json.dumps({"kind": kind, **what}).encode()
            self._block[:] = text.ljust(NOTE, b"\0")
            os.pwrite(self._file, self._block, self._at)
            self._at += NOTE


class NotingCollector(Collector):
    """Notes a window before it tells that it is stored."""

    def __init__(self, notes: Notes | None = None) -> None:
        self._notes = notes
        super().__init__("127.0.0.1", PORT, Topics("plant", "cam"))

    def _store(self, window: Window) -> None:
        key = (window.boot, window.sequence)
        if self.acknowledge and self._notes is not None and key not in self.windows:
            self._notes.add("collected", key=key, start=window.start_ms, rows=window.rows)
        super()._store(window)


def prepare(folder: Path) -> None:
    """All versions' bundles, and the configuration."""
    for number in range(1, VERSIONS + 1):
        sleeper_bundle(folder, version=f"{number}.0", budgets=Budgets(deadline_ms=60_000))
    (folder / "agent.toml").write_text(
        'site = "plant"\ndevice = "cam"\n'
        f'[broker]\nhost = "127.0.0.1"\nport = {PORT}\nbacklog_s = 0.01\n'
        '[[model]]\nbundle = "sleeper-1.0.edgeml"\nwindow_s = 0.5\n'
    )


def start_agent() -> AgentProcess:
    """On the disk, as it is."""
    (MOUNT / "state.bell").unlink(missing_ok=True)  # the sleeper's, of before the cut
    return AgentProcess("--config", MOUNT / "agent.toml", state=MOUNT / "state", sleeper=True)


def note_windows(agent: AgentProcess, notes: Notes) -> None:
    """Each window that the agent says it has stored, until its end."""
    for count in itertools.count(1):
        try:
            line = agent.wait_for(r" window .*rows=", count=count)
        except AssertionError:  # its log has no more
            return
        match = re.search(r"rows=(\d+)", line)
        assert match
        notes.add("closed", rows=int(match[1]))


def run(disk: Path) -> None:
    """Deploy one version after the other, with requests in between."""
    notes = Notes(disk)
    broker = start_broker()
    collector = NotingCollector(notes)
    agent = start_agent().ready()
    threading.Thread(target=note_windows, args=(agent, notes), daemon=True).start()
    notes.add("serves", version="1.0")
    with agent.client("sleeper") as client, Client(agent.socket, timeout_s=PATIENCE_S) as local:
        for number in range(1, VERSIONS + 1):
            if number > 1:
                notes.add("deploying", version=f"{number}.0")
                path = MOUNT / f"sleeper-{number}.0.edgeml"
                local.post("/edgeml/v1/models/sleeper/versions", {"bundle": str(path)})
                notes.add("serves", version=f"{number}.0")
            for listening in (True, False):
                collector.acknowledge = listening
                for one in images(REQUESTS, seed=number):
                    notes.add("request")
                    client.infer({"image": one[None]})
    collector.acknowledge = True
    assert agent.terminate() == 0
    broker.kill()
    sys.stdout.write(f"machine: status 0: {VERSIONS} versions\n")


def start_broker() -> Mosquitto:
    """A new one, which knows nothing."""
    folder = Path(tempfile.mkdtemp())
    broker = Mosquitto(find_program("mosquitto"), folder, PORT)
    broker.start()
    return broker


if __name__ == "__main__":
    {"prepare": prepare, "run": run}[sys.argv[1]](Path(sys.argv[2]))
