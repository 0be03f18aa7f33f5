"""The server of onnx2tf's driver: each graph in a fork, which may fail, crash, hang or burn.

What it does to a graph is put in here (:mod:`support.deeds`); with the toolchain, tests/targets has
real graphs.
"""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from support import deeds
from support.deeds import Deed, Errand, at_a_node

from edgeml.targets.tflite.onnx2tf_driver.protocol import Answer, first_line

LONG = 600.0
"""Seconds that no test waits for."""

Ask = Callable[..., list[Answer]]


@pytest.fixture
def ask(tmp_path: Path) -> Ask:
    """The answers to requests that are met by deeds."""

    def asked(
        *given: Deed, seconds: float = LONG, wall: float = 1000, grace: int = 30
    ) -> list[Answer]:
        log = str(tmp_path / "log")
        errand = Errand(deeds=given, log=log, seconds=seconds, wall=wall, grace=grace)
        return deeds.run(errand)

    return asked


def test_what_was_written_needs_no_words(ask: Ask):
    assert ask(deeds.nothing) == [Answer()]


def test_a_refusal_is_told(ask: Ask):
    assert ask(deeds.refuse) == [Answer(kind="lacks", operator="Det")]


def test_an_exception_is_told_with_the_node_that_it_came_from(ask: Ask, tmp_path: Path):
    words = "IndexError: pop from empty list"
    assert ask(at_a_node(deeds.index)) == [
        Answer(kind="failed", words=words, operator="Gather", tensor="rows")
    ]
    assert "in make_node" in (tmp_path / "log").read_text()


def test_an_exit_has_no_words_but_a_node(ask: Ask):
    assert ask(deeds.leave) == [Answer(kind="failed", operator="Gather", tensor="rows")]


def test_a_crash_is_told_by_its_signal_and_costs_one_graph(ask: Ask):
    assert ask(deeds.crash, deeds.nothing) == [
        Answer(kind="failed", status=-signal.SIGTERM),
        Answer(),
    ]


@pytest.mark.parametrize("act", [deeds.burn, deeds.catch_all])
def test_too_much_processor_time_is_told_with_the_node(ask: Ask, act: Callable[[], None]):
    late = Answer(kind="late", operator="Gather", tensor="rows")
    assert ask(at_a_node(act), seconds=0.2) == [late]


def test_one_that_computes_where_no_signal_reaches_it_is_ended(ask: Ask):
    assert ask(deeds.deaf, seconds=0.2, grace=0) == [Answer(kind="late")]


def test_one_that_waits_for_ever_is_ended(ask: Ask):
    assert ask(deeds.wait, seconds=0.1, wall=1) == [Answer(kind="late")]


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
