"""A bundle, and real collectors with a database each."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from support.bundles import tiny_bundle
from support.collectors import CollectorProcess, Start
from support.devices import Source
from support.fleets import FleetStore


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny classifier's bundle."""
    return tiny_bundle(tmp_path_factory.mktemp("bundle"))


@pytest.fixture(scope="session")
def narrow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its bundle with 7 streams, of numbers, vectors and classes, in place of 17: for what goes the
    same way with each stream, and takes as long with each."""
    return tiny_bundle(tmp_path_factory.mktemp("narrow"), families={"image": "embedding"})


@pytest.fixture(scope="session")
def troubled(tmp_path_factory: pytest.TempPathFactory, bundle: Path) -> Path:
    """A database of two sites of four cameras, 44 windows of each: those of one site are dark since
    the 27th, one of the other as well, and another is frozen since the 31st.

    Made by the first of all processes that run tests; they change copies of it."""
    root = tmp_path_factory.getbasetemp()
    path = (root.parent if "PYTEST_XDIST_WORKER" in os.environ else root) / "troubled.sqlite"
    with path.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not path.exists():
            _trouble(path.with_suffix(".begun"), bundle)
            path.with_suffix(".begun").rename(path)
    return path


def _trouble(path: Path, bundle: Path) -> None:
    store = FleetStore(path, bundle)
    hall, yard = ([f"{site}/cam-{n}" for n in range(1, 5)] for site in ("hall", "yard"))
    sources = {name: Source(bundle, seed=n) for n, name in enumerate([*hall, *yard])}
    store.send(*((name, source.status()) for name, source in sources.items()))
    frozen = sources["yard/cam-4"].window()
    for slot in range(44):
        dark = {"yard/cam-1", *hall} if slot >= 26 else set[str]()
        batch = [(name, source.window(broken=name in dark)) for name, source in sources.items()]
        if slot >= 30:
            again = {"sequence": batch[-1][1].sequence, "start_ms": batch[-1][1].start_ms}
            batch[-1] = ("yard/cam-4", msgspec.structs.replace(frozen, **again))
        store.send(*batch)
    store.engine.dispose()  # the last connection leaves nothing beside the file


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
