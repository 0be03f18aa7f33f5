"""Child processes for everything heavy: user code, frameworks, converters, measurements.

A :class:`Child` answers calls, one at a time, until it is closed: a dotted function name and a
msgspec document go in, a document comes out. Its standard streams are a log file, so nothing that a
framework prints meets the user. A child that dies, is killed for memory or hangs is a plain
:class:`~edgeml.errors.ToolchainError` that names the step it was at.

Children die with their parent (:mod:`edgeml.processes`), and each leads a process group of its own,
so that a Ctrl-C at the terminal reaches the parent alone, which then ends them together with
whatever they started.
"""

from __future__ import annotations

import contextlib
import errno
import importlib
import os
import select
import signal
import subprocess
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import IO, Any, TypeVar, get_type_hints

import msgspec

from edgeml import errors
from edgeml.decoding import from_json
from edgeml.errors import EdgemlError, ToolchainError
from edgeml.exporter.origin import FORK, Copy, Ends, Origin, fork
from edgeml.exporter.repeat.recording import VARIABLE as RECORD
from edgeml.exporter.repeat.recording import record
from edgeml.processes import describe_exit, die_with_parent, group_cpu
from edgeml.targets.frameworks import threads, uncollected
from edgeml.targets.openvino.reports import withhold

T = TypeVar("T")

_Process = subprocess.Popen[bytes] | Copy

IDLE_S = 300.0
"""A child at a call whose whole process group has used no processor time for so long hangs."""

POLL_S = 2.0

_NICE = 5
"""A third of a core, beside one that does not give way."""

# A group of its own, in the exporter's session: Linux shares a core out among sessions first
# (autogroup), and only within one do those that give way.
_IN_A_GROUP: dict[str, Any] = (
    {"process_group": 0} if sys.version_info >= (3, 11) else {"start_new_session": True}
)

ENVIRONMENT = {
    "TF_CPP_MIN_LOG_LEVEL": "2",
    "CUDA_VISIBLE_DEVICES": "",  # conversion is the processor's work, and must not differ by GPU
    "KERAS_BACKEND": "tensorflow",
    "PYTHONHASHSEED": "0",  # the order of a set of names must not reach an artifact
    "OMP_NUM_THREADS": str(threads()),
    "PYTHONFAULTHANDLER": "1",
    "ORT_DISABLE_TELEMETRY": "1",  # ONNX Runtime tells its maker of every session otherwise
}


class Call(msgspec.Struct, frozen=True):
    """What goes to a child."""

    function: str
    payload: msgspec.Raw


