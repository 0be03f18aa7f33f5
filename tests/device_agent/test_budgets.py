"""Deadline and memory limit are kept by killing the worker; another one takes its place."""

from __future__ import annotations

import os
import select
import signal
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path

import numpy as np
import pytest
from support.agents import PATIENCE_S, AgentProcess, Collector, StartAgent, frame, is_gone
from support.bundles import Budgets, sleeper_bundle
from support.sleeper.sleeper_runtime import CRASH, GROW, HANG, NAP, RAISE, SHOUT, SPIN
from support.weights import scores

from edgeml.device_agent.local.client import CallError, Client
from edgeml.device_agent.worker.output import MAX_BYTES

GOOD = frame(0.5)
SCHEDULING_S = 0.5 * PATIENCE_S / 60
"""For a busy or emulated processor to have its turn. The agent waits for nothing here."""


def call(agent: AgentProcess, image: np.ndarray) -> dict[str, np.ndarray]:
    with agent.client("sleeper") as client:
        return client.infer({"image": image})


def status_of(client: Client, command: float) -> int:
    try:
        client.infer({"image": frame(command)})
    except CallError as error:
        return error.status
    return 200


def misbehave(agent: AgentProcess, command: float) -> CallError:
    """Send a frame that the worker does not survive, and wait for the next worker."""
    (before,) = agent.workers()
    with pytest.raises(CallError) as caught:
        call(agent, frame(command))
    agent.wait_for(" replaced ")
    (after,) = agent.workers()
    assert after != before
    assert is_gone(before)
    np.testing.assert_allclose(call(agent, GOOD)["scores"], scores(GOOD), atol=1e-5)
    return caught.value


def test_a_stuck_inference_ends_at_its_deadline(start_agent: StartAgent, tmp_path: Path):
    bundle = sleeper_bundle(tmp_path, budgets=Budgets(deadline_ms=200))
    agent = start_agent("--bundle", bundle, sleeper=True).ready()
    error = misbehave(agent, HANG)
    assert error.status == 504
    assert "late: The deadline of 200 ms passed" in str(error)


def end_of(pid: int) -> Future[float]:
    """When a process ends, monotonic seconds: its descriptor becomes readable then (pidfd_open(2)),
    before anybody has reaped it."""
    descriptor = os.pidfd_open(pid)
    found: Future[float] = Future()

    def watch() -> None:
        select.select([descriptor], [], [])
        found.set_result(time.monotonic())
        os.close(descriptor)

    threading.Thread(target=watch, daemon=True).start()
    return found


@pytest.mark.parametrize(
    "command", [HANG, SPIN, SHOUT], ids=["sleeps for ever", "spins", "writes without end"]
)
def test_a_stuck_worker_is_gone_within_deadline_and_grace(
    start_agent: StartAgent, tmp_path: Path, command: float
):
    """And not before, as it might still have ended by itself."""
    sleeper_bundle(tmp_path)
    config = tmp_path / "agent.toml"
    config.write_text(
        '[[model]]\nbundle = "sleeper-1.0.edgeml"\ndeadline_ms = 200\ngrace_ms = 150\n'
    )
    agent = start_agent("--config", config, sleeper=True).ready()
    with agent.client("sleeper") as client:
        assert status_of(client, 0.5) == 200
        (worker,) = agent.workers()
        ended = end_of(worker)
        began, written = time.monotonic(), 0
        with ThreadPoolExecutor(1) as beside:
            answer = beside.submit(status_of, client, command)
            while not ended.done():  # the next worker's log takes its place
                logs = (tmp_path / "state" / "logs").iterdir()
                written = max(written, sum(path.stat().st_size for path in logs))
                wait([ended], timeout=0.005)
            assert answer.result(PATIENCE_S) == 504
        took_s = ended.result() - began
    assert 0.35 <= took_s <= 0.35 + SCHEDULING_S
    assert (written > 10_000) == (command == SHOUT)
    assert written <= MAX_BYTES + 100


