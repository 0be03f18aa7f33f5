"""``edgeml export`` that is ended from outside, at a moment that its events tell."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from support.gone import wait_gone
from support.processes import carrying

SIGNALS = ("Ctrl-C", "SIGINT", "SIGTERM")
"""``Ctrl-C``: a terminal sends SIGINT to all of the foreground's processes; else to the first."""

READER_GONE = "the reader of its events goes"

STATUS = {"Ctrl-C": 130, "SIGINT": 130, "SIGTERM": 143, READER_GONE: 1}


def cut_short(folder: Path, arguments: list[str], moment: str, how: str) -> None:
    """Run an export until an event's line holds a text, end it, and assert that nothing is left.

    Args:
        folder: a new one, for all that it writes. What it was asked for goes to ``folder/out``.
        arguments: of ``edgeml export``, without ``-o`` and ``--events``.
        moment: a piece of the event's JSON.
        how: one of :data:`SIGNALS`, or :data:`READER_GONE`.
    """
    temporary = folder / "tmp"
    temporary.mkdir()
    line = [sys.executable, "-m", "edgeml", "export", *arguments, "-o", str(folder / "out")]
    with subprocess.Popen(
        [*line, "--events", "--no-cache"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={
            **os.environ,
            "TMPDIR": str(temporary),
            "XDG_STATE_HOME": str(folder / "state"),
            "EDGEML_CACHE": str(folder / "cache"),
        },
        process_group=0,
    ) as process:
        assert process.stdout is not None
        said: list[bytes] = []
        for event in process.stdout:
            said.append(event)
            if moment.encode() in event:
                break
        else:
            assert process.stderr is not None
            pytest.fail(f"{moment} never came: {said[-3:]}\n{process.stderr.read().decode()}")
        assert len(carrying(str(folder))) > 1
        if how == READER_GONE:
            process.stdout.close()
        elif how == "Ctrl-C":
            os.killpg(process.pid, signal.SIGINT)
        else:
            process.send_signal(signal.Signals[how])
        rest, chatter = process.communicate(timeout=60)
    assert process.returncode == STATUS[how], chatter.decode()
    assert b'"done"' not in (rest or b"")
    assert b"Traceback" not in chatter
    for pid in carrying(str(folder)):
        wait_gone(pid)
    assert list(temporary.iterdir()) == []
    assert not (folder / "out").exists()
