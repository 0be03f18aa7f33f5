"""SIGTERM ends an agent in order; SIGKILL leaves nothing running, and no closed window is lost."""

from __future__ import annotations

import ctypes
import os
import re
import select
import signal
import socket
import threading
from pathlib import Path

import numpy as np
import psutil
import pytest
from support.agents import PATIENCE_S, Collector, StartAgent, frame, is_gone
from support.bundles import Budgets, sleeper_bundle, tiny_bundle
from support.sleeper.sleeper_runtime import HANG, NAP
from support.weights import images, scores

from edgeml.device_agent.local.client import CallError
from edgeml.device_agent.uplink.outbox import Outbox


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_in_order(
    start_agent: StartAgent, tmp_path: Path, collector: Collector, at_plant: list[str], number
):
    agent = start_agent("--bundle", tiny_bundle(tmp_path), *at_plant, "--window", 3600).ready()
    (worker,) = agent.workers()
    with agent.client() as client:
        for one in images(7):
            client.infer({"image": one})
    assert agent.terminate(number) == 0
    assert is_gone(worker)
    # The open window was closed and delivered before the goodbye.
    collector.wait_for(lambda c: not c.statuses[-1][0].online, "offline status")
    assert collector.rows == 7
    order = [line.split()[2] for line in agent.lines]
    assert order.index("ending") < order.index("window") < order.index("ended")


def test_a_signal_that_the_kernel_gives_to_another_thread_ends_it_too(
    start_agent: StartAgent, tmp_path: Path
):
    """The main thread waits in the kernel and is not interrupted then."""
    agent = start_agent("--bundle", tiny_bundle(tmp_path), "--window", 3600).ready()
    other = max(thread.id for thread in psutil.Process(agent.pid).threads())
    assert other != agent.pid
    assert ctypes.CDLL(None).tgkill(agent.pid, other, signal.SIGTERM) == 0
    assert agent.end() == 0


def test_the_request_at_hand_is_finished_and_what_waits_too(
    start_agent: StartAgent, tmp_path: Path
):
    agent = start_agent("--bundle", sleeper_bundle(tmp_path), sleeper=True).ready()
    answers: list[object] = []

    def call() -> None:
        with agent.client("sleeper") as client:
            try:
                answers.append(client.infer({"image": frame(NAP)}))
            except CallError as error:
                answers.append(error.status)

    callers = [threading.Thread(target=call) for _ in range(2)]
    for one in callers:
        one.start()
    agent.wait_for_nap()
    assert agent.terminate() == 0
    for one in callers:
        one.join()
    # The first was at work, the second waited or came too late: each got its own answer.
    assert len(answers) == 2
    assert any(isinstance(answer, dict) for answer in answers)
    assert all(isinstance(answer, dict) or answer in {503, 0} for answer in answers)


def test_windows_of_a_killed_agent_are_in_the_outbox(start_agent: StartAgent, tmp_path: Path):
    agent = start_agent("--bundle", tiny_bundle(tmp_path), "--window", 0.1).ready()
    with agent.client() as client:
        client.infer({"image": images(1)})
    agent.wait_for("INFO window ")
    agent.process.kill()
    agent.end()
    with Outbox(tmp_path / "state", boot="x", limit_bytes=10**6, events_kept=10) as outbox:
        (key,) = outbox.number(1, backlog=0)
        window = outbox.load(key)
        assert window is not None
        assert window.rows == 1


@pytest.mark.parametrize("busy", [False, True])
def test_sigkill_leaves_no_worker_behind(start_agent: StartAgent, tmp_path: Path, busy: bool):
    """A worker that waits sees the doorbell's end; one at work is killed by the kernel."""
    bundle = sleeper_bundle(tmp_path, budgets=Budgets(deadline_ms=600_000))
    agent = start_agent("--bundle", bundle, sleeper=True).ready()
    (worker,) = agent.workers()
    caller = threading.Thread(target=_hang, args=(agent,))
    if busy:
        caller.start()
        agent.wait_for_nap()
    pidfd = os.pidfd_open(worker)
    agent.process.kill()
    agent.end()
    assert select.select([pidfd], [], [], 30)[0]  # readable once the process has ended
    assert is_gone(worker)
    if busy:
        caller.join()


