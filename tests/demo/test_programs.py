"""Programs of the demo: what becomes of one that starts, dies, or does not want to end."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Generator
from pathlib import Path
from queue import Queue

import pytest
from support.gone import wait_gone

from edgeml import processes
from edgeml.demo.programs import TAIL_LINES, Program, running
from edgeml.errors import EdgemlError
from edgeml.processes import ending_with_us

PATIENCE_S = 60.0

SAYS_READY = """
import signal, sys
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
print("one line before", file=sys.stderr)
print("ready page=http://here/", file=sys.stderr, flush=True)
while True:
    signal.pause()
"""
ENDS_BADLY = SAYS_READY.replace("sys.exit(0)", "sys.exit('the disk is full')")
STUBBORN = """
import os, signal, sys
signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = os.fork()
if child:
    print(f"ready child={child}", file=sys.stderr, flush=True)
while True:
    signal.pause()
"""


@contextlib.contextmanager
def script(code: str, log: Path) -> Generator[tuple[Program, subprocess.Popen[bytes]]]:
    """A program that is a few lines of Python, held as ``running`` holds an edgeml command."""
    process = subprocess.Popen(
        [sys.executable, "-c", code], stderr=subprocess.PIPE, start_new_session=True
    )
    with ending_with_us(process):
        yield Program("helper", process, log), process


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "helper.log"


def test_a_program_that_is_ready_runs_until_it_is_stopped(log: Path) -> None:
    with script(SAYS_READY, log) as (program, process):
        found = program.wait_for(r"\bready page=(?P<page>\S+)", timeout_s=PATIENCE_S)
        assert found["page"] == "http://here/"
        program.check()
        assert process.poll() is None
        program.stop()
        assert process.poll() == 0
        with pytest.raises(EdgemlError, match="the helper ended with exit status 0"):
            program.check()
    assert log.read_text().splitlines() == ["one line before", "ready page=http://here/"]


def test_a_real_collector_is_run_and_ended(tmp_path: Path) -> None:
    database = str(tmp_path / "fleet.sqlite")
    command = ("collector", "run", "--embedded-broker", "--http", "127.0.0.1:0")
    with running("collector", *command, "--database", database, folder=tmp_path) as program:
        pid = int(program.wait_for(r"\bready .* pid=(\d+)", timeout_s=PATIENCE_S)[1])
        program.stop()
    wait_gone(pid)
    assert "ready page=" in (tmp_path / "collector.log").read_text()


def test_a_block_that_fails_leaves_no_program_behind(tmp_path: Path) -> None:
    database = str(tmp_path / "fleet.sqlite")
    command = ("collector", "run", "--embedded-broker", "--http", "127.0.0.1:0")
    pids: list[int] = []

    def fail() -> None:
        with running("collector", *command, "--database", database, folder=tmp_path) as program:
            pids.append(int(program.wait_for(r"\bready .* pid=(\d+)", timeout_s=PATIENCE_S)[1]))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    wait_gone(pids[0])


def test_a_program_that_dies_before_it_is_ready_is_quoted(tmp_path: Path) -> None:
    command = ("collector", "run", "--database", "/proc/none/fleet.sqlite")
    with running("agent mast-cam", *command, folder=tmp_path) as program:
        with pytest.raises(EdgemlError) as error:
            program.wait_for("ready", timeout_s=PATIENCE_S)
        assert "the agent mast-cam ended with exit status 1" in error.value.found
        assert "/proc/none" in error.value.found
        assert str(tmp_path / "agent-mast-cam.log") in error.value.remedy


def test_a_death_is_told_at_once_however_patient_one_is(log: Path) -> None:
    told: Queue[str] = Queue()

    def wait(program: Program) -> None:
        try:
            program.wait_for("ready", timeout_s=threading.TIMEOUT_MAX / 2)
        except EdgemlError as error:
            told.put(error.found)

    with script("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", log) as (program, _):
        threading.Thread(target=wait, args=(program,), daemon=True).start()
        found = told.get(timeout=PATIENCE_S)
    assert "the helper ended with signal SIGKILL" in found
    assert "It said nothing" in found


def test_only_the_last_words_of_a_long_log_are_quoted(log: Path) -> None:
    code = "import sys; [print(f'word {i}.', file=sys.stderr) for i in range(30)]; sys.exit(3)"
    with script(code, log) as (program, _), pytest.raises(EdgemlError) as error:
        program.wait_for("ready", timeout_s=PATIENCE_S)
    assert "exit status 3" in error.value.found
    assert error.value.found.count("word") == TAIL_LINES
    assert error.value.found.endswith("word 29.")
    assert len(log.read_text().splitlines()) == 30


def test_who_is_not_ready_in_time_is_told_from_who_has_died(log: Path) -> None:
    with script(SAYS_READY, log) as (program, process):
        program.wait_for("ready", timeout_s=PATIENCE_S)
        with pytest.raises(EdgemlError, match=r"was not ready within 0\.05 s") as error:
            program.wait_for("ready again", timeout_s=0.05)
        assert process.poll() is None
        assert "one line before / ready page" in error.value.found
        assert str(log) in error.value.remedy


def test_a_program_that_fails_while_it_ends_is_an_error(log: Path) -> None:
    with script(ENDS_BADLY, log) as (program, _):
        program.wait_for("ready", timeout_s=PATIENCE_S)
        with pytest.raises(EdgemlError, match="the disk is full") as error:
            program.stop()
    assert "exit status 1" in error.value.found
    assert "exit status 0 after SIGTERM" in error.value.expected


def test_a_program_that_ignores_sigterm_is_an_error_and_is_killed(
    log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "GRACE_S", 0.1)
    with script(STUBBORN, log) as (program, process):
        child = int(program.wait_for(r"ready child=(\d+)", timeout_s=PATIENCE_S)[1])
        with pytest.raises(EdgemlError, match="still runs .* after SIGTERM"):
            program.stop(timeout_s=0.1)
        assert process.poll() is None
        os.kill(child, 0)  # both are still there
    assert process.returncode == -signal.SIGKILL
    wait_gone(child)
