"""Killed, struck by an exception, out of space or with a broken medium, at every single step of a
device's life; then started again.

The life below installs, confirms, shadows and rolls back versions, and stores and sends windows.
Each row of the table is that life in a process of its own, with one fault at one step. Whatever it
was, afterwards the device serves the version from before the step or the one after it, whole, takes
another version, and the collector counts each window that was stored once, and none twice.

The real thing does all this but run the model: :class:`Bench` stands for the service. Real agents
are killed in the second test.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from support.agents import StartAgent
from support.bundles import tiny_bundle
from support.counts import cells_of, packed
from support.crashes import KINDS, FaultError, Faults, FaultyDisk, Journal, Kind
from support.weights import images

from edgeml.bundle import Bundle
from edgeml.device_agent.install.disk import Disk
from edgeml.device_agent.install.installer import Installer
from edgeml.device_agent.install.ledger import Ledger
from edgeml.device_agent.install.remains import Remains
from edgeml.device_agent.install.shelf import Shelf
from edgeml.device_agent.install.versions import Shelved
from edgeml.device_agent.local.client import CallError, Client
from edgeml.device_agent.uplink.outbox import STEPS, Outbox
from edgeml.errors import AgentError, EdgemlError
from edgeml.targets.tensorrt import caches
from edgeml.targets.tensorrt.caches import Engine
from edgeml.telemetry import Event, Window, decode, encode

WINDOWS = 10
LIMIT_BYTES = 1_200
"""Of the outbox: some windows have to be merged."""


class Bench:
    """Stands for a service: a version serves, if its bundle can be read."""

    def __init__(self, journal: Journal, remains: dict[str, Path]) -> None:
        self._journal = journal
        self._remains = remains
        self.serving = ""
        self.bundle = ""

    def _up(self, bundle: Bundle) -> None:
        """Leaves what a version leaves."""
        assert len(bundle.golden()) == 8
        name = bundle.sha256[:16]
        bundle.extract(bundle.manifest.artifacts[0], self._remains["artifacts"] / name)
        self._remains["profiles"].mkdir(exist_ok=True)
        (self._remains["profiles"] / f"{name}-onnx-fp32.json").write_text("{}")
        model = bundle.manifest.artifacts[0].files[0].sha256
        engine = self._remains["engines"] / str(Engine(caches.model_of(model), "a" * 16, "b" * 8))
        os.close(caches.hold(engine))
        caches.loaded(engine)

    def put(self, bundle: Bundle) -> None:
        self.serving, self.bundle = bundle.manifest.version, bundle.sha256
        self._journal.note(serves=self.serving)

    @property
    def ready(self) -> bool:
        return bool(self.serving)

    def adopt(self, bundle: Bundle, *, proved: Callable[[], None], **_: object) -> Any:
        self._up(bundle)
        proved()
        self.put(bundle)
        return SimpleNamespace(artifact="onnx-fp32", beside=True)

    def accompany(self, bundle: Bundle, *, proved: Callable[[], None], **_: object) -> Any:
        self._up(bundle)
        proved()
        return SimpleNamespace(artifact="onnx-fp32", beside=True)

    def dismiss(self) -> None:
        pass


class Device:
    """One start of a device, up to the version that serves."""

    def __init__(self, folder: Path, boot: str, faults: Faults | None = None) -> None:
        self.folder = folder
        self.journal = Journal(folder)
        state = folder / "state"
        state.mkdir(exist_ok=True)
        at = faults.outbox if faults else lambda _: None
        self.outbox = Outbox(state, boot=boot, limit_bytes=LIMIT_BYTES, events_kept=10, at=at)
        disk = FaultyDisk(faults) if faults else Disk()
        self.remains = {kind: state / kind for kind in ("artifacts", "profiles", "engines")}
        shelf = Shelf(Ledger(state, disk), Remains(disk, **self.remains), lambda *_: None)
        self.installer = Installer(shelf, healthy_s=0.0, tell=lambda *_: None)
        self.bench = Bench(self.journal, self.remains)
        with contextlib.suppress(EdgemlError):  # nothing serves: the agent ends, and says why
            self._come_up(Shelved(shelf, folder / "tiny-1.edgeml"))
            self.installer.serves("tiny", self.bench)

    def _come_up(self, versions: Shelved) -> None:
        for bundle in versions.choices():
            if self._attempt(versions, bundle):
                return

    def _attempt(self, versions: Shelved, bundle: Bundle) -> bool:
        try:
            self.bench._up(bundle)
            versions.proved(bundle)
        except EdgemlError as error:
            versions.refused(bundle, error)
            return False
        self.bench.put(bundle)
        return True

    def install(self, version: str, **wish: Any) -> None:
        """As a person does: told whether it worked."""
        active = wish.get("mode", "active") == "active"
        self._change(
            version if active else "",
            lambda: self.installer.install("tiny", self.folder / f"tiny-{version}.edgeml", **wish),
        )

    def roll_back(self) -> None:
        fallback = self.installer.records["tiny"].fallback
        self._change(fallback.version if fallback else "", lambda: self.installer.rollback("tiny"))

    def dismiss(self) -> None:
        self._change("", lambda: self.installer.dismiss("tiny"))

    def confirm(self) -> None:
        with contextlib.suppress(AgentError):
            self.installer._confirm()

    def _change(self, to: str, change: Callable[[], object]) -> None:
        before = self.bench.serving
        self.journal.note(wish=to)
        with contextlib.suppress(EdgemlError):
            change()
            self.journal.note(done=to)
        assert self.bench.serving in {before, to}

    def store(self, index: int) -> None:
        """A window that closes; ``index`` is the one cell in it that has a count."""
        cells = [int(cell == index) for cell in range(WINDOWS)]
        window = Window(
            boot="-", sequence=1, oldest=1, model="tiny", version="1", bundle="0" * 64,
            artifact="onnx-fp32", start_ms=index, duration_ms=1000, rows=1,
            outcomes={"served": 1}, baseline="0" * 16, statistics=[packed(cells)],
        )  # fmt: skip
        with contextlib.suppress(AgentError):
            self.outbox.append(window)
            self.journal.note(stored=index)

    def tell(self, kind: str) -> None:
        """An event."""
        with contextlib.suppress(AgentError):
            self.outbox.add_event(Event(boot="b", kind=kind, time_ms=1, message="so it was"))
            self.journal.note(told=kind)

    def send(self, limit: int) -> None:
        """The uplink's part, with a collector that stores what it gets and says so."""
        with contextlib.suppress(AgentError):
            self.outbox.number(limit, backlog=limit)
            boots: dict[str, int] = {}
            for key in self.outbox.pending():
                window = self.outbox.load(key)
                assert window is not None
                self.journal.note(received=encode(window).hex())
                boots[key.boot] = key.sequence
            for boot, sequence in boots.items():
                self.outbox.stored(boot, sequence)
            for number, event in self.outbox.events():
                self.journal.note(heard=event.kind)
                self.outbox.event_sent(number)


