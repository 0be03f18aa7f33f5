"""Memory limits: version 1 of control groups for real, version 2 on a tree of files, and the poll.

What the kernel makes of the files of version 2 is shown in ``tests/machine``.
"""

from __future__ import annotations

import resource
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.agents import StartAgent, frame
from support.bundles import Budgets, sleeper_bundle
from support.cgroups import test_group as cgroup_of_tests
from support.sleeper.sleeper_runtime import GROW

from edgeml.device_agent.limits.cgroup import LEAF, Files, Parent, find_parent, own_groups
from edgeml.device_agent.limits.limiter import DATA_HEADROOM, Hold, Limiter
from edgeml.device_agent.limits.sensors import memory_pressure, temperature
from edgeml.device_agent.limits.watch import Watch
from edgeml.device_agent.local.client import CallError

MB = 10**6
ALLOCATE = """
import sys
sys.stdin.readline()
block = b"x" * int(sys.argv[1])
print("allocated", flush=True)
sys.stdin.readline()
"""
FOREVER = """
import sys
sys.stdin.readline()
hoard = []
while True:
    hoard.append(b"x" * 10**6)
"""


def start(program: str, *arguments: object) -> subprocess.Popen[str]:
    """A process that does nothing before it is told to go on."""
    return subprocess.Popen(
        [sys.executable, "-c", program, *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def go_on(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()


def held(hold: Hold, program: str, *arguments: object) -> int:
    """Run a program to its end under a hold; return its status."""
    process = start(program, *arguments)
    hold.take(process.pid)
    process.communicate("\n\n")
    return process.returncode


@pytest.fixture
def limiter() -> Iterator[Limiter]:
    """On control groups of version 1."""
    group = cgroup_of_tests()
    if group is None:
        pytest.skip("needs root, and control groups of version 1")
    parent = find_parent(Files(), {"cgroup1": group})
    assert parent is not None
    yield Limiter(parent)
    assert not [path for path in group.iterdir() if path.is_dir()]


def test_the_kernel_ends_a_worker_that_wants_more_than_its_limit(limiter: Limiter):
    hold = limiter.hold(60 * MB)
    assert hold.kind == "cgroup1"
    assert hold.polled_bytes is None
    assert held(hold, ALLOCATE, 100 * MB) == -signal.SIGKILL
    assert "its control group gives it: 60 MB are allowed" in hold.breach(killed=True)
    hold.close()


def test_a_worker_within_its_limit_lives(limiter: Limiter):
    hold = limiter.hold(60 * MB)
    assert held(hold, ALLOCATE, 30 * MB) == 0
    assert not hold.breach(killed=True)
    hold.close()


def test_a_worker_that_somebody_kills_did_not_exceed_its_memory(limiter: Limiter):
    hold = limiter.hold(60 * MB)
    process = start(ALLOCATE, 30 * MB)
    hold.take(process.pid)
    go_on(process)
    assert process.stdout is not None
    assert process.stdout.readline() == "allocated\n"
    process.kill()
    process.communicate()
    assert not hold.breach(killed=True)
    hold.close()


def test_to_let_go_kills_what_is_left_in_the_group(limiter: Limiter):
    hold = limiter.hold(60 * MB)
    process = start(ALLOCATE, MB)
    hold.take(process.pid)
    hold.close()
    assert process.wait() == -signal.SIGKILL
    process.communicate()


def test_a_group_of_an_agent_that_was_killed_is_swept_away(limiter: Limiter):
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    group = cgroup_of_tests()
    assert group is not None
    stale = group / f"edgeml-worker-{gone.pid}-1"
    stale.mkdir()
    Parent(group, "cgroup1", Files()).sweep()
    assert not stale.exists()


def test_a_worker_that_may_not_join_is_polled(limiter: Limiter):
    hold = limiter.hold(60 * MB)
    process = start(ALLOCATE, MB)
    process.kill()
    process.communicate()
    hold.take(process.pid)  # it is no more, so it cannot be moved
    assert hold.kind == "poll"
    assert hold.polled_bytes == 60 * MB
    hold.close()


def test_without_control_groups_data_is_limited():
    hold = Limiter(None).hold(50 * MB)
    assert hold.kind == "poll"
    process = start(ALLOCATE, 400 * MB)
    hold.take(process.pid)
    assert resource.prlimit(process.pid, resource.RLIMIT_DATA) == (50 * MB + DATA_HEADROOM,) * 2
    _, words = process.communicate("\n\n")
    assert "MemoryError" in words
    assert not hold.breach(killed=True)


def test_a_runtime_that_reserves_much_is_not_limited_in_its_data():
    hold = Limiter(None).hold(50 * MB, data_limit=False)
    process = start(ALLOCATE, MB)
    hold.take(process.pid)
    unlimited = (resource.RLIM_INFINITY,) * 2
    assert resource.prlimit(process.pid, resource.RLIMIT_DATA) == unlimited
    process.communicate("\n\n")


def test_no_limit_holds_nothing():
    hold = Limiter(None).hold(None)
    assert (hold.kind, hold.polled_bytes) == ("none", None)


class _Polled:
    """As much of a worker as the watch sees."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.pid = process.pid

    def resident_bytes(self) -> int | None:
        try:
            pages = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])
        except OSError:
            return None
        return pages * resource.getpagesize() or None

    def kill(self) -> None:
        self._process.kill()

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()


def test_the_poll_kills_a_worker_that_allocates_without_end():
    watch = Watch(0.02, Limiter(None))
    process = start(FOREVER)
    hold = watch.hold(80 * MB)
    hold.take(process.pid)
    gone = threading.Event()
    watched = watch.add(_Polled(process), hold=hold, gone=gone.set)  # type: ignore[arg-type]
    watch.start()
    go_on(process)
    assert gone.wait(60)
    assert process.wait() == -signal.SIGKILL
    assert watched.dead
    assert watched.exceeded_bytes > 80 * MB
    assert "80 MB are allowed" in watched.memory_breach()
    watched.close()
    watch.stop()


class FakeKernel(Files):
    """Version 2 on ordinary files: a new group has the files that the kernel would give it, and
    only delegated groups have those of the memory controller."""

    def __init__(self, *, busy: bool = False) -> None:
        self.busy = busy

    def make(self, path: Path) -> None:
        super().make(path)
        (path / "cgroup.procs").touch()
        (path / "cgroup.controllers").write_text("memory pids\n")
        (path / "cgroup.subtree_control").touch()
        if "memory" in (path.parent / "cgroup.subtree_control").read_text():
            for name in ("memory.max", "memory.swap.max", "memory.oom.group"):
                (path / name).touch()
            (path / "memory.events").write_text("low 0\nmax 3\noom 1\noom_kill 0\n")
            (path / "memory.current").write_text("0\n")
            (path / "memory.stat").write_text("inactive_file 0\n")

    def remove(self, path: Path) -> None:
        shutil.rmtree(path)

    def note(self, path: Path, name: str, value: bytes) -> None:
        (path / name).write_bytes(value)

    def write(self, path: Path, text: str) -> None:
        if path.name == "cgroup.subtree_control" and self.busy:
            raise OSError(16, "Device or resource busy")
        super().write(path, text)


@pytest.fixture
def delegated(tmp_path: Path) -> Path:
    """A service's group as systemd delegates it."""
    (tmp_path / "cgroup.controllers").write_text("cpu memory pids\n")
    (tmp_path / "cgroup.subtree_control").write_text("")
    (tmp_path / "cgroup.procs").write_text("")
    return tmp_path


def test_in_version_2_the_agent_makes_room_for_its_workers_groups(delegated: Path):
    parent = find_parent(FakeKernel(), {"cgroup2": delegated})
    assert parent is not None
    assert (delegated / LEAF / "cgroup.procs").read_text() == "0"
    assert (delegated / "cgroup.subtree_control").read_text() == "+memory"
    # Of its groups systemd-oomd is to take the agent's last.
    assert (delegated / LEAF / "user.oomd_avoid").read_bytes() == b"1"

    hold = Limiter(parent).hold(60 * MB)
    assert hold.kind == "cgroup2"
    hold.take(4242)
    (group,) = delegated.glob("edgeml-worker-*")
    assert (group / "cgroup.procs").read_text() == "4242"
    assert (group / "memory.max").read_text() == str(60 * MB)
    assert (group / "memory.swap.max").read_text() == "0"
    assert (group / "memory.oom.group").read_text() == "1"
    assert not hold.breach(killed=True)
    (group / "memory.events").write_text("low 0\nmax 9\noom 2\noom_kill 1\n")
    assert "its control group gives it: 60 MB are allowed" in hold.breach(killed=False)
    (group / "cgroup.procs").write_text("")
    hold.close()
    assert not group.exists()


def test_an_agent_that_is_in_its_leaf_already_uses_the_group_above(delegated: Path):
    kernel = FakeKernel()
    assert find_parent(kernel, {"cgroup2": delegated})
    again = find_parent(kernel, {"cgroup2": delegated / LEAF})
    assert again is not None
    assert Limiter(again).hold(MB).kind == "cgroup2"
    assert len(list(delegated.glob("edgeml-worker-*"))) == 1


def test_a_group_with_other_processes_is_left_as_it_was(delegated: Path):
    assert find_parent(FakeKernel(busy=True), {"cgroup2": delegated}) is None
    assert not (delegated / LEAF).exists()
    assert (delegated / "cgroup.procs").read_text() == "0"


def test_a_group_without_the_memory_controller_is_of_no_use(delegated: Path):
    (delegated / "cgroup.controllers").write_text("cpu pids\n")
    assert find_parent(FakeKernel(), {"cgroup2": delegated}) is None
    assert sorted(path.name for path in delegated.iterdir() if path.is_dir()) == []


V2_ONLY = "31 24 0:27 / /sys/fs/cgroup rw shared:9 - cgroup2 cgroup2 rw,nsdelegate\n"
V1_AND_V2 = (
    "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755\n"
    "35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
    "41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n"
)
CONTAINER = "35 31 0:32 /docker/abc /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
PLACES = {
    "systemd, version 2": (
        "0::/system.slice/edgeml.service\n",
        V2_ONLY,
        {"cgroup2": "/sys/fs/cgroup/system.slice/edgeml.service"},
    ),
    "both": (
        "4:memory:/a/b\n1:cpu:/\n0::/\n",
        V1_AND_V2,
        {"cgroup1": "/sys/fs/cgroup/memory/a/b", "cgroup2": "/sys/fs/cgroup/unified"},
    ),
    "container of version 1": (
        "4:cpu,memory:/docker/abc\n",
        CONTAINER,
        {"cgroup1": "/sys/fs/cgroup/memory"},
    ),
    "moved out of the mounted part": ("4:memory:/other\n", CONTAINER, {}),
    "outside of its namespace": ("0::/../../elsewhere\n", V2_ONLY, {}),
    "none mounted": ("0::/\n", "23 1 0:20 / / rw - ext4 /dev/sda rw\n", {}),
}


@pytest.mark.parametrize("case", PLACES)
def test_where_a_process_finds_its_own_groups(case: str):
    cgroup, mountinfo, expected = PLACES[case]
    found = own_groups(cgroup, mountinfo)
    assert {version: str(path) for version, path in found.items()} == expected


def test_the_agent_says_who_holds_the_limit_and_what_broke_it(
    start_agent: StartAgent, tmp_path: Path
):
    if cgroup_of_tests() is None:
        pytest.skip("needs root, and control groups of version 1")
    bundle = sleeper_bundle(tmp_path, budgets=Budgets(deadline_ms=60_000, memory_mb=150))
    agent = start_agent("--bundle", bundle, sleeper=True).ready()
    assert "memory_limit=cgroup1" in agent.wait_for(" ready ")
    (worker,) = agent.workers()
    assert f"/edgeml-worker-{agent.pid}-" in Path(f"/proc/{worker}/cgroup").read_text()
    with agent.client("sleeper") as client, pytest.raises(CallError):
        client.infer({"image": frame(GROW)})
    line = agent.wait_for("memory-exceeded")
    assert "wanted more memory than its control group gives it: 150 MB are allowed" in line
    agent.wait_for(" replaced ")
    assert agent.terminate() == 0
    group = cgroup_of_tests()
    assert group is not None
    assert not list(group.glob(f"edgeml-worker-{agent.pid}-*"))


def test_memory_pressure_is_a_share_of_the_last_seconds(tmp_path: Path):
    psi = tmp_path / "memory"
    psi.write_text(
        "some avg10=12.50 avg60=3.00 avg300=0.10 total=1\n"
        "full avg10=1.00 avg60=0.00 avg300=0.00 total=1\n"
    )
    assert memory_pressure(psi) == pytest.approx(0.125)
    assert memory_pressure(tmp_path / "absent") is None
    psi.write_text("nonsense\n")
    assert memory_pressure(psi) is None


def test_the_temperature_is_that_of_the_hottest_zone(tmp_path: Path):
    for index, text in enumerate(["48500\n", "61250\n", "-274000\n", "off\n"]):
        zone = tmp_path / f"thermal_zone{index}"
        zone.mkdir()
        (zone / "temp").write_text(text)
    (tmp_path / "cooling_device0").mkdir()
    assert temperature(tmp_path) == pytest.approx(61.25)
    assert temperature(tmp_path / "absent") is None


def test_this_machine_can_be_asked():
    pressure = memory_pressure()
    assert pressure is None or 0 <= pressure <= 1
    heat = temperature()
    assert heat is None or -50 < heat < 200
