"""The service under a real systemd: ready, watched, restarted and stopped."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path

import numpy as np
import pytest
from support.agents import frame, is_gone
from support.bundles import Budgets, sleeper_bundle, tiny_bundle
from support.sleeper.sleeper_runtime import HANG
from support.units import CONFIG, EDGEML, GROUP, Unit, run
from support.weights import images, scores

from edgeml.device_agent.local.client import CallError


def serving(bundle: Path, *lines: str) -> str:
    return "\n".join(["[[model]]", f'bundle = "{bundle}"', *lines, ""])


def assert_serves(unit: Unit) -> None:
    frames = images(1)
    with unit.client() as client:
        answer = client.infer({"image": frames})["scores"]
    np.testing.assert_allclose(answer, scores(frames), atol=1e-5)


def light(place: Path, *, deadline_ms: float = 30_000) -> Path:
    """A model without a library that takes long to load where the processor is emulated."""
    budgets = Budgets(deadline_ms=deadline_ms, memory_mb=300)
    return sleeper_bundle(place, name="tiny", budgets=budgets)


@pytest.mark.parametrize("user", ["", "edgeml"])
def test_it_is_started_when_its_model_serves(unit: Unit, place: Path, user: str):
    bundle = tiny_bundle(place, budgets=Budgets(deadline_ms=30_000, memory_mb=300))
    unit.install(f"awake_ms = 20\n{serving(bundle)}", user=user)
    unit.start()
    assert_serves(unit)
    assert unit.status().awake.problem == "", "another user than root is let keep cores awake"
    assert unit.show("StatusText") == "serving tiny 1.0 (onnx-fp32)"
    assert run("systemctl", "is-enabled", "edgeml-agent").strip() == "enabled"
    assert unit.show("User") == user
    assert Path("/run/edgeml/agent.sock").owner() == (user or "root")
    assert Path("/var/lib/edgeml").owner() == (user or "root")
    # Docs: systemd hands it its control group, in which each worker gets one with a limit.
    assert unit.status().models[0].memory_limit == "cgroup2"
    shown = run(EDGEML, "agent", "status", "--once")
    assert "cgroup2" in shown


def test_a_stop_ends_every_process_in_time(unit: Unit, place: Path):
    bundle = light(place, deadline_ms=3_000_000)
    unit.install(serving(bundle))
    unit.start()

    def call() -> None:
        with unit.client() as client, pytest.raises(CallError):
            client.infer({"image": frame(HANG)})

    caller = threading.Thread(target=call)
    caller.start()
    unit.wait_for_nap()  # its worker will not end by itself
    processes = unit.processes()
    assert unit.pid in processes
    assert len(processes) >= 2
    run("systemctl", "stop", "edgeml-agent")
    caller.join()
    assert unit.show("Result") == "success"  # and not "timeout": it was not killed
    assert all(is_gone(pid) for pid in processes)
    assert not GROUP.exists()


def test_an_end_that_takes_longer_than_the_units_time_is_waited_for(unit: Unit, place: Path):
    """The configuration changed after the unit was written; the agent says so as it ends."""
    bundle = light(place, deadline_ms=3_000_000)
    unit.install(f"drain_s = 15\n{serving(bundle)}")
    assert unit.show("TimeoutStopUSec") == "1min 10s"
    unit.adapt("TimeoutStopSec=3")
    unit.start()

    def call() -> None:
        with unit.client() as client, pytest.raises(CallError):
            client.infer({"image": frame(HANG)})

    caller = threading.Thread(target=call)
    caller.start()
    unit.wait_for_nap()
    run("systemctl", "stop", "edgeml-agent")
    caller.join()
    unit.journal.wait_for("not done 15 s after the end")
    assert unit.show("Result") == "success"


def test_an_agent_that_stands_still_is_killed_and_restarted(unit: Unit, place: Path):
    unit.install(serving(light(place)))
    unit.start()
    before, processes = unit.pid, unit.processes()
    os.kill(before, signal.SIGSTOP)
    unit.journal.wait_for(r"Watchdog timeout \(limit 30s\)!")
    unit.journal.wait_for(" ready ", count=2)
    assert unit.show("NRestarts") == "1"
    assert unit.pid != before
    assert all(is_gone(pid) for pid in processes)
    assert_serves(unit)
    assert unit.status().models[0].memory_limit == "cgroup2"


def test_what_is_killed_at_once_each_time_is_started_again_for_ever(unit: Unit, place: Path):
    """Ten ends within some seconds: by default systemd gives up after five."""
    unit.install(serving(light(place)))
    unit.adapt("RestartSec=100ms")
    run("systemctl", "enable", "--now", "--no-block", "edgeml-agent")
    seen: set[int] = set()
    while len(seen) < 10:
        pid = unit.pid
        if pid and pid not in seen:
            seen.add(pid)
            os.kill(pid, signal.SIGKILL)
    unit.journal.wait_for(" ready ")
    assert int(unit.show("NRestarts")) >= 10
    assert_serves(unit)


def test_a_configuration_that_was_wrong_is_taken_once_it_is_right(unit: Unit, place: Path):
    right = serving(light(place))
    unit.install(right)
    CONFIG.write_text("memory = 5\n")
    assert "failed" in run("systemctl", "enable", "--now", "edgeml-agent", check=False)
    unit.journal.wait_for("unknown key 'memory'", count=2)  # it is tried again, and again refused
    CONFIG.write_text(right)
    unit.journal.wait_for(" ready ")  # and then taken, though nobody restarted it
    assert_serves(unit)

    CONFIG.write_text("memory = 6\n")
    assert "failed" in run("systemctl", "restart", "edgeml-agent", check=False)
    CONFIG.write_text(right)
    run("systemctl", "restart", "edgeml-agent")
    assert unit.show("ActiveState") == "active"
    assert_serves(unit)