def live(folder: Path, faults: Faults) -> None:
    """A device's life."""
    device = Device(folder, "boot1", faults)
    if not device.bench.serving:
        return
    for index in range(3):
        device.store(index)
    device.tell("refused")
    device.install("2")
    device.send(2)
    device.tell("activated")
    device.store(3)
    device.confirm()
    device.install("3", mode="shadow")
    device.dismiss()
    device.install("4")
    for index in range(4, 8):
        device.store(index)
    device.roll_back()
    device.send(3)
    device.outbox.close()


def run(folder: Path, step: int, kind: Kind) -> int:
    """A life with a fault, in a process of its own; its exit status, negative for a signal."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            live(folder, Faults(step, kind))
            status = 0
        except FaultError:
            status = 0  # the agent would end, and be started again
        except BaseException:  # noqa: BLE001 - it must not go on as a second pytest
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def steps_of(folder: Path) -> list[str]:
    """The steps of a life without a fault."""
    faults = Faults()
    live(folder, faults)
    return faults.steps


def may_serve(journal: Journal) -> set[str]:
    """What an onlooker allows to serve: what did, and what was on its way when it stopped."""
    allowed = {"1"}
    for entry in journal.read():
        if "serves" in entry or entry.get("done"):
            allowed = {entry.get("serves") or entry["done"]}
        if entry.get("wish"):
            allowed.add(entry["wish"])
    return allowed


def check_counts(journal: Journal, case: str) -> None:
    """Each window that was stored is counted once; one that was not, at most once."""
    windows = {
        (window.boot, window.sequence): window
        for entry in journal.read()
        if "received" in entry
        for window in [decode(bytes.fromhex(entry["received"]), Window)]
    }
    found = [cells_of(window.statistics[0], WINDOWS) for window in windows.values()]
    cells = [sum(each[n] for each in found) for n in range(WINDOWS)]
    stored = {entry["stored"] for entry in journal.read() if "stored" in entry}
    for index, count in enumerate(cells):
        assert count == 1 if index in stored else count in {0, 1}, (case, index, cells, stored)
    told = {entry["told"] for entry in journal.read() if "told" in entry}
    assert told <= {entry["heard"] for entry in journal.read() if "heard" in entry}, case
    assert sum(w.rows for w in windows.values()) == sum(cells), case
    assert sum(w.outcomes["served"] for w in windows.values()) == sum(cells), case


def check_remains(device: Device, case: str) -> None:
    """Of versions that are no more nothing is left, and of those that are, everything."""
    needed = sorted(bundle[:16] for bundle in device.installer.records["tiny"].needed)
    for kind in ("artifacts", "profiles"):
        found = sorted(path.name[:16] for path in device.remains[kind].iterdir())
        assert set(needed) >= set(found), (case, kind)
        assert device.bench.bundle[:16] in found, (case, kind)
    assert len(list(device.remains["engines"].iterdir())) == 1, case  # all have the same model


@pytest.fixture
def quick(tmp_path: Path) -> Iterator[Path]:
    """A folder in memory, where there is one: the table flushes thousands of times, and what ends
    here are processes, not the power."""
    if not os.access("/dev/shm", os.W_OK):
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        yield Path(folder)


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("bundles")
    return {
        f"tiny-{version}.edgeml": tiny_bundle(
            folder, version=version, calibration=0, targets=("onnx", "tensorrt")
        ).read_bytes()
        for version in "12345"
    }


def new_world(folder: Path, bundles: dict[str, bytes]) -> Path:
    folder.mkdir()
    for name, content in bundles.items():
        (folder / name).write_bytes(content)
    return folder


def test_a_fault_at_any_step_leaves_the_old_version_or_the_new_one(
    quick: Path, bundles: dict[str, bytes], capsys: pytest.CaptureFixture[str]
):
    steps = steps_of(new_world(quick / "faultless", bundles))
    assert {"append: commit", "append: merge", "number: done", "stored: done"} <= set(steps)
    ended: Counter[str] = Counter()
    for kind in KINDS:
        for index, name in enumerate(steps):
            case = f"{kind} at step {index}, {name}"
            folder = new_world(quick / f"{kind}-{index}".replace("/", ""), bundles)
            status = run(folder, index, kind)
            assert status == (-9 if kind == "kill" else 0), case
            allowed = may_serve(Journal(folder))
            again = Device(folder, "boot2")
            assert again.bench.serving in allowed, (case, again.bench.serving, allowed)
            ended[again.bench.serving] += 1
            again.send(100)
            again.send(100)
            check_counts(again.journal, case)
            again.install("5")
            assert again.bench.serving == "5", case
            again.outbox.close()
            check_remains(again, case)
            assert Device(folder, "boot3").bench.serving == "5", case
            shutil.rmtree(folder)
    with capsys.disabled():
        print(  # noqa: T201 - how many cases ran
            f"\ncrash table: {len(steps)} steps x {len(KINDS)} faults = {ended.total()} cases; "
            f"afterwards served {dict(sorted(ended.items()))}"
        )
    assert ended.total() == len(KINDS) * len(steps)
    assert set(ended) == {"1", "2", "4"}


def test_the_outboxs_steps_are_all_in_the_table(quick: Path, bundles: dict[str, bytes]):
    reached = set(steps_of(new_world(quick / "life", bundles)))
    # To drop is to lose, so it has no place in a life that loses nothing.
    assert set(STEPS) - reached == {"append: drop"}


def test_a_version_that_does_not_serve_is_not_confirmed(tmp_path: Path, bundles: dict[str, bytes]):
    device = Device(new_world(tmp_path / "life", bundles), "boot1")
    device.bench.serving = ""  # given up
    device.confirm()
    assert device.installer.records["tiny"].on_probation
    device.bench.serving = "1"
    device.confirm()
    assert not device.installer.records["tiny"].on_probation


KILLS = {
    "rename bundles 1": "1.0",  # the bundle is not in the store yet
    "rename ledger.json 2": "1.0",  # it is, and no record names it
    "rename ledger.json 5": "1.0",  # proved, its worker is up
    "flush_folder state 6": "2.0",  # active; the worker in place is still the old one
}
"""Steps and what serves after the next start. The first write of the ledger counts the start, and a
folder in the state folder is flushed once before."""


@pytest.mark.parametrize("step", KILLS)
def test_an_agent_that_is_killed_while_it_installs(
    start_agent: StartAgent, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
):
    one, two = (tiny_bundle(tmp_path, version=version) for version in ("1.0", "2.0"))
    assert start_agent("--bundle", one, state=tmp_path / "state").ready().terminate() == 0
    monkeypatch.setenv("SLEEPER_KILL_AT", step)
    agent = start_agent("--bundle", one, sleeper=True).ready()
    with (
        Client(agent.socket) as client,
        pytest.raises(CallError, match="did not answer|ended|gone"),
    ):
        client.post("/edgeml/v1/models/tiny/versions", {"bundle": str(two)})
    assert agent.end() == -9
    monkeypatch.delenv("SLEEPER_KILL_AT")
    agent = start_agent("--bundle", one).ready()
    with agent.client() as client:
        assert client.infer({"image": images(1)[0]})
        assert client.metadata()["versions"] == [KILLS[step]]
