"""Fixtures of the tests that need a whole machine: the agent as its service, started and ended."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.units import Journal, Unit

# They stop services, fill the memory and take drivers away: on scripts/machine.sh's machine only.
collect_ignore_glob = [] if Path("/etc/edgeml-machine").exists() else ["test_*.py"]


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder of this test that another user's service may read: pytest's own is closed to it."""
    for folder in (tmp_path, *tmp_path.parents[:2]):
        folder.chmod(0o755)
    return tmp_path


@pytest.fixture
def unit(place: Path) -> Iterator[Unit]:
    """The machine's agent, not yet installed; nothing is left of it afterwards."""
    found = Unit(place)
    found.bell.chmod(0o666)
    yield found
    found.remove()


@pytest.fixture
def kernel() -> Iterator[Journal]:
    """What the kernel says from now on."""
    found = Journal("--dmesg")
    yield found
    found.close()


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Tell a failure at once: the machine may be ended before the summary."""
    if report.failed:
        sys.stdout.write(f"\n{report.longreprtext}\n")
