"""The device's disk is full while windows close: none that was closed is lost."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import Mock

import pytest
from support.agents import AgentProcess, Collector, StartAgent
from support.bundles import tiny_bundle
from support.disks import mounted
from support.weights import images

from edgeml.device_agent.closing import Closing
from edgeml.errors import AgentError
from edgeml.telemetry import Window


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Of 4 MB."""
    with mounted(tmp_path, "4m") as disk:
        yield disk


def fill(disk: Path) -> Path:
    """To the last byte."""
    path = disk / "filler"
    with path.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while file.write(bytes(4096)):
            pass
    return path


def close_window(agent: AgentProcess, rows: int) -> None:
    with agent.client() as client:
        for one in images(rows):
            client.infer({"image": one})


def test_what_closes_while_the_disk_is_full_waits_and_arrives(
    start_agent: StartAgent, tmp_path: Path, small_disk: Path, collector: Collector,
    at_plant: list[str],
):  # fmt: skip
    """More windows than are kept apart in memory; meanwhile requests are served."""
    agent = start_agent(
        "--bundle", tiny_bundle(tmp_path), *at_plant, "--window", 0.05, state=small_disk / "state"
    ).ready()
    close_window(agent, 3)
    collector.wait_for(lambda c: c.rows == 3, "a window while there is room")
    filler, refused = fill(small_disk), 0
    while refused < 20:
        close_window(agent, 2)
        refused += 1
        agent.wait_for("window not stored .*full", count=refused)
    filler.unlink()
    close_window(agent, 1)
    collector.wait_for(lambda c: c.rows == 3 + 2 * refused + 1, "all of them")
    assert agent.terminate() == 0
    assert collector.outcomes == {"served": collector.rows, "late": 0, "shed": 0, "failed": 0}
    assert sum(window.merged for window in collector.windows.values()) > len(collector.windows)


def test_the_log_does_not_grow_with_each_try(caplog: pytest.LogCaptureFixture):
    """It may go to the disk that is full, for a month."""
    windows = [
        Window(
            boot="-", sequence=1, oldest=1, model="tiny", version="1", bundle="0" * 64,
            artifact="onnx-fp32", start_ms=1, duration_ms=1000, rows=0,
            outcomes={"served": 1}, baseline="", statistics=[],
        )
        for _ in range(2)
    ]  # fmt: skip
    service, outbox = Mock(window_due=0.0), Mock(damaged="")
    service.windows.side_effect = [[windows[0]], *([[]] * 9), [windows[1]], *([[]] * 9)]
    outbox.append.side_effect = AgentError("the disk is full")
    closing = Closing([service], outbox, closed=Mock(), tell=Mock())
    for _ in range(20):
        closing.turn(only_due=True)
    assert outbox.append.call_count == 20
    assert [record.message for record in caplog.records] == ["window not stored"] * 2
