"""Toolchains are made whole or not at all, once, by whoever comes first."""

from __future__ import annotations

import contextlib
import fcntl
import importlib.util
import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec
import pytest
from support.gone import wait_gone

import edgeml
from edgeml.errors import ToolchainError
from edgeml.toolchain import install, store
from edgeml.toolchain.spec import ToolchainSpec


def silent(_: str) -> None:
    """For tests that do not look at what is said."""


def weight(python: Path) -> str:
    """What the installed package says."""
    code = "import pebble; print(pebble.weight)"
    return subprocess.run(
        [python, "-c", code], capture_output=True, text=True, check=True
    ).stdout.strip()


def test_first_use_installs_after_saying_what_and_how_large(spec: ToolchainSpec) -> None:
    said: list[str] = []
    steps: list[str] = []
    assert store.find(spec).state == "absent"
    with install.ready(spec, say=said.append, progress=steps.append) as python:
        assert weight(python) == "7"
    assert "a pebble" in said[0]
    assert "on disk" in said[0]
    assert any("pebble" in step for step in steps)
    found = store.find(spec)
    assert found.state == "installed"
    assert found.record is not None
    assert found.record.size_bytes > 10_000  # an empty environment is larger than that


def test_a_second_use_installs_nothing(installed: ToolchainSpec) -> None:
    before = (store.find(installed).folder / store.RECORD).stat().st_mtime_ns
    said: list[str] = []
    with install.ready(installed, say=said.append) as python:
        assert weight(python) == "7"
    assert said == []
    assert (store.find(installed).folder / store.RECORD).stat().st_mtime_ns == before


def test_other_pins_mean_a_rebuild_said_plainly(installed: ToolchainSpec) -> None:
    installed.constraints.write_text("pebble==1.0\nanything==2\n")
    assert store.find(installed).state == "outdated"
    said: list[str] = []
    install.install(installed, say=said.append)
    assert "made again: its pinned versions have changed" in said[0]
    assert store.find(installed).state == "installed"


