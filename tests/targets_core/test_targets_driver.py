"""The server of onnx2tf's driver: each graph in a fork, which may fail, crash, hang or burn.

What it does to a graph is put in here; with the toolchain, tests/targets has real graphs.
"""

from __future__ import annotations

import contextlib
import signal
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest

from edgeml.targets.tflite.onnx2tf_driver import serving
from edgeml.targets.tflite.onnx2tf_driver.protocol import (
    Answer,
    NotMadeError,
    Request,
    first_line,
    raised,
)

LONG = 600.0
"""Seconds that no test waits for."""

Deed = Callable[[Request], None]
Ask = Callable[..., Answer]


@pytest.fixture
def ask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Ask:
    """The answer to a request that is met by a deed."""

    monkeypatch.setattr(serving, "WALL", 1000)  # the machine may be busy

    def asked(deed: Deed, seconds: float = LONG) -> Answer:
        monkeypatch.setattr(serving, "convert_one", deed)
        log = str(tmp_path / "log")
        return serving.in_a_fork(Request(model="", savedmodel="", log=log, seconds=seconds))

    return asked


def make_node(*, graph_node: SimpleNamespace, act: Callable[[], None]) -> None:
    """As onnx2tf's own are called, and given."""
    act()


GATHER = SimpleNamespace(op="Gather", outputs=[SimpleNamespace(name="rows")])


def at_a_node(act: Callable[[], None]) -> Deed:
    return lambda _: make_node(graph_node=GATHER, act=act)


def burn() -> None:
    while True:
        pass


def index() -> None:
    [].pop()


def catch_all() -> None:
    """As onnx2tf does, exceptions of any kind."""
    while True:
        with contextlib.suppress(BaseException):
            burn()


def test_what_was_written_needs_no_words(ask: Ask):
    assert ask(lambda _: None) == Answer()


def test_a_refusal_is_told(ask: Ask):
    def refuse(_: Request) -> None:
        raise NotMadeError("lacks", "", operator="Det")

    assert ask(refuse) == Answer(kind="lacks", operator="Det")


def test_an_exception_is_told_with_the_node_that_it_came_from(ask: Ask):
    assert ask(at_a_node(index)) == Answer(
        kind="failed", words="IndexError: pop from empty list", operator="Gather", tensor="rows"
    )


def test_an_exit_has_no_words_but_a_node(ask: Ask):
    """onnx2tf has printed why."""
    with_status = partial(sys.exit, 1)

    def convert(_: Request) -> None:
        try:
            make_node(graph_node=GATHER, act=with_status)
        except SystemExit as ended:
            raise raised(ended) from ended

    assert ask(convert) == Answer(kind="failed", operator="Gather", tensor="rows")


def test_the_log_has_the_trace(ask: Ask, tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    with capfd.disabled():
        ask(at_a_node(index))
    assert "in make_node" in (tmp_path / "log").read_text()


def test_a_crash_is_told_by_its_signal_and_costs_one_graph(ask: Ask):
    assert ask(lambda _: signal.raise_signal(signal.SIGTERM)) == Answer(
        kind="failed", status=-signal.SIGTERM
    )
    assert ask(lambda _: None) == Answer()


@pytest.mark.parametrize("act", [burn, catch_all])
def test_too_much_processor_time_is_told_with_the_node(ask: Ask, act: Callable[[], None]):
    told = ask(at_a_node(act), seconds=0.2)
    assert told == Answer(kind="late", operator="Gather", tensor="rows")


def test_one_that_computes_where_no_signal_reaches_it_is_ended(
    ask: Ask, monkeypatch: pytest.MonkeyPatch
):
    def deaf(_: Request) -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGPROF})
        burn()

    monkeypatch.setattr(serving, "GRACE_S", 0)
    assert ask(deaf, seconds=0.2) == Answer(kind="late")


def test_one_that_waits_for_ever_is_ended(ask: Ask, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(serving, "WALL", 1)
    assert ask(lambda _: signal.pause(), seconds=0.1) == Answer(kind="late")


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("", ""),
        ("list index out of range", "list index out of range"),
        ("{{function_node __wrapped__Sub}} no such shape [Op:Sub]", "no such shape [Op:Sub]"),
        (
            "Exception encountered when calling layer 'add' (type Add).\n\nno such shape\n\nmore",
            "no such shape (in 'add')",
        ),
        (
            'in user code:\n\n    File "a.py", line 1\n        x()\n\n    TypeError: a list\n',
            "TypeError: a list",
        ),
    ],
)
def test_the_line_of_an_error_that_says_what_it_is(text: str, line: str):
    assert first_line(ValueError(text)) == line