def test_a_worker_over_its_memory_limit_is_replaced(start_agent: StartAgent, tmp_path: Path):
    bundle = sleeper_bundle(tmp_path, budgets=Budgets(deadline_ms=60_000, memory_mb=150))
    agent = start_agent("--bundle", bundle, sleeper=True).ready()
    agent.wait_for(" ready .* memory_limit=(cgroup2|cgroup1|poll)")
    error = misbehave(agent, GROW)
    assert error.status == 500
    assert "150 MB are allowed" in agent.wait_for("memory-exceeded")


def test_a_worker_that_crashes_is_replaced(start_agent: StartAgent, tmp_path: Path):
    agent = start_agent("--bundle", sleeper_bundle(tmp_path), sleeper=True).ready()
    error = misbehave(agent, CRASH)
    assert error.status == 500
    assert "died with SIGSEGV" in str(error)


def test_a_worker_that_is_killed_while_idle_is_replaced(start_agent: StartAgent, tmp_path: Path):
    agent = start_agent("--bundle", sleeper_bundle(tmp_path), sleeper=True).ready()
    (worker,) = agent.workers()
    os.kill(worker, signal.SIGKILL)
    agent.wait_for(" worker-died .*The worker died with SIGKILL, while idle")
    agent.wait_for(" replaced ")
    assert call(agent, GOOD)["scores"].shape == (1, 4)


def test_a_frame_that_the_runtime_refuses_costs_only_itself(
    start_agent: StartAgent, tmp_path: Path
):
    agent = start_agent("--bundle", sleeper_bundle(tmp_path), sleeper=True).ready()
    before = agent.workers()
    with pytest.raises(CallError, match="the runtime does not like this frame") as caught:
        call(agent, frame(RAISE))
    assert caught.value.status == 500
    assert call(agent, GOOD)
    assert agent.workers() == before


def test_a_model_whose_worker_cannot_load_is_refused(start_agent: StartAgent, tmp_path: Path):
    bundle = sleeper_bundle(tmp_path, options={"load": "crash"})
    agent = start_agent("--bundle", bundle, sleeper=True)
    assert agent.end() == 1
    assert "The worker died with SIGSEGV" in agent.lines[-1]


def test_a_model_that_needs_more_than_its_memory_to_prove_itself_is_refused(
    start_agent: StartAgent, tmp_path: Path
):
    bundle = sleeper_bundle(tmp_path, budgets=Budgets(memory_mb=5))
    agent = start_agent("--bundle", bundle, sleeper=True)
    assert agent.end() == 1
    assert "5 MB are allowed" in agent.lines[-1]


def test_a_model_that_keeps_dying_is_given_up_and_says_so(
    start_agent: StartAgent, tmp_path: Path, collector: Collector, at_plant: list[str]
):
    sleeper_bundle(tmp_path)
    config = tmp_path / "agent.toml"
    config.write_text('[[model]]\nbundle = "sleeper-1.0.edgeml"\nrestarts = 2\n')
    agent = start_agent("--config", config, *at_plant, sleeper=True).ready()
    for count in (1, 2):
        with pytest.raises(CallError):
            call(agent, frame(CRASH))
        agent.wait_for(" replaced ", count=count)
    with pytest.raises(CallError):
        call(agent, frame(CRASH))
    collector.wait_for(lambda c: c.phase == "failed", "failed phase")
    assert "3 workers of sleeper were lost" in collector.reported[-1].models[0].error
    collector.wait_for(lambda c: any(e.kind == "given-up" for e in c.events), "event")
    with pytest.raises(CallError) as caught:
        call(agent, GOOD)
    assert caught.value.status == 503
    assert agent.terminate() == 0


def test_every_request_is_in_a_window_exactly_once(
    start_agent: StartAgent, tmp_path: Path, collector: Collector, at_plant: list[str]
):
    """Good, slow, crashing and refused requests from several callers at once."""
    bundle = sleeper_bundle(tmp_path, budgets=Budgets(deadline_ms=150))
    agent = start_agent("--bundle", bundle, *at_plant, "--window", 0.2, sleeper=True).ready()
    commands = [0.5, 0.5, NAP, 0.5, CRASH, 0.5, RAISE, 0.5, 0.5, 0.5] * 2
    seen: list[int] = []

    def caller() -> None:
        with agent.client("sleeper") as client:
            seen.extend(status_of(client, command) for command in commands)

    callers = [threading.Thread(target=caller) for _ in range(4)]
    for one in callers:
        one.start()
    for one in callers:
        one.join()
    assert agent.terminate() == 0
    expect_outcomes(collector, seen)
    assert len(seen) == 4 * len(commands)
    assert collector.rows == seen.count(200)