def test_where_there_is_no_pip_the_toolchain_has_its_own(
    installed: ToolchainSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An environment that uv made has none; the toolchain may be of another that had."""
    assert not list(store.find(installed).python.parent.glob("pip*"))
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "pip" else find(name)
    )
    other = store.Edgeml(installed.requirements, "another")
    monkeypatch.setattr(store, "wanted_edgeml", lambda _: other)
    for afresh in (False, True):
        found = install.install(installed, say=silent, afresh=afresh)
        assert found.state == "installed"
        assert list(found.python.parent.glob("pip*"))
        assert weight(found.python) == "7"


def test_a_python_that_is_gone_means_a_rebuild(installed: ToolchainSpec) -> None:
    store.find(installed).python.unlink()
    found = store.find(installed)
    assert found.state == "outdated"
    assert "is gone" in found.why


def test_another_edgeml_is_an_update_and_no_rebuild(
    installed: ToolchainSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Switching between checkouts costs a look of pip's, not gigabytes."""
    was = store.find(installed).record
    assert was is not None
    checkouts = store.Edgeml(("/a/pebble",), "a"), store.Edgeml(installed.requirements, "b")
    record = msgspec.structs.replace(was, edgeml=checkouts[0])
    (store.find(installed).folder / store.RECORD).write_bytes(msgspec.json.encode(record))
    other = checkouts[1]
    monkeypatch.setattr(store, "wanted_edgeml", lambda _: other)
    assert store.find(installed).state == "other edgeml"
    (store.find(installed).folder / "stays").touch()
    said: list[str] = []
    found = install.install(installed, say=said.append)
    assert f"it holds /a/pebble and is to hold {other.requirement[-1]}" in said[0]
    assert found.state == "installed"
    assert (found.folder / "stays").exists()


def test_a_failed_update_leaves_the_toolchain_as_it_was(
    installed: ToolchainSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(store, "wanted_edgeml", lambda _: store.Edgeml(("./no-such-folder",), "two"))
        with pytest.raises(ToolchainError, match="no-such-folder"):
            install.install(installed, say=silent)
    assert store.find(installed).state == "installed"


def test_a_failing_pip_is_an_error_with_its_last_words_and_leaves_nothing(
    holding: Callable[..., ToolchainSpec], tmp_path: Path
) -> None:
    broken = tmp_path / "broken-1.0-py3-none-any.whl"
    broken.write_bytes(b"no wheel at all")
    spec = holding(str(broken))
    with pytest.raises(ToolchainError) as caught:
        install.install(spec, say=silent)
    text = str(caught.value)
    assert "exit status 1" in text
    assert "broken" in text
    assert str(store.log_path(spec)) in text
    assert store.log_path(spec).read_text()
    assert store.find(spec).state == "absent"


def test_a_full_disk_is_seen_before_anything_is_fetched(spec: ToolchainSpec) -> None:
    with pytest.raises(ToolchainError, match=store.HOME_VARIABLE) as caught:
        install.install(replace(spec, size_bytes=10**18), say=silent)
    assert "GB free" in str(caught.value)
    assert store.find(spec).state == "absent"


def test_a_home_that_cannot_be_written(
    spec: ToolchainSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv(store.HOME_VARIABLE, str(tmp_path / "file" / "below"))
    with pytest.raises(ToolchainError, match=store.HOME_VARIABLE):
        install.install(spec, say=silent)


def test_no_python_of_the_right_age(
    spec: ToolchainSpec, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ToolchainError, match=r"Expected Python 3\.1 to 3\.2"):
        install.install(replace(spec, pythons=((3, 1), (3, 2))), say=silent)


def test_remove(installed: ToolchainSpec) -> None:
    assert install.remove(installed, say=silent)
    assert store.find(installed).state == "absent"
    assert not install.remove(installed, say=silent)


def test_afresh_makes_it_again(installed: ToolchainSpec) -> None:
    (store.find(installed).folder / "mine").touch()
    found = install.install(installed, say=silent, afresh=True)
    assert found.state == "installed"
    assert not (found.folder / "mine").exists()


INSTALLER = """
import sys, msgspec
from pathlib import Path
from edgeml.toolchain import install
from edgeml.toolchain.spec import ToolchainSpec

def say(text):
    print(text, flush=True)

spec = msgspec.json.decode(sys.argv[1], type=ToolchainSpec, dec_hook=lambda _, value: Path(value))
install.install(spec, say=say, progress=say)
"""

HANGING_BACKEND = """
import os, pathlib, time
pathlib.Path({pipe!r}).write_text(str(os.getpid()))
time.sleep(600)
"""


def installer(spec: ToolchainSpec) -> subprocess.Popen[str]:
    """Another process that installs a toolchain."""
    return subprocess.Popen(
        [sys.executable, "-c", INSTALLER, msgspec.json.encode(spec, enc_hook=str).decode()],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@dataclass
class Hanging:
    """An installation, in another process, that hangs in the middle of pip's work."""

    process: subprocess.Popen[str]
    build: int
    """The process, under pip, that hangs."""


@pytest.fixture
def hanging(holding: Callable[..., ToolchainSpec], tmp_path: Path) -> Iterator[Hanging]:
    pipe = tmp_path / "ready"
    os.mkfifo(pipe)
    project = tmp_path / "hanging"
    project.mkdir()
    (project / "pyproject.toml").write_text(
        '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
        '[project]\nname = "hanging"\nversion = "1.0"\n'
    )
    (project / "backend.py").write_text(HANGING_BACKEND.format(pipe=str(pipe)))
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    with installer(holding(str(project))) as process:
        assert select.select([reader], [], [], 120)[0], "pip never came to the build"
        build = int(os.read(reader, 64))
        yield Hanging(process, build)
        process.kill()
    os.close(reader)
    with contextlib.suppress(ProcessLookupError):
        os.kill(build, signal.SIGKILL)


def test_killed_half_way_it_is_seen_and_made_again(spec: ToolchainSpec, hanging: Hanging) -> None:
    hanging.process.kill()
    hanging.process.wait()
    assert store.find(spec).state == "incomplete"
    said: list[str] = []
    install.install(spec, say=said.append)
    assert "its installation was not finished" in said[0]
    assert store.find(spec).state == "installed"


def test_ctrl_c_takes_pip_along_and_leaves_nothing(spec: ToolchainSpec, hanging: Hanging) -> None:
    hanging.process.send_signal(signal.SIGINT)
    assert hanging.process.wait(60) != 0
    wait_gone(hanging.build)
    assert store.find(spec).state == "absent"


def test_of_two_at_once_one_installs_and_the_other_waits(spec: ToolchainSpec) -> None:
    pair = [installer(spec), installer(spec)]
    outputs = [process.communicate(timeout=120)[0] for process in pair]
    assert [process.returncode for process in pair] == [0, 0], outputs
    assert sum("Installing the toolchain tiny" in output for output in outputs) == 1


def test_who_waits_is_told_why(installed: ToolchainSpec) -> None:
    with store.locked(installed, alone=False, say=silent):
        process = installer(installed)
        assert process.stdout is not None
        assert "waiting for it to finish" in process.stdout.readline()
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0, output


def test_nobody_changes_a_toolchain_in_use(installed: ToolchainSpec) -> None:
    with install.ready(installed, say=silent):
        handle = os.open(store.home() / f".{installed.name}.lock", os.O_RDWR)
        with pytest.raises(BlockingIOError):
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.close(handle)


INSIDE = """
import sys
from edgeml.toolchain import hop, store
from edgeml.toolchain.spec import ToolchainSpec
from pathlib import Path

store.serves_in_place = lambda spec: True
spec = ToolchainSpec(name="tiny", holds="", constraints=Path(), size_bytes=0)
with hop.interpreter(spec, say=print, progress=print) as python:
    print(python, flush=True)
    sys.stdin.read()
"""


def test_nobody_changes_a_toolchain_that_somebody_runs_in(installed: ToolchainSpec) -> None:
    """Without a hop: the toolchain's own Python exports."""
    python = store.find(installed).python
    path = os.pathsep.join([str(Path(edgeml.__file__).parents[1]), *filter(None, sys.path)])
    handle = os.open(store.home() / f".{installed.name}.lock", os.O_RDWR | os.O_CREAT)
    with subprocess.Popen(
        [python, "-c", INSIDE],
        env=os.environ | {"PYTHONPATH": path},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as inside:
        assert inside.stdout is not None
        assert inside.stdout.readline().strip() == str(python)
        with pytest.raises(BlockingIOError):
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.close(handle)


def test_the_size_counts_a_hard_link_once(tmp_path: Path) -> None:
    folder = tmp_path / "sizes"
    folder.mkdir()
    (folder / "one").write_bytes(b"x" * 100_000)
    alone = install.size_on_disk(folder)
    (folder / "two").hardlink_to(folder / "one")
    assert install.size_on_disk(folder) == alone >= 100_000
