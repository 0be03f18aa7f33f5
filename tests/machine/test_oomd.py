"""``systemd-oomd`` as Debian has it, which ends control groups before the kernel ends processes."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from support.agents import frame
from support.bundles import Budgets, sleeper_bundle
from support.sleeper.sleeper_runtime import GROW
from support.units import GROUP, Journal, Unit, run

from edgeml.device_agent.local.client import CallError

CONFIG = Path("/run/systemd/oomd.conf.d/tests.conf")
WORKERS = "/system.slice/edgeml-agent.service/edgeml-worker-"


@pytest.fixture
def oomd() -> Iterator[Journal]:
    """It acts once a group has waited for memory for a second; gives what it says from now on."""
    CONFIG.parent.mkdir(parents=True, exist_ok=True)
    CONFIG.write_text("[OOM]\nDefaultMemoryPressureDurationSec=1s\n")
    run("systemctl", "restart", "systemd-oomd")
    said = Journal("--unit", "systemd-oomd")
    yield said
    run("systemctl", "stop", "systemd-oomd")
    said.close()
    CONFIG.unlink()


@pytest.fixture(params=["", "edgeml"], ids=["root", "edgeml"])
def watched(unit: Unit, place: Path, oomd: Journal, request: pytest.FixtureRequest) -> Unit:
    """Serves, under the eyes of oomd; its worker is far below its own limit."""
    bundle = sleeper_bundle(place, budgets=Budgets(deadline_ms=100_000, memory_mb=1500))
    unit.install(f'[[model]]\nbundle = "{bundle}"\n', user=request.param)
    unit.adapt("ManagedOOMMemoryPressure=kill", "ManagedOOMMemoryPressureLimit=10%")
    unit.start()
    return unit


def give(memory: str) -> None:
    """What the service may have before the kernel makes it wait."""
    (GROUP / "memory.high").write_text(memory)


def assert_only_the_worker_was_ended(unit: Unit, oomd: Journal) -> None:
    killed = oomd.wait_for("Killed .* due to memory pressure")
    give("max")  # else there is a next one, fifteen seconds later
    assert f"Killed {WORKERS}" in killed
    line = unit.journal.wait_for(" memory-exceeded | worker-died ")
    assert " memory-exceeded " in line
    assert "its worker was killed by systemd-oomd" in line
    unit.journal.wait_for(" replaced ")
    with unit.client("sleeper") as client:
        client.infer({"image": frame(0.5)})
    assert unit.show("ActiveState") == "active"
    assert int(unit.show("NRestarts")) == 0


def test_a_worker_that_it_ends_is_told_as_that_and_replaced(watched: Unit, oomd: Journal):
    give("300M")
    with watched.client("sleeper") as client, pytest.raises(CallError):
        client.infer({"image": frame(GROW)})
    assert_only_the_worker_was_ended(watched, oomd)


@contextmanager
def asked(unit: Unit) -> Generator[None]:
    """A program asks all the time, and gets what answers it gets."""
    over = threading.Event()

    def ask() -> None:
        with unit.client("sleeper") as client:
            while not over.is_set():
                with contextlib.suppress(CallError):
                    client.infer({"image": frame(0.5)})

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        yield
    finally:
        over.set()
        asking.join()


def test_where_all_wait_for_memory_it_ends_the_worker_and_not_the_agent(
    watched: Unit, oomd: Journal
):
    """It takes the group whose pages it sees reclaimed most, which were the agent's."""
    with asked(watched):
        give("10M")
        assert_only_the_worker_was_ended(watched, oomd)
