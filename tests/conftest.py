"""Shared by all tests: which belong here, system packages, and a real MQTT broker.

A test that needs a system package asks for it with the fixture ``require``. Where the package is
missing the test is skipped and says so; with ``CI=true`` that is a failure. ``make test`` installs
the packages where it can.
"""

from __future__ import annotations

import gc
import os
import shutil
import signal
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import pytest
from hypothesis import settings

from edgeml.toolchain import install, store
from edgeml.toolchain.spec import TOOLCHAINS

EXECUTABLES = {
    "mosquitto": ("mosquitto",),
    "chromium": ("chromium", "chromium-browser", "google-chrome"),
    "chromium-driver": ("chromedriver",),
}
"""Debian package → names of its program, here and on other systems."""

SEARCH_PATH = os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/sbin", "/usr/local/sbin"))

Require = Callable[[str], Path]

HEAVY = ("exporter", "targets")
"""Folders of tests that need the converters: ``make test`` runs them in the toolchain."""

IN_TOOLCHAIN = store.serves_in_place(TOOLCHAINS["export"])

collect_ignore = [] if IN_TOOLCHAIN else list(HEAVY)

ARM = (
    *("bundle", "statistics", "telemetry"),
    *("device_agent/test_arm.py", "device_agent/test_worker.py", "device_agent/test_admission.py"),
)
"""Folders and files of the suite ``arm``, which ``scripts/arm.sh`` runs on an emulated Cortex-A72:
the contracts that a device keeps, its worker, and the agent with every runtime that is there."""

ARM_PLACES = [Path(__file__).parent / name for name in ARM]

LONGEST = (
    *("device_agent/test_crash_table.py", "collector/test_keep.py", "demo/test_story.py"),
    *("exporter/test_export_repeatable.py", "exporter/test_export_roads.py"),
    *("exporter/test_export_live.py", "exporter/test_readme.py"),
)
"""Files that take longest. Workers begin with them, so that none is left with one at the end."""

# How long an example takes says nothing on a busy or an emulated machine.
settings.register_profile("edgeml", deadline=None)
settings.load_profile("edgeml")


def pytest_report_header() -> str:
    """Say which tests this environment leaves to another."""
    folders = " and ".join(f"tests/{name}" for name in HEAVY)
    if IN_TOOLCHAIN:
        return f"edgeml: the converters are here, so {folders} can run"
    return f"edgeml: no converters here, so {folders} are left out; `make test` runs all"


# What is imported and collected stays. To look for garbage in it takes a quarter of the collection,
# and time of every test that looks again.
gc.disable()


def pytest_collection_finish() -> None:
    gc.freeze()
    gc.enable()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what belongs to the suite ``arm``, and begin with what takes longest."""
    for item in items:
        if _on_arm(item.path):
            item.add_marker(pytest.mark.arm)
    places = [Path(__file__).parent / name for name in LONGEST]
    items.sort(key=lambda item: item.path not in places)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """``-m arm`` reads nothing else: what other tests import is not on every device."""
    if config.option.markexpr != "arm" or _on_arm(collection_path):
        return None
    return not any(place.is_relative_to(collection_path) for place in ARM_PLACES)


def _on_arm(path: Path) -> bool:
    return any(path.is_relative_to(place) for place in ARM_PLACES)


@pytest.fixture(autouse=True, scope="session")
def _interruptible() -> None:
    """Processes of the tests obey Ctrl-C, though a shell that runs `make test &` starts everything
    deaf to it."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True, scope="session")
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Keep the user's cache of exports out of it: a test that wants hits names one of its own."""
    os.environ["EDGEML_CACHE"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session")
def require() -> Require:
    """``require("mosquitto")``: the path of a system package's program, or a skip."""
    return find_program


def find_program(package: str) -> Path:
    for name in EXECUTABLES[package]:
        path = shutil.which(name, path=SEARCH_PATH)
        if path is not None:
            return Path(path)
    message = f"needs the system package {package}: apt-get install {package}"
    if os.environ.get("CI", "").lower() in ("1", "true"):
        pytest.fail(f"{message} (CI=true, so this is no skip)", pytrace=False)
    pytest.skip(message)


@pytest.fixture(scope="session")
def onnx2tf_wanted() -> None:
    """The toolchain ``onnx2tf`` is here, or on its way.

    It takes minutes: who has not asked for it (`make test` does) goes without these tests.
    """
    in_ci = os.environ.get("CI", "").lower() in ("1", "true")
    if store.find(TOOLCHAINS["onnx2tf"]).state == "absent" and not in_ci:
        pytest.skip("needs the toolchain onnx2tf: `make test` installs it")


@pytest.fixture(scope="session")
def onnx2tf(onnx2tf_wanted: None) -> Iterator[Path]:
    """The interpreter of the toolchain ``onnx2tf``, once an installation that goes on is over."""
    with install.ready(TOOLCHAINS["onnx2tf"], say=lambda _: None) as python:
        yield python


@dataclass
class Mosquitto:
    """A real Mosquitto on a loopback port that stays the same over :meth:`kill` and :meth:`start`.

    Anonymous, without persistence: what it holds is lost with it, as the worst broker would.
    """

    program: Path
    folder: Path
    port: int
    host: str = "127.0.0.1"
    _process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    def start(self) -> None:
        """Start it, and return when it listens."""
        config = self.folder / "mosquitto.conf"
        config.write_text(
            f"listener {self.port} {self.host}\n"
            "allow_anonymous true\npersistence false\nlog_dest stderr\nlog_type all\n"
        )
        self._process = subprocess.Popen(
            [str(self.program), "-c", str(config)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        assert self._process.stderr is not None
        log = (self.folder / "mosquitto.log").open("ab")
        for line in self._process.stderr:
            log.write(line)
            if b" running" in line:
                break
        else:
            log.close()
            pytest.fail(f"Mosquitto did not start: {log.name}", pytrace=False)
        # The rest of its log goes to the file too, so that the pipe never fills.
        threading.Thread(target=_drain, args=(self._process.stderr, log), daemon=True).start()

    def kill(self) -> None:
        """Kill it as a power cut would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


def _drain(source: IO[bytes], log: IO[bytes]) -> None:
    with source, log:
        shutil.copyfileobj(source, log)


@pytest.fixture
def mosquitto(require: Require, tmp_path: Path) -> Iterator[Mosquitto]:
    """A Mosquitto of this test's own, already listening."""
    folder = tmp_path / "mosquitto"
    folder.mkdir()
    broker = Mosquitto(require("mosquitto"), folder, free_port())
    broker.start()
    yield broker
    broker.kill()


@pytest.fixture
def unused_port() -> int:
    """A TCP port on loopback that nothing listens on."""
    return free_port()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
