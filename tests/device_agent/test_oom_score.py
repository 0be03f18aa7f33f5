"""Where memory ends, the kernel takes a worker before the agent and before other programs."""

from __future__ import annotations

import mmap
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from support.agents import PATIENCE_S, StartAgent
from support.bundles import sleeper_bundle, tiny_bundle
from support.cgroups import limited_group

from edgeml.device_agent.limits.oom_score import SERVING, SPARE, set_score
from edgeml.device_agent.local.client import Client

MB = 10**6
OWN = int(Path("/proc/self/oom_score_adj").read_text())


def score(pid: int) -> int:
    """What the kernel adds to a process's share of the memory, above what it has of the tests."""
    return int(Path(f"/proc/{pid}/oom_score_adj").read_text()) - OWN


needs_room = pytest.mark.skipif(
    OWN < 0 or OWN + SPARE > 1000, reason="these tests themselves were given a score"
)


@needs_room
def test_a_worker_goes_before_the_agent_and_a_spare_one_before_what_serves(
    start_agent: StartAgent, tmp_path: Path
):
    """Also where the spare one has come to serve."""
    sleeper_bundle(tmp_path)
    config = tmp_path / "agent.toml"
    config.write_text('[[model]]\nbundle = "sleeper-1.0.edgeml"\nstandby = true\n')
    agent = start_agent("--config", config, sleeper=True).ready()
    agent.wait_for(" standby ")
    assert score(agent.pid) == 0
    first, second = agent.workers()
    assert {score(first), score(second)} == {SERVING, SPARE}
    serving, spare = sorted((first, second), key=score)
    os.kill(serving, signal.SIGKILL)
    assert f"pid={spare}" in agent.wait_for(" replaced ")
    assert score(spare) == SERVING
    agent.wait_for(" standby ", count=2)
    (other,) = set(agent.workers()) - {spare}
    assert score(other) == SPARE


@needs_room
@pytest.mark.parametrize(("wish", "expected"), [("shadow", SPARE), ("split", SERVING)])
def test_a_guest_is_spare_unless_it_serves(
    start_agent: StartAgent, tmp_path: Path, wish: str, expected: int
):
    agent = start_agent("--bundle", tiny_bundle(tmp_path, version="1.0")).ready()
    (active,) = agent.workers()
    guest = str(tiny_bundle(tmp_path, version="2.0"))
    share = {"share": 0.5} if wish == "split" else {}
    with Client(agent.socket, timeout_s=PATIENCE_S) as client:
        client.post("/edgeml/v1/models/tiny/versions", {"bundle": guest, "mode": wish, **share})
    (other,) = set(agent.workers()) - {active}
    assert (score(active), score(other)) == (SERVING, expected)


@pytest.mark.parametrize(("own", "expected"), [(0, 500), (-900, 500), (300, 800), (700, 1000)])
def test_it_stands_above_the_agents_own_and_above_other_programs(
    tmp_path: Path, own: int, expected: int
):
    """An agent that is protected, or one of a container that may go first."""
    for process, found in ("self", own), ("7", own):
        (tmp_path / process).mkdir()
        (tmp_path / process / "oom_score_adj").write_text(f"{found}\n")
    set_score(7, SERVING, proc=tmp_path)
    assert int((tmp_path / "7/oom_score_adj").read_text()) == expected


def test_a_process_that_is_gone_has_none(tmp_path: Path):
    (tmp_path / "self").mkdir()
    (tmp_path / "self/oom_score_adj").write_text("0\n")
    set_score(7, SERVING, proc=tmp_path)
    assert not (tmp_path / "7").exists()


HOLD = """
import pathlib, sys
group = pathlib.Path(sys.argv[1])
(group / "cgroup.procs").write_text("0")
hoard = bytearray(b"x") * 100_000_000
print("has it", flush=True)
sys.stdin.read()
"""

HOARD = """
import pathlib, sys
group = pathlib.Path(sys.argv[1])
(group / "cgroup.procs").write_text("0")
hoard = []
while "oom_kill 0" in (group / "memory.oom_control").read_text():
    hoard.append(bytearray(b"x") * 2**20)
print(len(hoard))
"""
"""A program that takes memory until somebody in its group was killed for it."""


def test_when_programs_have_taken_all_memory_the_small_worker_goes(
    start_agent: StartAgent, tmp_path: Path
):
    """In a group of this kernel's, with two programs that have twice the worker's and more.
    Nobody else is killed, and another worker takes its place."""
    with limited_group("small", 300 * MB) as group:
        inside = ["/bin/sh", "-c", 'echo 0 > "$0" && exec "$@"', str(group / "cgroup.procs")]
        agent = start_agent("--bundle", sleeper_bundle(tmp_path), sleeper=True, under=inside)
        agent.ready()
        (worker,) = agent.workers()
        worker_mb = resident_mb(worker)
        with subprocess.Popen(
            [sys.executable, "-c", HOLD, str(group)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as holder:
            assert holder.stdout is not None
            assert holder.stdout.readline() == "has it\n"
            hoarder = subprocess.run(
                [sys.executable, "-c", HOARD, str(group)],
                check=False,
                stdout=subprocess.PIPE,
                text=True,
            )
            assert hoarder.returncode == 0, "the program that takes memory was killed"
            assert int(hoarder.stdout) > 2 * worker_mb, "the worker was the largest by itself"
            line = agent.wait_for(" memory-exceeded | worker-died ")
            assert f"in control group {group}, which the agent runs in, 300 MB are allowed" in line
            agent.wait_for(" replaced ")
            assert holder.poll() is None
            holder.communicate("")
        assert holder.returncode == 0
        assert agent.terminate() == 0


def resident_mb(pid: int) -> float:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * mmap.PAGESIZE / MB