def expect_outcomes(collector: Collector, seen: list[int]) -> None:
    """Of each status that programs saw as many as the windows say."""
    collector.wait_for(lambda c: sum(c.outcomes.values()) >= len(seen), "all outcomes")
    statuses = {"served": 200, "late": 504, "shed": 503, "failed": 500}
    assert collector.outcomes == {name: seen.count(code) for name, code in statuses.items()}


def test_every_request_is_accounted_for_while_workers_are_killed_under_it(
    start_agent: StartAgent, tmp_path: Path, collector: Collector, at_plant: list[str]
):
    """Killed from outside, whatever they are at, four times; programs on both wires."""
    bundle = sleeper_bundle(tmp_path, budgets=Budgets(deadline_ms=2_000))
    agent = start_agent("--bundle", bundle, *at_plant, "--window", 0.2, sleeper=True).ready()
    seen: list[int] = []
    stop = threading.Event()

    def caller(address: str | Path) -> None:
        with Client(address, "sleeper") as client:
            while not stop.is_set():
                seen.append(status_of(client, 0.5))

    callers = [
        threading.Thread(target=caller, args=(address,))
        for address in (agent.url, agent.url, agent.socket, agent.socket)
    ]
    for one in callers:
        one.start()
    for count in range(1, 5):
        served, patience = seen.count(200), time.monotonic() + PATIENCE_S
        while seen.count(200) < served + 20:
            assert time.monotonic() < patience
        (worker,) = agent.workers()
        os.kill(worker, signal.SIGKILL)
        agent.wait_for(" worker-died ", count=count)
        agent.wait_for(" replaced ", count=count)
    stop.set()
    for one in callers:
        one.join()
    assert agent.terminate() == 0
    expect_outcomes(collector, seen)
    assert collector.rows == seen.count(200)
    assert seen.count(500) <= 4, "a killed worker takes one request with it at most"


def test_each_model_has_budgets_of_its_own(start_agent: StartAgent, tmp_path: Path):
    """One hangs, the other takes all the memory that it may have; neither notices the other."""
    for name in ("strict", "patient"):
        sleeper_bundle(tmp_path, name=name)
    config = tmp_path / "agent.toml"
    config.write_text(
        '[[model]]\nbundle = "strict-1.0.edgeml"\ndeadline_ms = 200\nmemory_mb = 150\n'
        '[[model]]\nbundle = "patient-1.0.edgeml"\ndeadline_ms = 60_000\nmemory_mb = 300\n'
    )
    agent = start_agent("--config", config, sleeper=True).ready()

    def models() -> dict[str, dict]:
        with agent.client("patient") as client:
            return {model["name"]: model for model in client.get("/edgeml/v1/status")["models"]}

    assert {name: model["limit_mb"] for name, model in models().items()} == {
        "strict": 150,
        "patient": 300,
    }
    with agent.client("patient") as patient, agent.client("strict") as strict:
        assert status_of(patient, NAP) == 200
        assert status_of(strict, HANG) == 504
        agent.wait_for(" replaced model=strict ")
        assert status_of(patient, GROW) == 500
        assert "300 MB are allowed" in agent.wait_for(" memory-exceeded model=patient ")
        agent.wait_for(" replaced model=patient ")
        assert status_of(patient, 0.5) == status_of(strict, 0.5) == 200
    found = models()
    assert [found[name]["restarts"] for name in ("strict", "patient")] == [1, 1]
    assert found["strict"]["outcomes"] == {"served": 1, "late": 1, "shed": 0, "failed": 0}
    assert found["patient"]["outcomes"] == {"served": 2, "late": 0, "shed": 0, "failed": 1}
