"""A part of edgeml in another process: its events come through, and it never outlives us."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest
from support.gone import wait_gone

from edgeml.errors import ToolchainError
from edgeml.toolchain import hop, store
from edgeml.toolchain.spec import TOOLCHAINS


class Said(msgspec.Struct, tag="said"):
    text: str
    log: str = ""


class Ended(msgspec.Struct, tag="ended"):
    status: int


Event = Said | Ended
decode = msgspec.json.Decoder(Event).decode

Part = Callable[[str], Callable[[bytes], Iterator[Event]]]


@pytest.fixture
def part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Part:
    """Makes a module of some code, and gives what streams its events."""

    def make(code: str) -> Callable[[bytes], Iterator[Event]]:
        (tmp_path / "a_part.py").write_text("import json, os, sys, time\n" + code)
        monkeypatch.setenv("PYTHONPATH", str(tmp_path))
        return lambda request: hop.stream(
            Path(sys.executable), "a_part", request, decode=decode, final=(Ended,)
        )

    return make


def test_a_request_goes_in_and_events_come_out(part: Part) -> None:
    stream = part(
        "print(json.dumps({'type': 'said', 'text': sys.stdin.read()}))\n"
        "print(json.dumps({'type': 'ended', 'status': 0}))\n"
    )
    assert list(stream(b"hello")) == [Said("hello"), Ended(0)]


def test_what_lies_in_the_working_directory_is_not_imported(
    part: Part, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "numpy.py").write_text("raise SystemExit('the wrong numpy')")
    monkeypatch.chdir(folder)
    stream = part("import numpy\nprint(json.dumps({'type': 'ended', 'status': 0}))\n")
    assert list(stream(b"")) == [Ended(0)]


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("sys.exit(3)", ("a_part ended with exit status 3",)),
        ("os.kill(os.getpid(), 9)", ("signal SIGKILL", "memory")),
        ("raise RuntimeError('a riddle')", ("exit status 1", "a riddle")),
        ("print('hello')", ("no event", "hello")),
        (
            "print(json.dumps({'type': 'said', 'text': '', 'log': '/a/log'}), flush=True)\n"
            "os.abort()",
            ("signal SIGABRT", "Its log is /a/log"),
        ),
    ],
)
def test_an_end_without_a_final_event_is_an_error_that_says_how(
    code: str, words: tuple[str, ...], part: Part
) -> None:
    with pytest.raises(ToolchainError) as caught:
        list(part(code)(b"request"))
    assert all(word in str(caught.value) for word in words), str(caught.value)


ENDLESS = (
    "import subprocess\n"
    "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
    "print(json.dumps({'type': 'said', 'text': f'{os.getpid()} {child.pid}'}), flush=True)\n"
    "time.sleep(600)\n"
)


def test_an_interrupted_loop_ends_it_and_what_it_started(part: Part) -> None:
    pids: list[int] = []

    def loop() -> None:
        for event in part(ENDLESS)(b""):
            assert isinstance(event, Said)
            pids.extend(int(word) for word in event.text.split())
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        loop()
    assert len(pids) == 2
    for pid in pids:
        wait_gone(pid)


def test_killing_whoever_hopped_kills_the_part(part: Part) -> None:
    part(ENDLESS)
    code = (
        "import sys, msgspec\nfrom pathlib import Path\nfrom edgeml.toolchain import hop\n"
        "for event in hop.stream(Path(sys.executable), 'a_part', b'', "
        "decode=msgspec.json.decode, final=(type(None),)):\n"
        "    print(event['text'], flush=True)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        pids = [int(word) for word in process.stdout.readline().split()]
        process.kill()
    wait_gone(pids[0])
    os.kill(pids[1], signal.SIGKILL)  # what a part starts is the part's own affair


ECHO = (
    "request = sys.stdin.read()\n"
    "print(json.dumps({'type': 'said', 'text': ' '.join([*sys.argv[1:], request])}))\n"
    "print(json.dumps({'type': 'ended', 'status': 0}))\n"
)
EXPORT = TOOLCHAINS["export"]


@pytest.fixture
def at_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment of these tests holds all that the toolchain is for."""
    monkeypatch.setattr(store, "serves_in_place", lambda spec: True)


@pytest.mark.usefixtures("at_hand")
def test_what_was_begun_ahead_takes_the_first_request_and_no_other(part: Part) -> None:
    stream = part(ECHO)
    with hop.ahead(EXPORT, "a_part", ["model.onnx", "-t"]):
        with hop.interpreter(EXPORT, say=print, progress=print) as python:
            assert python == Path(sys.executable)
        assert list(stream(b"one")) == [Said("model.onnx -t one"), Ended(0)]
        assert list(stream(b"two")) == [Said("two"), Ended(0)]


@pytest.mark.usefixtures("at_hand")
def test_another_part_is_not_taken_for_what_was_begun_ahead(part: Part) -> None:
    stream = part(ECHO)
    with hop.ahead(EXPORT, "json.tool", ["--tab"]):
        assert list(stream(b"one")) == [Said("one"), Ended(0)]


@pytest.mark.usefixtures("at_hand")
def test_what_was_begun_in_vain_is_gone_with_the_block(part: Part, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "begun")
    part("open(sys.argv[1], 'w').write(str(os.getpid()))\n" + ECHO)
    pids: list[int] = []

    def interrupted() -> None:
        with hop.ahead(EXPORT, "a_part", [str(tmp_path / "begun")]):
            pids.append(int((tmp_path / "begun").read_text()))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    wait_gone(pids[0], timeout_s=0)


def test_nothing_is_begun_ahead_in_a_toolchain_that_would_have_to_be_made(
    part: Part, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(store.HOME_VARIABLE, str(tmp_path / "toolchains"))
    monkeypatch.setattr(store, "serves_in_place", lambda spec: False)
    stream = part(ECHO)
    with hop.ahead(EXPORT, "a_part", ["model.onnx"]):
        assert not (tmp_path / "toolchains").exists()
        assert list(stream(b"one")) == [Said("one"), Ended(0)]
