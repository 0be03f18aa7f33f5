"""Workers that the kernel kills for a limit which is not their own: a container's, a service's."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.agents import StartAgent, frame
from support.bundles import Budgets, sleeper_bundle
from support.cgroups import limited_group
from support.sleeper.sleeper_runtime import GROW

from edgeml.device_agent.limits.cgroup import Files, Group, Version
from edgeml.device_agent.limits.kills import Kills, by_oomd, find_kills
from edgeml.device_agent.limits.limiter import Hold
from edgeml.device_agent.local.client import CallError

MB = 10**6


class Tree:
    """Control groups on ordinary files, ``slice/service/worker``, and what the kernel writes there.

    Args:
        top: folder of the outermost.
        version: whose files these are.
    """

    def __init__(self, top: Path, version: Version) -> None:
        self.version: Version = version
        self.slice = top / "slice"
        self.service = self.slice / "service"
        self.worker = self.service / "worker"
        self._kills = dict.fromkeys(self._chain(), 0)
        self._reached = dict(self._kills)
        self._limits: dict[Path, int] = {}
        self._used = dict(self._kills)
        self.worker.mkdir(parents=True)
        self._write()

    def limit(self, group: Path, limit: int, *, used: int) -> None:
        self._limits[group], self._used[group] = limit, used
        self._write()

    def reach(self, group: Path) -> None:
        """It is at its limit."""
        self._reached[group] += 1
        self._write()

    def kill_in(self, group: Path) -> None:
        """A process in it is killed for memory."""
        self._kills[group] += 1
        self._write()

    def _chain(self) -> tuple[Path, Path, Path]:
        return self.worker, self.service, self.slice

    def _write(self) -> None:
        for group in self._chain():
            below = [other for other in self._chain() if other.is_relative_to(group)]
            used, kills, reached = self._used[group], self._kills[group], self._reached[group]
            files = {
                "memory.limit_in_bytes": self._limits.get(group, 2**63 - 4096),
                "memory.usage_in_bytes": used,
                "memory.failcnt": reached,
                "memory.oom_control": f"oom_kill_disable 0\nunder_oom 0\noom_kill {kills}",
            }
            if self.version == "cgroup2":
                all_kills = sum(self._kills[other] for other in below)
                all_reached = sum(self._reached[other] for other in below)
                files = {
                    "memory.max": self._limits.get(group, "max"),
                    "memory.current": used,
                    "memory.events": f"oom {all_reached}\noom_kill {all_kills}",
                    "memory.events.local": f"oom {reached}\noom_kill {kills}",
                }
            files["memory.stat"] = "inactive_file 0\ntotal_inactive_file 0"
            for name, value in files.items():
                (group / name).write_text(f"{value}\n")


@pytest.fixture(params=["cgroup1", "cgroup2"])
def tree(tmp_path: Path, request: pytest.FixtureRequest) -> Tree:
    """Of each version."""
    return Tree(tmp_path, request.param)


def around(tree: Tree) -> Kills:
    """As an agent in the service sees them."""
    found = find_kills(Files(), {tree.version: tree.service})
    assert found is not None
    return found


def test_the_limit_of_the_service_is_told_where_the_worker_has_none(tree: Tree):
    tree.limit(tree.service, 300 * MB, used=290 * MB)
    hold = Hold(None, None, data_limit=True, around=around(tree))
    tree.reach(tree.service)
    tree.kill_in(tree.service)
    said = hold.breach(killed=True)
    assert "killed by the kernel for memory" in said
    assert f"in control group {tree.service}, which the agent runs in, 300 MB are allowed" in said


def test_a_limit_further_up_is_told_with_its_owner(tree: Tree):
    tree.limit(tree.service, 300 * MB, used=100 * MB)
    tree.limit(tree.slice, 400 * MB, used=390 * MB)
    hold = Hold(None, None, data_limit=True, around=around(tree))
    tree.reach(tree.slice)
    tree.kill_in(tree.service)
    assert f"in control group {tree.slice}, " in hold.breach(killed=True)


def test_of_two_groups_that_were_at_their_limit_it_is_the_one_that_leaves_less(tree: Tree):
    """The service was there for what it caches of files, which could be given back."""
    hold = Hold(None, None, data_limit=True, around=around(tree))
    tree.limit(tree.service, 300 * MB, used=100 * MB)
    tree.limit(tree.slice, 400 * MB, used=390 * MB)
    tree.reach(tree.service)
    tree.reach(tree.slice)
    tree.kill_in(tree.service)
    assert f"in control group {tree.slice}, " in hold.breach(killed=True)


def test_a_kill_at_no_limit_is_the_machines(tree: Tree):
    tree.limit(tree.service, 300 * MB, used=100 * MB)
    hold = Hold(None, None, data_limit=True, around=around(tree))
    tree.kill_in(tree.service)
    assert "the machine had none left" in hold.breach(killed=True)


def test_a_worker_that_was_not_killed_is_not_taken_for_one(tree: Tree):
    hold = Hold(None, None, data_limit=True, around=around(tree))
    tree.kill_in(tree.service)
    assert hold.breach(killed=False) == ""


def test_a_kill_before_the_worker_began_is_anothers(tree: Tree):
    kills = around(tree)
    tree.kill_in(tree.service)
    hold = Hold(None, None, data_limit=True, around=kills)
    assert hold.breach(killed=True) == ""


def test_of_two_workers_that_end_only_one_was_the_kernels(tree: Tree):
    kills = around(tree)
    holds = [Hold(None, None, data_limit=True, around=kills) for _ in range(2)]
    tree.kill_in(tree.service)
    assert [bool(hold.breach(killed=True)) for hold in holds] == [True, False]


def test_a_kill_in_another_group_below_is_not_this_ones(tree: Tree):
    hold = Hold(None, None, data_limit=True, around=around(tree))
    tree.kill_in(tree.worker)
    assert hold.breach(killed=True) == ""


def test_without_the_memory_controller_the_group_above_tells(tree: Tree):
    bare = tree.service / "scope"
    bare.mkdir()
    kills = find_kills(Files(), {tree.version: bare})
    assert kills is not None
    before = kills.now()
    tree.kill_in(tree.service)
    assert kills.claim(before) is not None


def test_where_no_group_tells_nothing_is_said(tmp_path: Path):
    assert find_kills(Files(), {"cgroup2": tmp_path}) is None
    assert Hold(None, None, data_limit=True).breach(killed=True) == ""


def test_before_linux_4_13_each_time_at_the_limit_counts_as_a_kill(tmp_path: Path):
    tree = Tree(tmp_path, "cgroup1")
    tree.limit(tree.service, 300 * MB, used=290 * MB)
    (tree.service / "memory.oom_control").write_text("oom_kill_disable 0\nunder_oom 0\n")
    hold = Hold(None, None, data_limit=True, around=around(tree))
    (tree.service / "memory.failcnt").write_text("1\n")
    assert "300 MB are allowed" in hold.breach(killed=True)


def test_a_kill_by_oomd_is_told_as_one(tmp_path: Path):
    """It is none of the kernel's, and leaves a note on the group that it ended."""
    group = tmp_path / "worker"
    group.mkdir()
    (group / "memory.events").write_text("oom 0\noom_kill 0\n")
    hold = Hold(10**9, Group(group, "cgroup2", Files()), data_limit=True)
    assert hold.breach(killed=True) == ""
    os.setxattr(group, "user.oomd_ooms", b"1")
    assert hold.breach(killed=False) == "", "the agent's own kill came first"
    assert "killed by systemd-oomd" in hold.breach(killed=True)


