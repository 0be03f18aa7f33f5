"""A bundle, and real collectors with a database each."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.bundles import tiny_bundle
from support.collectors import CollectorProcess, Start
from support.fleets import FleetStore


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny classifier's bundle."""
    return tiny_bundle(tmp_path_factory.mktemp("bundle"))


@pytest.fixture
def store(tmp_path: Path, bundle: Path) -> FleetStore:
    """A database that knows the bundle."""
    return FleetStore(tmp_path / "fleet.sqlite", bundle)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts collectors on one database, one after another; all are gone afterwards."""
    running: list[CollectorProcess] = []

    def begin(*arguments: str, crash: str = "", database: str = "fleet.sqlite") -> CollectorProcess:
        process = CollectorProcess(
            *("--database", str(tmp_path / database)),
            *("--reference-windows", "20", "--per-windows", "2000", "--season", "none"),
            *arguments,
            log=tmp_path / f"collector-{len(running)}.log",
            crash=crash,
        )
        running.append(process)
        return process

    yield begin
    for process in running:
        process.close()