@pytest.mark.parametrize("behind", [False, True])
def test_what_hangs_is_broken_off_when_the_end_has_waited_for_it(
    start_agent: StartAgent,
    tmp_path: Path,
    collector: Collector,
    at_plant: list[str],
    behind: bool,
):
    """Its deadline is hours away: a service manager would have killed the agent before."""
    bundle = sleeper_bundle(tmp_path, budgets=Budgets(deadline_ms=10_000_000))
    config = tmp_path / "agent.toml"
    config.write_text(f'drain_s = 0.2\n[[model]]\nbundle = "{bundle}"\nwindow_s = 3600\n')
    agent = start_agent("--config", config, *at_plant, sleeper=True).ready()
    callers = [threading.Thread(target=_hang, args=(agent,)) for _ in range(1 + behind)]
    for caller in callers:
        caller.start()
    agent.wait_for_nap()
    assert agent.terminate() == 0
    for caller in callers:
        caller.join()
    assert "not done 0.2 s after the end" in agent.wait_for("broken off")
    # And all that comes after it came: the window in which it failed, and the goodbye.
    collector.wait_for(lambda c: not c.statuses[-1][0].online, "offline status")
    assert collector.outcomes["failed"] == 1


def test_all_models_drain_at_the_same_time(start_agent: StartAgent, tmp_path: Path):
    """One after another, a few that hang would take longer than a service manager waits."""
    budgets = Budgets(deadline_ms=10_000_000)
    bundles = [sleeper_bundle(tmp_path, name=name, budgets=budgets) for name in ("first", "second")]
    config = tmp_path / "agent.toml"
    models = "\n".join(f'[[model]]\nbundle = "{bundle}"' for bundle in bundles)
    config.write_text(f"drain_s = {PATIENCE_S}\n{models}\n")
    agent = start_agent("--config", config, sleeper=True).ready()
    caller = threading.Thread(target=_hang, args=(agent, "first"))
    caller.start()
    agent.wait_for_nap()
    agent.process.send_signal(signal.SIGTERM)
    with pytest.raises(CallError, match="agent is ending"):
        _call_without_end(agent, "second")
    assert not any("broken off" in line for line in agent.lines), "the first one still drains"
    for worker in agent.workers():
        os.kill(worker, signal.SIGKILL)
    assert agent.end() == 0
    caller.join()


def test_a_file_that_hangs_does_not_hold_up_the_end_and_is_left(
    start_agent: StartAgent, tmp_path: Path
):
    bundle = sleeper_bundle(tmp_path, budgets=Budgets(deadline_ms=10_000_000))
    config = tmp_path / "agent.toml"
    config.write_text(
        f'drain_s = 0.2\n[[model]]\nbundle = "{bundle}"\n[[model.folder]]\npath = "in"\n'
    )
    agent = start_agent("--config", config, sleeper=True).ready()
    np.save(tmp_path / "in" / ".frame.npy", frame(HANG))
    file = (tmp_path / "in" / ".frame.npy").rename(tmp_path / "in" / "frame.npy")
    agent.wait_for_nap()
    assert agent.terminate() == 0
    assert file.exists(), "for the next run"
    assert not any(" window " in line for line in agent.lines), "which counts it"


