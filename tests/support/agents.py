"""Agents as real processes, and a real MQTT client that does a collector's part."""

from __future__ import annotations

import os
import queue
import re
import select
import signal
import subprocess
import sys
import threading
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from edgeml.device_agent.local.client import Client
from edgeml.telemetry import Event, Reported, Status, Stored, Topics, Window, decode, encode
from support.cgroups import joining
from support.processes import children
from support.sleeper.sleeper_runtime import BELL

SUPPORT = Path(__file__).parent
PATIENCE_S = float(os.environ.get("EDGEML_TEST_PATIENCE_S", "60"))
"""Before a test gives up waiting for something; never a measure of how fast it should be. More is
wanted where the processor is emulated."""


class AgentProcess:
    """``edgeml agent run`` with its log.

    Args:
        arguments: of the command.
        state: its folder.
        sleeper: whether it knows the target of that name.
        under: a command that runs it.
    """

    def __init__(
        self, *arguments: object, state: Path, sleeper: bool = False, under: Sequence[str] = ()
    ) -> None:
        environment = {**os.environ, "PYTHONUNBUFFERED": "1", "PYTHONFAULTHANDLER": "1"}
        if sleeper:
            found = os.environ.get("PYTHONPATH", "")
            environment["PYTHONPATH"] = os.pathsep.join(
                filter(None, (str(SUPPORT / "sleeper"), found))
            )
            self._bell = state.with_name(f"{state.name}.bell")
            if not self._bell.exists():  # an earlier agent's on this state
                os.mkfifo(self._bell)
            environment[BELL] = str(self._bell)
            self._nap = os.open(self._bell, os.O_RDONLY | os.O_NONBLOCK)
        else:
            self._nap = -1
        given = [str(argument) for argument in arguments]
        if "--http" not in given:
            given += ["--http", "127.0.0.1:0"]
        if "--statistics-share" not in given:
            given += ["--statistics-share", "1"]  # what comes as fast as it can is counted in full
        self.process = subprocess.Popen(
            joining(
                [
                    *(*under, sys.executable, "-m", "edgeml", "agent", "run"),
                    *("--state", str(state), *given),
                ]
            ),
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
        )
        self.lines: list[str] = []
        self._grown = threading.Condition()
        self._ended = False
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        return self.process.pid

    def wait_for(self, pattern: str, *, count: int = 1) -> str:
        """The ``count``-th log line that matches."""
        expression = re.compile(pattern)

        def found() -> list[str]:
            return [line for line in self.lines if expression.search(line)]

        with self._grown:
            self._grown.wait_for(lambda: len(found()) >= count or self._ended, PATIENCE_S)
            matches = found()
            assert len(matches) >= count, f"no {pattern!r} in:\n" + "\n".join(self.lines)
            return matches[count - 1]

    def ready(self) -> AgentProcess:
        line = self.wait_for(r" ready | refused ")
        assert " ready " in line, line
        match = re.search(r"http=(\S+)", line)
        assert match
        self.url = match[1]
        match = re.search(r"socket=(\S+)", line)
        assert match
        self.socket = Path(match[1])
        return self

    def client(self, model: str = "tiny") -> Client:
        return Client(self.url, model)

    def workers(self) -> list[int]:
        """Process ids of its workers."""
        return children(self.pid)

    def wait_for_nap(self) -> None:
        """Until the sleeper is at work on a NAP or a HANG."""
        assert select.select([self._nap], [], [], PATIENCE_S)[0], "the worker never began"
        assert os.read(self._nap, 1) == b"x"

    def terminate(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.end()

    def end(self) -> int:
        try:
            return self.process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            self.process.send_signal(signal.SIGABRT)  # says where each thread is
            self._reader.join(PATIENCE_S)
            pytest.fail("the agent does not end:\n" + "\n".join(self.lines))
        finally:
            self._reader.join(PATIENCE_S)
            if self._nap >= 0:
                os.close(self._nap)
                self._nap = -1

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            with self._grown:
                self.lines.append(line.rstrip("\n"))
                self._grown.notify_all()
        with self._grown:
            self._ended = True
            self._grown.notify_all()


StartAgent = Callable[..., AgentProcess]


class Collector:
    """A collector's part of the conversation: stores each window once, then says so.

    ``acknowledge = False`` makes it one that is down, ``tells = False`` one that stores windows and
    does not say so.
    """

    def __init__(self, host: str, port: int, topics: Topics) -> None:
        self.topics = topics
        self.acknowledge = True
        self.tells = True
        self.windows: dict[tuple[str, int], Window] = {}
        self.received = 0
        self.statuses: list[tuple[Status, bool]] = []
        self.reported: list[Reported] = []
        self.events: list[Event] = []
        self.other: list[tuple[str, bytes]] = []
        self._changed = threading.Condition()
        self._subscribed: queue.Queue[int] = queue.Queue()
        self._client = paho.Client(CallbackAPIVersion.VERSION2, client_id="test-collector")
        self._client.on_connect = self._on_connect
        self._client.on_subscribe = lambda *_: self._subscribed.put(1)
        self._client.on_message = self._on_message
        self._client.reconnect_delay_set(0.05, 0.2)  # type: ignore[arg-type]
        self._client.connect(host, port)
        self._client.loop_start()
        self._subscribed.get(timeout=PATIENCE_S)

    def wait_for(self, condition: Callable[[Collector], Any], what: str) -> None:
        with self._changed:
            met = self._changed.wait_for(lambda: condition(self), PATIENCE_S)
        assert met, f"no {what}: {self.statuses} {self.reported} {self.events} {self.windows}"

    def publish(self, topic: str, payload: bytes) -> None:
        self._client.publish(topic, payload, qos=1).wait_for_publish(PATIENCE_S)

    @property
    def rows(self) -> int:
        return sum(window.rows for window in self.windows.values())

    @property
    def phase(self) -> str:
        """Of the only model, as last reported; empty where none was."""
        models = self.reported[-1].models if self.reported else ()
        return models[0].phase if models else ""

    @property
    def outcomes(self) -> dict[str, int]:
        total: dict[str, int] = defaultdict(int)
        for window in self.windows.values():
            for name, count in window.outcomes.items():
                total[name] += count
        return dict(total)

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def _on_connect(self, client: Any, *_: Any) -> None:
        client.subscribe([("edgeml/#", 1), ("results/#", 1)])

    def _on_message(self, client: Any, userdata: Any, message: Any) -> None:
        with self._changed:
            self._take(message.topic, message.payload, bool(message.retain))
            self._changed.notify_all()

    def _take(self, topic: str, payload: bytes, retained: bool) -> None:
        topics = self.topics
        if topic == topics.status:
            self.statuses.append((decode(payload, Status), retained))
        elif topic == topics.reported:
            self.reported.append(decode(payload, Reported))
        elif topic.startswith(topics.leaf("event", "x")[:-1]):
            self.events.append(decode(payload, Event))
        elif topic.startswith(topics.leaf("stats", "x")[:-1]):
            self._store(decode(payload, Window))
        elif topic != topics.stored:
            self.other.append((topic, payload))

    def _store(self, window: Window) -> None:
        self.received += 1
        if not self.acknowledge:
            return
        self.windows.setdefault((window.boot, window.sequence), window)
        if not self.tells:
            return
        mark = window.oldest - 1
        while (window.boot, mark + 1) in self.windows:
            mark += 1
        stored = Stored(boot=window.boot, sequence=mark)
        self._client.publish(self.topics.stored, encode(stored), qos=1)


def is_gone(pid: int) -> bool:
    """Whether a process has ended (a zombie has)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def frame(command: float) -> np.ndarray:
    """A frame that tells the sleeper what to do."""
    image = np.full((1, 1, 8, 8), 0.5, dtype=np.float32)
    image.flat[0] = command
    return image
