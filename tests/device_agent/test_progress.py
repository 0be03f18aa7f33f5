"""While an artifact loads for minutes, one can see how far it is: at the broker, on the device; and
what kept it from coming up."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

from support.agents import Collector, StartAgent
from support.bundles import sleeper_bundle, tiny_bundle
from support.services import serving

from edgeml.device_agent.serving.changeover import Changeover
from edgeml.device_agent.serving.service import Service
from edgeml.telemetry import Building


@contextmanager
def slow_to_load(path: Path) -> Iterator[dict[str, str]]:
    """Options of an artifact whose runtime builds its engine until the block ends."""
    os.mkfifo(path)
    try:
        yield {"gate": str(path)}
    finally:
        path.open("wb").close()  # waits for the runtime


def said(collector: Collector) -> list[Building]:
    """What was reported to be on its way, in order."""
    models = [model for reported in collector.reported for model in reported.models]
    return [model.building for model in models if model.building is not None]


def test_an_engine_that_is_built_is_progress_that_is_told(
    start_agent: StartAgent, collector: Collector, at_plant: list[str], tmp_path: Path
):
    with slow_to_load(tmp_path / "gate") as options:
        bundle = sleeper_bundle(tmp_path, options=options)
        agent = start_agent("--bundle", bundle, *at_plant, sleeper=True)
        collector.wait_for(lambda c: said(c) and said(c)[-1].elapsed_s > 3, "progress")
        first, last = said(collector)[0], said(collector)[-1]
        assert (last.version, last.artifact, last.stage) == ("1.0", "sleeper-fp32", "loading")
        assert first.elapsed_s < last.elapsed_s
        assert last.expected_s is None  # nobody knows yet
        assert collector.phase == "verified"
        shown = subprocess.run(
            [
                *(sys.executable, "-m", "edgeml", "agent", "status", "--once"),
                *("--socket", str(tmp_path / "state" / "agent.sock")),
            ],
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        assert "loading sleeper-fp32 of 1.0: " in shown
    agent.ready()
    collector.wait_for(lambda c: c.phase == "active", "a model that serves")
    collector.wait_for(lambda c: c.reported[-1].models[0].building is None, "the end of it")
    assert any(building.stage == "proving" for building in said(collector))


def test_the_version_before_tells_how_long_it_may_take(tmp_path: Path):
    first = sleeper_bundle(tmp_path)
    with serving(first, tmp_path) as desk:
        took = desk.service.snapshot().profile
        assert took is not None
        assert took.first_load_ms > 0
        with slow_to_load(tmp_path / "gate") as options:
            second = sleeper_bundle(tmp_path, version="2.0", options=options)
            change = threading.Thread(target=desk.adopt, args=(second,))
            change.start()
            desk.wait_until(lambda: desk.service.state.building, "second version on its way")
            state = desk.service.state
            assert (state.version, state.phase) == ("1.0", "active")  # which serves on
            assert desk.call().outcome == "served"
            assert state.building is not None
            assert state.building.version == "2.0"
            assert state.building.expected_s == took.first_load_ms / 1000
        change.join()
        state = desk.service.state
        assert (state.version, state.building) == ("2.0", None)


def test_a_fault_while_a_model_comes_up_is_told_before_it_has_settled(tmp_path: Path):
    def odd(_: Changeover) -> None:
        raise ZeroDivisionError("odd")

    settle: Any = Service._settle
    phases: list[str] = []

    def settles(service: Service) -> None:
        phases.append(service.state.phase)
        settle(service)

    with (
        patch.object(Changeover, "come_up", odd),
        patch.object(Service, "_settle", settles),
        serving(tiny_bundle(tmp_path), tmp_path) as desk,
    ):
        assert phases == ["failed"]
        assert desk.service.state.error == "odd"
