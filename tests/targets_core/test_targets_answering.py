"""Children that answer a line with a line."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator

import pytest

from edgeml.targets.tflite.answering import Answering, EndedError

CHILD = """
import os, signal, sys
for line in sys.stdin:
    if line == "abort\\n":
        os.abort()
    if line == "leave\\n":
        break
    if line == "wait\\n":
        signal.pause()
    print(os.getpid() if line == "who\\n" else line[::-1].strip(), flush=True)
"""


@pytest.fixture
def child() -> Iterator[Answering]:
    made = Answering([sys.executable, "-c", CHILD])
    yield made
    made.close()


def test_one_child_answers_one_question_after_another(child: Answering):
    assert child.ask(b"abc") == b"cba\n"
    assert child.ask(b"who") == child.ask(b"who")


def test_its_end_is_told_and_the_next_question_starts_another(child: Answering):
    first = child.ask(b"who")
    with pytest.raises(EndedError) as ended:
        child.ask(b"abort")
    assert ended.value.status == -signal.SIGABRT
    assert str(ended.value) == "The child ended with signal SIGABRT"
    assert child.ask(b"who") != first


def test_an_orderly_end_without_an_answer_is_none(child: Answering):
    with pytest.raises(EndedError) as ended:
        child.ask(b"leave")
    assert ended.value.status == 0


def test_one_that_takes_too_long_is_ended(child: Answering):
    first = child.ask(b"who")
    with pytest.raises(EndedError, match="took too long") as ended:
        child.ask(b"wait", seconds=0.1)
    assert ended.value.status is None
    assert child.ask(b"who") != first