def test_a_file_that_is_left_half_way_is_gone_on_with_and_no_sample_is_counted_twice(
    start_agent: StartAgent, tmp_path: Path
):
    bundle = sleeper_bundle(tmp_path, budgets=Budgets(deadline_ms=60_000))
    config = tmp_path / "agent.toml"
    config.write_text(
        f'[[model]]\nbundle = "{bundle}"\n[[model.folder]]\npath = "in"\nresults = "out"\n'
    )
    samples = images(6, seed=4)
    samples[2:] = frame(NAP)[0]
    hidden = tmp_path / "in" / ".batch.npy"
    served: list[int] = []
    for run in range(2):
        agent = start_agent("--config", config, sleeper=True).ready()
        if run == 0:
            np.save(hidden, samples)
            hidden.rename(tmp_path / "in" / "batch.npy")
            agent.wait_for_nap()  # it is at the third
        else:
            while not (tmp_path / "in" / "done" / "batch.npy").exists():
                assert agent.process.poll() is None
        assert agent.terminate() == 0
        found = re.search(r"served=(\d+)", agent.wait_for(" window "))
        assert found
        served.append(int(found[1]))
    assert served[0] >= 3
    assert sum(served) == 6
    with np.load(tmp_path / "out" / "batch.npz") as answers:
        np.testing.assert_allclose(answers["scores"], scores(samples), atol=1e-4)
    assert not list((tmp_path / "state").glob("begun-*"))


def test_a_file_that_is_left_half_way_comes_before_one_that_is_older(
    start_agent: StartAgent, tmp_path: Path
):
    """Else that one might be left half way, too, and the first forgotten and begun anew."""
    bundle = sleeper_bundle(tmp_path, budgets=Budgets(deadline_ms=60_000))
    config = tmp_path / "agent.toml"
    config.write_text(f'[[model]]\nbundle = "{bundle}"\n[[model.folder]]\npath = "in"\n')
    inbox = tmp_path / "in"
    inbox.mkdir()
    samples = np.concatenate([frame(NAP)] * 5)
    served = 0
    left: list[str] = []
    for name, stamp_s in [("first.npy", 2000), ("older.npy", 1000)]:
        np.save(tmp_path / name, samples)
        os.utime(tmp_path / name, (stamp_s, stamp_s))
        (tmp_path / name).rename(inbox / name)
        agent = start_agent("--config", config, sleeper=True).ready()
        agent.wait_for_nap()
        assert agent.terminate() == 0
        found = re.search(r"served=(\d+)", agent.wait_for(" window "))
        assert found
        served += int(found[1])
        left += [line for line in agent.lines if " file left " in line]
    assert all("first.npy" in line for line in left), left
    assert f"samples={served}" in left[-1], "from the one run to the next"


def test_an_agent_that_was_killed_starts_again_on_its_state(
    start_agent: StartAgent, tmp_path: Path
):
    for _ in range(2):
        agent = start_agent("--bundle", tiny_bundle(tmp_path)).ready()
        assert agent.process.poll() is None, "it serves, on what the killed one left"
        agent.process.kill()
        assert agent.end() == -signal.SIGKILL


def test_a_caller_that_stays_connected_does_not_hold_up_the_end(
    start_agent: StartAgent, tmp_path: Path
):
    agent = start_agent("--bundle", tiny_bundle(tmp_path)).ready()
    host, port = agent.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as idle:
        idle.sendall(b"GET /v2/health/live HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert idle.recv(100).startswith(b"HTTP/1.1 200")
        assert agent.terminate() == 0


def _call_without_end(agent, model: str) -> None:
    with agent.client(model) as client:
        while True:
            client.infer({"image": frame(0.5)})


def _hang(agent, model: str = "sleeper") -> None:
    with agent.client(model) as client, pytest.raises(CallError):
        client.infer({"image": frame(HANG)})


@pytest.mark.parametrize("options", [{"load": "hang"}, {"hang_at": "1"}], ids=["loads", "proves"])
def test_a_signal_while_a_model_comes_up_does_not_wait_for_it(
    start_agent: StartAgent, tmp_path: Path, options: dict[str, str]
):
    """It may take until its start_timeout_s: minutes."""
    bundle = sleeper_bundle(tmp_path, options=options)
    agent = start_agent("--bundle", bundle, sleeper=True)
    agent.wait_for_nap()
    (worker,) = agent.workers()
    assert agent.terminate() == 0
    assert is_gone(worker)