class Answer(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What comes back: ``result``, or an error flattened."""

    result: msgspec.Raw = msgspec.Raw(b"null")
    error: str = ""
    found: str = ""
    expected: str = ""
    remedy: str = ""


class Child:
    """One process. It is started at the first call, and again at the first one after it died.

    Not for use by two threads at once, but for :meth:`kill`.

    Args:
        log: takes its standard output and error; appended to.
        temporary: its folder for temporary files.
        record: takes the paths of what it reads.
        idle_s: see :data:`IDLE_S`.
        origin: what it is a copy of; None, or where none can be made: it begins with nothing.
    """

    def __init__(
        self,
        log: Path,
        *,
        temporary: Path | None = None,
        record: Path | None = None,
        idle_s: float = IDLE_S,
        origin: Origin | None = None,
    ) -> None:
        self._log = log
        self._origin = origin
        self._environment = {**os.environ, **ENVIRONMENT, "EDGEML_PARENT": str(os.getpid())}
        if temporary is not None:
            self._environment["TMPDIR"] = str(temporary)
        if record is not None:
            self._environment[RECORD] = str(record)
        self._idle_s = idle_s
        self._lock = threading.Lock()
        self._killed = False
        self._process: _Process | None = None
        self._answers = -1
        self._buffer = b""

    @property
    def pid(self) -> int | None:
        """Of the process, if there is one now."""
        return self._process.pid if self._process else None

    def call(self, function: str, payload: object, result: type[T], *, step: str) -> T:
        """Have a function run there, and return what it returns.

        Args:
            function: ``package.module:name``, of one argument annotated with its msgspec type.
            payload: that argument.
            result: what to decode its result as.
            step: what this is, for errors: "The conversion to tflite int8", say.

        Raises:
            EdgemlError: what the function raised, of its own class.
            ToolchainError: it raised anything else, or the process died or hung.
        """
        process = self.start(step)
        call = Call(function, _encode(payload))
        assert process.stdin is not None
        try:
            process.stdin.write(msgspec.json.encode(call) + b"\n")
            process.stdin.flush()
        except BrokenPipeError:
            raise self._died(step) from None
        answer = from_json(self._wait(process, step), Answer)
        if answer.error:
            raise revive(answer.error, answer.found, answer.expected, answer.remedy, step)
        return _decode(answer.result, result)

    def start(self, step: str = "A child") -> _Process:
        """The process, started if there is none now."""
        with self._lock:
            if self._killed:
                raise ToolchainError(f"{step} was interrupted")
            if self._process is not None:
                return self._process
        # The origin may be importing still, and nobody who kills this child waits for that.
        copy = self._origin.copy() if self._origin is not None else None
        with self._lock:
            process, self._answers = self._begun() if copy is None else (copy, copy.answers)
            self._process, self._buffer = process, b""
            if self._killed:
                _kill_group(process)
                raise ToolchainError(f"{step} was interrupted")
            return process

    def kill(self) -> None:
        """End it and all that it started, at once and for good: it takes no more calls."""
        with self._lock:
            self._killed = True
            process = self._process
            if process is not None:
                _kill_group(process)

    def close(self) -> None:
        """End it, with all that it started. A later call starts a new one."""
        with self._lock:  # once it is waited for, its id may be another's
            process, self._process = self._process, None
            if process is None:
                return
            _kill_group(process)
            process.wait()
        if process.stdin is not None:
            with contextlib.suppress(OSError):
                process.stdin.close()
        os.close(self._answers)

    def _begun(self) -> tuple[subprocess.Popen[bytes], int]:
        """A new process, and where its answers come from."""
        reader, writer = os.pipe()
        # Whatever lies in the user's working directory must not stand in for a library.
        safe = ["-P"] if sys.version_info >= (3, 11) else []
        with self._log.open("ab") as log:
            process: Any = subprocess.Popen(
                [sys.executable, *safe, "-m", "edgeml.exporter.child", str(writer)],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                pass_fds=(writer,),
                env=self._environment,
                **_IN_A_GROUP,
            )
        os.close(writer)
        return process, reader

    def _wait(self, process: _Process, step: str) -> bytes:
        poll = select.poll()
        poll.register(self._answers, select.POLLIN)
        busy, since = -1, time.monotonic()  # most calls end before there is any need to look
        while True:
            if poll.poll(POLL_S * 1000):
                chunk = os.read(self._answers, 1 << 16)
                if not chunk:
                    raise self._died(step)
                self._buffer += chunk
                line, newline, rest = self._buffer.partition(b"\n")
                if newline:
                    self._buffer = rest
                    return line
                continue
            now = group_cpu(process.pid)
            if now > busy:
                busy, since = now, time.monotonic()
            elif time.monotonic() - since > self._idle_s:
                self.close()
                raise ToolchainError(
                    f"{step} hangs: it has done nothing for {self._idle_s:.0f} s, and was ended",
                    remedy="If it waits for input or for the network, give it what it waits for.",
                )

    def _died(self, step: str) -> ToolchainError:
        process = self._process
        assert process is not None
        # Its results are gone; what it started may still run, and go on to hold its id.
        code = _status(process)
        self.close()
        if code == -signal.SIGKILL:
            return ToolchainError(
                f"{step} was killed, most likely because the machine ran out of memory",
                remedy="Close other programs, give fewer or smaller samples, or use a machine "
                "with more memory.",
            )
        if code < 0:
            return ToolchainError(
                f"{step} crashed in native code ({describe_exit(code)})",
                remedy="The log has its last words.",
            )
        return ToolchainError(
            f"{step} ended its process with status {code}",
            remedy="Something in it calls exit: the log may say what.",
        )


def _kill_group(process: _Process) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)


def _status(process: _Process) -> int:
    try:
        return process.wait(POLL_S)
    except subprocess.TimeoutExpired:  # it closed its end and lives on
        _kill_group(process)
        return process.wait()


def revive(name: str, found: str, expected: str, remedy: str, step: str) -> EdgemlError:
    """An error that crossed a pipe, as the exception that it was."""
    kind = getattr(errors, name, None)
    if isinstance(kind, type) and issubclass(kind, EdgemlError):
        return kind(found, expected=expected, remedy=remedy)
    if name == "MemoryError":
        return ToolchainError(f"{step} ran out of memory", remedy="Use a machine with more.")
    if name == "OSError":
        return ToolchainError(f"{step} failed: {found}", remedy=remedy)
    return ToolchainError(
        f"{step} failed: {name}: {found}", remedy="Its own messages are in the log."
    )


def first_line(error: BaseException) -> str:
    """The first line of an error's text that says something, at most 300 characters."""
    lines = (line.strip() for line in str(error).splitlines())
    return next((line for line in lines if line), type(error).__name__)[:300]


def no_room(error: OSError) -> bool:
    """Whether a disk is full, or a quota; NumPy says it without a number."""
    full = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
    return error.errno in full or " requested and " in str(error)


def _encode(document: object) -> msgspec.Raw:
    return msgspec.Raw(msgspec.json.encode(document, enc_hook=_plain))


def _decode(data: msgspec.Raw, kind: type[T]) -> T:
    return from_json(data, kind, hook=_revived)


def _plain(value: Any) -> str:
    """Paths cross the pipe as text."""
    if isinstance(value, Path):
        return str(value)
    raise NotImplementedError


def _revived(kind: type, value: Any) -> Any:
    return kind(value)


def _answer(call: Call) -> Answer:
    try:
        module, _, name = call.function.partition(":")
        with uncollected():
            function: Any = getattr(importlib.import_module(module), name)
        hints = get_type_hints(function)
        hints.pop("return", None)
        payload: Any = _decode(call.payload, next(iter(hints.values())))
        return Answer(result=_encode(function(payload)))
    except EdgemlError as error:
        traceback.print_exc()
        return Answer(
            error=type(error).__name__,
            found=error.found,
            expected=error.expected,
            remedy=error.remedy,
        )
    except MemoryError:
        traceback.print_exc()
        return Answer(error="MemoryError", found="out of memory")
    except OSError as error:
        traceback.print_exc()
        if not no_room(error):
            return Answer(error="OSError", found=f"{error}")
        remedy = "Free some space, or name a roomier folder in TMPDIR."
        return Answer(error="OSError", found=f"there is no room left ({error})", remedy=remedy)
    except Exception as error:  # noqa: BLE001 - the parent says it; the trace stays in the log
        traceback.print_exc()
        return Answer(error=type(error).__name__, found=first_line(error))


def give_way(nothing: None) -> int:  # noqa: ARG001 - every call has a payload
    """In the child: from now on, let others go first where there are too few cores for all.

    For what fills the time until the conversions end, which all the rest waits for.
    """
    return os.nice(_NICE)


def main(descriptor: int) -> None:
    """The child: calls on standard input, answers on ``descriptor``, both a line each."""
    die_with_parent(int(os.environ.pop("EDGEML_PARENT")))
    withhold()
    path = os.environ.get(RECORD)
    sweep = record(path) if path else None
    calls: IO[bytes] = os.fdopen(os.dup(0), "rb")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)  # user code that asks for input gets an end of file, not our calls
    os.set_inheritable(descriptor, False)
    answers: IO[bytes] = os.fdopen(descriptor, "wb", buffering=0)
    while line := calls.readline():
        call = from_json(line, Call)
        if call.function == FORK:
            answer, ends = _forked(call)
            if ends is not None:  # this is the copy, and whoever made it has the origin's ends
                calls.close()
                answers.close()
                calls, answers = ends
                continue
        else:
            answer = _answer(call)
        if sweep is not None:
            sweep()
        sys.stdout.flush()
        answers.write(msgspec.json.encode(answer) + b"\n")


def _forked(call: Call) -> tuple[Answer, tuple[IO[bytes], IO[bytes]] | None]:
    try:
        pid, ends = fork(_decode(call.payload, Ends))
    except OSError as error:
        return Answer(error="OSError", found=f"{error}"), None
    return Answer(result=_encode(pid)), ends


if __name__ == "__main__":
    main(int(sys.argv[1]))
