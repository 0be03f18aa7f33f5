"""Memory limits by control groups of version 2, as the kernel holds them, and its pressure."""

from __future__ import annotations

import re
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from support.agents import frame
from support.bundles import Budgets, sleeper_bundle
from support.processes import children
from support.sleeper.sleeper_runtime import GROW
from support.units import GROUP, Journal, Unit, run

from edgeml.device_agent.limits.sensors import memory_pressure
from edgeml.device_agent.local.client import CallError

LIMIT_MB = 150
PAGE = 4096
LIMIT_KB = LIMIT_MB * 10**6 // PAGE * PAGE // 1024


def serving(bundle: Path, *lines: str) -> str:
    return "\n".join(["[[model]]", f'bundle = "{bundle}"', *lines, ""])


def limited(place: Path, **options: str) -> Path:
    budgets = Budgets(deadline_ms=100_000, memory_mb=LIMIT_MB)
    return sleeper_bundle(place, budgets=budgets, options=options)


@pytest.fixture
def swap(place: Path) -> Iterator[None]:
    """Room to evade into, were it allowed."""
    file = place / "swap"
    file.touch(0o600)
    run("dd", "if=/dev/zero", f"of={file}", "bs=1M", "count=300")
    run("mkswap", file)
    run("swapon", file)
    yield
    run("swapoff", file)


@pytest.mark.parametrize("user", ["", "edgeml"])
def test_a_worker_that_grows_ends_at_the_page_of_its_limit(
    unit: Unit, place: Path, kernel: Journal, swap: None, user: str
):
    unit.install(serving(limited(place)), user=user)
    unit.start()
    (worker,) = children(unit.pid)
    group = Path("/sys/fs/cgroup") / Path(f"/proc/{worker}/cgroup").read_text().strip()[4:]
    assert group.parent == GROUP
    assert int((group / "memory.max").read_text()) == LIMIT_KB * 1024
    assert (group / "memory.swap.max").read_text() == "0\n"
    with unit.client("sleeper") as client:
        with pytest.raises(CallError):
            client.infer({"image": frame(GROW)})
        line = unit.journal.wait_for("memory-exceeded")
        assert "wanted more memory than its control group gives it: 150 MB are allowed" in line
        # The kernel's own account of it.
        told = kernel.wait_for(r"memory: usage \d+kB, limit \d+kB")
        usage, limit = (int(found) for found in re.findall(r"(\d+)kB", told)[:2])
        assert usage == limit == LIMIT_KB
        swapped = kernel.wait_for(r"swap: usage \d+kB")
        assert "swap: usage 0kB" in swapped
        unit.journal.wait_for(" replaced ")
        client.infer({"image": frame(0.5)})
    assert not group.exists()
    assert unit.show("Result") == "success"
    assert int(unit.show("NRestarts")) == 0


def test_a_model_that_does_not_fit_while_it_loads_is_refused(
    unit: Unit, place: Path, kernel: Journal
):
    unit.install(serving(limited(place, megabytes="400")))
    run("systemctl", "enable", "--now", "--no-block", "edgeml-agent")
    kernel.wait_for(rf"memory: usage {LIMIT_KB}kB, limit {LIMIT_KB}kB")
    unit.journal.wait_for("refused .*150 MB are allowed")


NEIGHBOUR = """
hoard = bytearray(200_000_000)
while True:
    hoard[::4096] = bytes(len(hoard[::4096]))
"""
"""Wants more than the 30 MB that it is given."""


@contextmanager
def pressure() -> Generator[Path]:
    """A neighbour that the kernel makes wait for memory; gives the kernel's account of it."""
    limits = ("-p", "MemoryHigh=30M", "-p", "MemorySwapMax=0")
    run("systemd-run", "--unit=neighbour", *limits, "/usr/bin/python3", "-c", NEIGHBOUR)
    try:
        yield Path("/sys/fs/cgroup/system.slice/neighbour.service/memory.pressure")
    finally:
        run("systemctl", "stop", "neighbour")


def test_pressure_for_memory_leads_down_the_ladder_and_its_end_up_again(unit: Unit, place: Path):
    bundle = sleeper_bundle(place, options={"slow_s": "0.2"}, cheaper={})
    unit.install(serving(bundle, "deadline_ms = 30000", "ladder_s = 2", "quiet_s = 5"))
    unit.start()
    assert unit.status().models[0].step == 0
    with pressure() as account:
        unit.journal.wait_for(" degraded .*memory")
        assert unit.status().models[0].step == 1
        pressed = memory_pressure(account)
        assert pressed is not None
        assert pressed > 0.2
    unit.journal.wait_for(" restored ")
    assert unit.status().models[0].step == 0
