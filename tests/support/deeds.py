"""What a graph may do to the server of onnx2tf's driver, and the server in a process of its own, as
in use: it forks, and a process of tests is full of other libraries' threads and handlers.

:func:`main` reads an :class:`Errand` from standard input, pickled, and writes the server's answers.
"""

from __future__ import annotations

import contextlib
import dataclasses
import pickle
import signal
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace

from edgeml.targets.tflite.onnx2tf_driver import serving
from edgeml.targets.tflite.onnx2tf_driver.protocol import (
    Answer,
    NotMadeError,
    Request,
    raised,
)

Deed = Callable[[Request], None]
TESTS = Path(__file__).parent.parent
GATHER = SimpleNamespace(op="Gather", outputs=[SimpleNamespace(name="rows")])


@dataclasses.dataclass(frozen=True, kw_only=True)
class Errand:
    """Graphs that do these deeds, one after another, and the server's own bounds."""

    deeds: tuple[Deed, ...]
    log: str
    seconds: float
    wall: float
    grace: int


def run(errand: Errand) -> list[Answer]:
    """The server's answers."""
    path = [str(TESTS), *sys.path]
    code = f"import sys; sys.path[:] = {path!r}; from support import deeds; deeds.main()"
    done = subprocess.run(
        [sys.executable, "-c", code], input=pickle.dumps(errand), capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr.decode()
    found: list[Answer] = pickle.loads(done.stdout)
    return found


def main() -> None:
    errand: Errand = pickle.load(sys.stdin.buffer)
    serving.WALL, serving.GRACE_S = errand.wall, errand.grace
    answers: list[Answer] = []
    for deed in errand.deeds:
        serving.convert_one = deed
        request = Request(model="", savedmodel="", log=errand.log, seconds=errand.seconds)
        answers.append(serving.in_a_fork(request))
    sys.stdout.buffer.write(pickle.dumps(answers))


def make_node(*, graph_node: SimpleNamespace, act: Callable[[], None]) -> None:
    """As onnx2tf's own are called, and given."""
    act()


def _at_a_node(_: Request, *, act: Callable[[], None]) -> None:
    make_node(graph_node=GATHER, act=act)


def at_a_node(act: Callable[[], None]) -> Deed:
    return partial(_at_a_node, act=act)


def nothing(_: Request) -> None:
    """What was asked for is written."""


def refuse(_: Request) -> None:
    raise NotMadeError("lacks", "", operator="Det")


def index() -> None:
    [].pop()


def burn() -> None:
    while True:
        pass


def catch_all() -> None:
    """As onnx2tf does, exceptions of any kind."""
    while True:
        with contextlib.suppress(BaseException):
            burn()


def leave(_: Request) -> None:
    """As onnx2tf does, after it has printed why."""
    try:
        make_node(graph_node=GATHER, act=partial(sys.exit, 1))
    except SystemExit as ended:
        raise raised(ended) from ended


def crash(_: Request) -> None:
    signal.raise_signal(signal.SIGTERM)


def deaf(_: Request) -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGPROF})
    burn()


def wait(_: Request) -> None:
    signal.pause()
