"""A wall clock that is wrong by days, and jumps, loses no window and sends none twice."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest
from support.agents import PATIENCE_S, SUPPORT, AgentProcess, Collector, StartAgent
from support.bundles import tiny_bundle
from support.clock.sitecustomize import AHEAD
from support.weights import images

from edgeml.device_agent.uplink.delivery import Key
from edgeml.device_agent.uplink.outbox import Outbox
from edgeml.telemetry import Stored, encode

DAY_S = 86_400
OFF_LINE = (9 * DAY_S, -400 * DAY_S, 30 * DAY_S)
ON_LINE = (-3 * DAY_S, 2000 * DAY_S, 0)
"""How far the clock is ahead, one after another."""

CONFIG = """
[broker]
host = "{host}"
port = {port}
resend_s = 600  # no window goes again unless one of the jumps is taken for time that has passed
resend_cap_s = 600
backlog_s = 0.01
"""


class Clock:
    """Of the agents that are started from now on."""

    def __init__(self, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._file = file
        self.jump(0)
        monkeypatch.setenv(AHEAD, str(file))
        monkeypatch.setenv("PYTHONPATH", str(SUPPORT / "clock"), prepend=os.pathsep)

    def jump(self, ahead_s: int) -> None:
        new = self._file.with_suffix(".new")
        new.write_text(str(ahead_s))
        new.replace(self._file)


def close_two(agent: AgentProcess, before: int) -> None:
    """Two windows of one request each, the second of them begun after the first had ended."""
    with agent.client() as client:
        for n in (1, 2):
            client.infer({"image": images(1)[0]})
            assert " rows=1 " in agent.wait_for(" window ", count=before + n)


def waiting(agent: AgentProcess) -> int:
    """Windows that the collector has not acknowledged."""
    with agent.client() as client:
        outbox = client.get("/edgeml/v1/status")["outbox"]
    return outbox["waiting"] + outbox["numbered"]


def test_a_clock_that_jumps_by_days_loses_no_window_and_sends_none_twice(
    start_agent: StartAgent,
    tmp_path: Path,
    collector: Collector,
    mosquitto: Any,
    monkeypatch: pytest.MonkeyPatch,
):
    """Three jumps off line, then a power cut, then three on line while nothing is acknowledged."""
    clock = Clock(tmp_path / "ahead", monkeypatch)
    config = tmp_path / "agent.toml"
    config.write_text(CONFIG.format(host=mosquitto.host, port=mosquitto.port))
    bundle, began = tiny_bundle(tmp_path), time.monotonic()
    flags = ("--bundle", bundle, "--site", "plant", "--device", "cam", "--window", 0.2)
    agent = start_agent(*flags).ready()
    for n, ahead_s in enumerate(OFF_LINE):
        clock.jump(ahead_s)
        close_two(agent, 2 * n)
    agent.process.kill()
    agent.process.wait()

    collector.tells = False
    agent = start_agent(*flags, "--config", config).ready()
    collector.wait_for(lambda c: len(c.windows) == 2 * len(OFF_LINE), "backlog")
    for n, ahead_s in enumerate(ON_LINE):
        clock.jump(ahead_s)
        close_two(agent, 2 * n)
    count = 2 * len(OFF_LINE + ON_LINE)
    collector.wait_for(lambda c: len(c.windows) == count, "all windows")
    (boot,) = {window.boot for window in collector.windows.values()}
    assert waiting(agent) == count
    collector.publish(collector.topics.stored, encode(Stored(boot=boot, sequence=count - 1)))
    patience = time.monotonic() + PATIENCE_S
    while waiting(agent) != 1:  # the mark is for what is below it
        assert time.monotonic() < patience
    assert agent.terminate() == 0

    assert collector.received == count
    sent = [collector.windows[boot, n] for n in range(1, count + 1)]  # numbered without a gap
    backlog = len(OFF_LINE) * 2
    newest, *older = sent[:backlog]
    closed = [*older, newest, *sent[backlog:]]  # what was closed last goes first
    now_ms = time.time_ns() // 10**6
    took_ms = (time.monotonic() - began) * 1000
    # The wall clock says when a window began, right or wrong; nothing else goes by it.
    for window, ahead_s in zip(closed[1::2], OFF_LINE + ON_LINE, strict=True):
        assert now_ms - took_ms - 1 <= window.start_ms - ahead_s * 1000 <= now_ms
    for window in closed:
        assert (window.rows, window.outcomes["served"], window.merged) == (1, 1, 1)
        assert 200 <= window.duration_ms <= took_ms
    with Outbox(tmp_path / "state", boot="next", limit_bytes=10**6, events_kept=1) as box:
        assert box.pending() == [Key(boot, count)]