def test_a_group_of_this_kernels_takes_that_note():
    top = Path("/sys/fs/cgroup/unified")
    if not os.access(top / "cgroup.procs", os.W_OK):
        pytest.skip("needs root and version 2 of control groups beside version 1")
    group = top / f"edgeml-tests-{os.getpid()}"
    group.mkdir()
    try:
        assert not by_oomd(Files(), group)
        os.setxattr(group, "user.oomd_ooms", b"1")
        assert by_oomd(Files(), group)
    finally:
        group.rmdir()


@pytest.fixture
def small_group() -> Iterator[Path]:
    """A group of this kernel's, limited to 300 MB, as a container's is."""
    with limited_group("container", 300 * MB) as made:
        yield made


JOIN_AND_TAKE = """
import pathlib, sys
pathlib.Path(sys.argv[1], "cgroup.procs").write_text("0")
hoard = b"x" * int(sys.argv[2])
"""


@pytest.mark.parametrize("swap", [True, False], ids=["may swap", "may not swap"])
@pytest.mark.parametrize("inner", ["", "below"])
def test_the_kernel_tells_whose_limit_it_was(small_group: Path, inner: str, swap: bool):
    if not swap:
        together = small_group / "memory.memsw.limit_in_bytes"
        if not together.exists():
            pytest.skip("this kernel does not count swap")
        together.write_text(str(300 * MB))
    place = small_group / inner
    place.mkdir(exist_ok=True)
    kills = find_kills(Files(), {"cgroup1": place})
    assert kills is not None
    for _ in range(2):
        before = kills.now()
        for megabytes, status in (100, 0), (400, -signal.SIGKILL):
            assert kills.claim(before) is None
            command = [sys.executable, "-c", JOIN_AND_TAKE, str(place), str(megabytes * MB)]
            assert subprocess.run(command, check=False).returncode == status
        kill = kills.claim(before)
        assert kill is not None
        assert kill.limit is not None
        assert kill.limit.group == small_group
        assert kill.limit.limit_bytes // MB in {299, 300}  # it is held in whole pages


@pytest.mark.parametrize("memory_mb", [None, 1000])
def test_an_agent_in_a_container_tells_a_worker_killed_for_its_limit(
    small_group: Path, start_agent: StartAgent, tmp_path: Path, memory_mb: float | None
):
    """Whether the model has a limit of its own, which it did not reach, or none."""
    bundle = sleeper_bundle(tmp_path, budgets=Budgets(deadline_ms=60_000, memory_mb=memory_mb))
    inside = ["/bin/sh", "-c", 'echo 0 > "$0" && exec "$@"', str(small_group / "cgroup.procs")]
    agent = start_agent("--bundle", bundle, sleeper=True, under=inside).ready()
    with agent.client("sleeper") as client, pytest.raises(CallError):
        client.infer({"image": frame(GROW)})
    line = agent.wait_for(" memory-exceeded | worker-died ")
    assert f"in control group {small_group}, which the agent runs in, 300 MB are allowed" in line
    agent.wait_for(" replaced ")
    (worker,) = agent.workers()
    os.kill(worker, signal.SIGKILL)
    agent.wait_for(" worker-died .*died with SIGKILL, while idle")
    assert agent.terminate() == 0
