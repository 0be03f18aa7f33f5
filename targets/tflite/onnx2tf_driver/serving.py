"""Answers requests, a line each, until there are no more.

The imports take some 10 s, so one process serves many graphs: each in a fork of it, which may crash
and is ended where it takes too long.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import math
import os
import resource
import select
import signal
import sys
import traceback
from types import FrameType
from typing import NoReturn

from .converting import convert_one
from .forking import end_with_parent
from .protocol import Answer, NotMadeError, Request, raised, working_at

GRACE_S = 30
"""A fork that has used up its processor time, and does not say so since it is deep in native code,
is ended by the kernel after so much more of it."""

WALL = 10
"""And one that waits for what will not come, after so many times its processor time on the clock.
Others use the machine as well."""


def serve() -> None:
    """Read requests from standard input, answer on standard output."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # libraries print
    for name in ("onnx", "onnxruntime", "onnxsim", "tensorflow", "onnx2tf.onnx2tf"):
        importlib.import_module(name)
    gc.freeze()  # nor collected, nor copied, in every fork
    for line in sys.stdin:
        answers.write(in_a_fork(Request(**json.loads(line))).line())


def in_a_fork(request: Request) -> Answer:
    """The answer of a process of its own, or to its death."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        answer_one(request, writer)
    os.close(writer)
    with os.fdopen(reader) as stream:
        ready, _, _ = select.select([stream], [], [], WALL * request.seconds)
        if not ready:
            os.kill(child, signal.SIGKILL)
        line = stream.read()
    _, status = os.waitpid(child, 0)
    if line:
        return Answer(**json.loads(line))
    code = os.waitstatus_to_exitcode(status)
    if not ready or code == -signal.SIGXCPU:
        return Answer(kind="late")
    return Answer(kind="failed", status=code)


def answer_one(request: Request, writer: int) -> NoReturn:
    """In the fork: write the answer to a pipe, and end."""
    end_with_parent()
    log = os.open(request.log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(log, 1)
    os.dup2(log, 2)

    def tell(answer: Answer) -> NoReturn:
        with contextlib.suppress(RuntimeError):  # a signal came in the middle of a write
            sys.stdout.flush()
            sys.stderr.flush()
        os.write(writer, answer.line().encode())
        os._exit(0)

    def too_late(_number: int, frame: FrameType | None) -> None:
        # Here and not by an exception: onnx2tf catches those of any kind.
        operator, tensor = working_at(frame)
        tell(Answer(kind="late", operator=operator, tensor=tensor))

    signal.signal(signal.SIGPROF, too_late)
    signal.setitimer(signal.ITIMER_PROF, request.seconds)
    most = math.ceil(request.seconds) + GRACE_S
    resource.setrlimit(resource.RLIMIT_CPU, (most, resource.RLIM_INFINITY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        convert_one(request)
    except NotMadeError as refused:
        tell(refused.answer)
    except Exception as failure:  # noqa: BLE001 - the caller is told, and reads the trace in the log
        traceback.print_exc()
        tell(raised(failure).answer)
    tell(Answer())
