"""Shared by all tests: which belong here, system packages, and a real MQTT broker.

A test that needs a system package asks for it with the fixture ``require``. Where the package is
missing the test is skipped and says so; with ``CI=true`` that is a failure. ``make test`` installs
the packages where it can.
"""

from __future__ import annotations

import gc
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import settings
from support.brokers import Mosquitto, free_port
from support.programs import find_program

from edgeml.toolchain import install, store
from edgeml.toolchain.spec import TOOLCHAINS

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
    "toolchain/test_install.py",
    *("exporter/test_export_repeatable.py", "exporter/test_export_roads.py"),
    *("exporter/test_export_live.py", "exporter/test_readme.py"),
)
"""Files that take longest. Workers begin with them, so that none is left with one at the end."""

EXAMPLES = int(os.environ.get("EDGEML_TEST_EXAMPLES", "100"))
"""Of each property that says no number of its own. Fewer are wanted where the processor is
emulated."""

# How long an example takes says nothing on a busy or an emulated machine.
settings.register_profile("edgeml", deadline=None, max_examples=EXAMPLES)
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
