"""The agent's side of a worker: start it, run a request within a time limit, kill it.

Any thread may start a worker, and hand it to another; one at a time uses it. Only
:meth:`Worker.kill`, :meth:`Worker.resident_bytes`, :meth:`Worker.was_killed`,
:meth:`Worker.obituary` and :meth:`Worker.serves` may be called beside that.
"""

from __future__ import annotations

import contextlib
import errno
import mmap
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec

from edgeml.device_agent.config import ENVIRONMENT, HEAP_ENVIRONMENT
from edgeml.device_agent.limits import oom_score
from edgeml.device_agent.limits.spare import available_bytes
from edgeml.device_agent.worker import wire
from edgeml.device_agent.worker.ear import LINK, Bell, Ear
from edgeml.device_agent.worker.layout import Array
from edgeml.device_agent.worker.output import Output
from edgeml.errors import AgentError

_MODULE = "edgeml.device_agent.worker"

MEMORY_SHARE = 0.5
"""Of the available memory, at most this for a model's inputs and outputs: the model needs some."""

AWAKE_S = 0.0001
"""A model that takes longer than this loses little by a wake; it costs 1 % of a 10 ms inference."""


class WorkerError(AgentError):
    """Base of what can go wrong with a worker."""


class RequestFailedError(WorkerError):
    """The runtime refused one request; the worker lives on."""


class WorkerLateError(WorkerError):
    """The time limit passed."""


class WorkerDiedError(WorkerError):
    """The process ended by itself, or was killed by another."""


class Worker:
    """A worker process. It takes no memory to speak of before :meth:`wait_ready`: limits may be
    put on it until then.

    Args:
        spec: what to run; descriptors and the parent's id are filled in here.
        log: file that takes the child's standard output and error; emptied first.

    Raises:
        WorkerError: there is no memory for the tensors, or the process does not start.
    """

    def __init__(self, spec: wire.WorkerSpec, *, log: Path) -> None:
        self._lock = threading.Lock()
        self._number = 0
        self._can_cancel = False
        with contextlib.ExitStack() as ours:
            try:
                self._start(spec, log, ours)
            except (OSError, RuntimeError) as error:  # no descriptor, process or thread to be had
                raise WorkerError(f"A worker process cannot be started: {error}") from error
            ours.pop_all()
        self.pid = self._process.pid
        self._alive = True
        self._killed_here = False
        oom_score.set_score(self.pid, oom_score.SPARE)

    def _start(self, spec: wire.WorkerSpec, log: Path, ours: contextlib.ExitStack) -> None:
        """The process, and all that it is reached by; ``ours`` undoes what was done so far."""
        with contextlib.ExitStack() as theirs:
            self._memory, handle = _allocate(spec.layout.nbytes)
            theirs.callback(os.close, handle)
            self._inputs, self._outputs = spec.layout.views(self._memory)
            self._link, link = _socket_pair(ours, theirs)
            self._requests, self._results = _bell(ours), _bell(ours)
            self._output = Output(log)
            theirs.callback(self._output.started)
            told = msgspec.structs.replace(
                spec,
                link=link,
                requests=self._requests.handle,
                results=self._results.handle,
                memory=handle,
                parent=os.getpid(),
            )
            self._process = _spawn(
                [sys.executable, "-m", _MODULE, msgspec.json.encode(told).decode()],
                output=self._output.writer,
                handles=(link, told.requests, told.results, handle),
            )
            ours.callback(self._process.wait)
            ours.callback(self._process.kill)
            # Kept open: it is read fifty times a second, while others wait for the interpreter.
            self._statm = os.open(f"/proc/{self._process.pid}/statm", os.O_RDONLY | os.O_CLOEXEC)
            ours.callback(os.close, self._statm)
            self._ear = Ear(self._results.handle, self._link, awake_s=AWAKE_S)

    def serves(self) -> None:
        """Requests go to it from now on: where memory ends, spare workers end before it."""
        with self._lock:
            if self._alive:
                oom_score.set_score(self.pid, oom_score.SERVING)

    def wait_ready(self, timeout_s: float) -> None:
        """Have it load its model, and wait until it has.

        Raises:
            WorkerError: it cannot be, or takes longer; the process is gone.
        """
        try:
            self._link.send(wire.message(wire.GO))
        except OSError as error:
            raise self._died() from error
        try:
            code, _, text = self._answer(timeout_s)
        except WorkerLateError as error:
            self.close()
            raise WorkerError(
                f"The worker did not load its model within {timeout_s:g} s{self._last_words()}",
                remedy="Give it more time with start_timeout_s.",
            ) from error
        if code != wire.READY:
            self.close()
            raise WorkerError(text)
        self._can_cancel = text == wire.CAN_CANCEL

    def run(self, feeds: Mapping[str, Array], *, timeout_s: float) -> dict[str, Array]:
        """:meth:`begin` one request and wait for its :meth:`result`; raises what they raise."""
        self.begin(feeds)
        return self.result(timeout_s=timeout_s)

    def begin(self, feeds: Mapping[str, Array]) -> Mapping[str, Array]:
        """Have it run one request, the former one having ended.

        Args:
            feeds: arrays of exactly the layout's shapes and dtypes.

        Returns:
            The inputs as the worker has them, to be read before the next one begins.

        Raises:
            RequestFailedError: the request does not fit the model; the worker is still of use.
            WorkerDiedError: gone.
        """
        for name, place in self._inputs.items():
            given = feeds.get(name)
            # A request may have been made for an earlier version's inputs.
            if given is None or given.shape != place.shape or given.dtype != place.dtype:
                raise RequestFailedError(
                    f"The request does not fit input '{name}'",
                    expected=f"shape {list(place.shape)} and dtype {place.dtype}",
                )
            place[...] = given
        self._number += 1
        try:
            self._requests.ring(self._number)
        except OSError as error:
            raise self._died() from error
        return self._inputs

    def result(self, *, timeout_s: float) -> dict[str, Array]:
        """Wait for what was begun; return copies of the outputs.

        Args:
            timeout_s: time that is left for it. When it is over, a result that comes at the same
                moment is thrown away.

        Raises:
            RequestFailedError: the runtime raised; the worker is still of use.
            WorkerLateError: too slow, and still at it: :meth:`settle` it.
            WorkerDiedError: gone.
        """
        code, number, text = self._answer(timeout_s)
        if number != self._number:
            self.close()
            raise WorkerDiedError(f"The worker answered request {number} instead of {self._number}")
        if code == wire.ERROR:
            raise RequestFailedError(f"The runtime failed: {text}")
        return {name: place.copy() for name, place in self._outputs.items()}

    def settle(self, grace_s: float) -> bool:
        """After a run that was late: break it off where the runtime can, wait for its end, and kill
        the worker where that does not come. The result is thrown away.

        Args:
            grace_s: to wait.

        Returns:
            Whether the worker is still of use.
        """
        until = time.monotonic() + grace_s
        try:
            if self._can_cancel:
                self._link.send(wire.message(wire.CANCEL, self._number))
            while self._answer(until - time.monotonic())[1] != self._number:
                pass
        except (WorkerError, OSError):
            self.close()
            return False
        return True

    def resident_bytes(self) -> int | None:
        """Resident set of the process; None when it has ended."""
        with self._lock:
            return _resident_bytes(self._statm) if self._alive else None

    def peak_bytes(self) -> int | None:
        """The most that it ever had resident; None when it has ended."""
        with self._lock:
            return _peak_bytes(self.pid) if self._alive else None

    def kill(self) -> None:
        """Send SIGKILL. From any thread; whoever waits in :meth:`result` then sees it die."""
        with self._lock:
            if self._alive:
                # One whose memory is gone had ended before: it is being laid to rest.
                if _resident_bytes(self._statm) is not None:
                    self._killed_here = True
                os.kill(self.pid, signal.SIGKILL)

    def was_killed(self) -> bool:
        """Whether it has ended by a SIGKILL that did not come from here."""
        if self._killed_here:
            return False
        with self._lock:
            if self._alive:
                end = os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG)
                return end is not None and _exit_code(end) == -signal.SIGKILL
        return self._process.wait() == -signal.SIGKILL

    def obituary(self) -> str:
        """How the process ended, as a sentence without its full stop; waits for that end."""
        code = self._exit_code()
        cause = signal.Signals(-code).name if code < 0 else f"status {code}"
        return f"The worker died with {cause}{self._last_words()}"

    def close(self) -> None:
        """Kill the process and wait until it is gone. May be called twice."""
        self.kill()
        with self._lock:
            # Once reaped, the number may belong to anybody: nobody signals it from here on.
            if self._alive:
                os.close(self._statm)
            self._alive = False
        self._process.wait()
        self._link.close()
        self._requests.close()
        self._results.close()
        self._inputs = {}
        self._outputs = {}
        with contextlib.suppress(BufferError):  # a traceback may still hold a view
            self._memory.close()

    def _answer(self, timeout_s: float) -> tuple[int, int, str]:
        """Code, number and text: of a message, or of a result."""
        try:
            number = self._ear.hears(timeout_s)
            if number is None:
                raise WorkerLateError(f"No answer within {timeout_s * 1000:.0f} ms")
            if number != LINK:
                return wire.DONE, number, ""
            datagram = self._link.recv(wire.MAX_MESSAGE)
        except OSError as error:
            raise self._died() from error
        if not datagram:
            raise self._died()
        return wire.parse(datagram)

    def _died(self) -> WorkerDiedError:
        self.close()
        return WorkerDiedError(self.obituary())

    def _exit_code(self) -> int:
        """As :class:`subprocess.Popen` has it: minus the signal, where one ended it."""
        with self._lock:
            if self._alive:
                # Left to be reaped by close(): until then the number is this process's.
                end = os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT)
                assert end is not None
                return _exit_code(end)
        return self._process.wait()

    def _last_words(self) -> str:
        words = self._output.last_words()
        return f" ({words})" if words else ""


_nursery = ThreadPoolExecutor(1, thread_name_prefix="nursery")
"""Starts every worker: the kernel's parent-death signal goes by the *thread* that started a child,
and this one lives as long as the agent."""


def _spawn(
    command: Sequence[str], *, output: int, handles: Sequence[int]
) -> subprocess.Popen[bytes]:
    inherited = {k: v for k, v in os.environ.items() if k not in HEAP_ENVIRONMENT}

    def start() -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            pass_fds=handles,
            env={**inherited, **ENVIRONMENT},
        )

    return _nursery.submit(start).result()


def _socket_pair(
    ours: contextlib.ExitStack, theirs: contextlib.ExitStack
) -> tuple[socket.socket, int]:
    """Our end, and the descriptor of the child's; both closed by their stacks."""
    here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.callback(here.close)
    theirs.callback(there.close)
    return here, there.fileno()


def _bell(ours: contextlib.ExitStack) -> Bell:
    bell = Bell()
    ours.callback(bell.close)
    return bell


def _allocate(nbytes: int) -> tuple[mmap.mmap, int]:
    """Memory that exists in full, as a map and the descriptor to pass on."""
    # Asked before the kernel is: it would rather kill somebody than say that there is not enough.
    if nbytes > available_bytes() * MEMORY_SHARE:
        raise _no_room(nbytes)
    handle = os.memfd_create("edgeml-worker", os.MFD_CLOEXEC)
    try:
        os.posix_fallocate(handle, 0, nbytes)
        return mmap.mmap(handle, nbytes), handle
    except OSError as error:
        os.close(handle)
        if error.errno in {errno.ENOSPC, errno.ENOMEM}:
            raise _no_room(nbytes) from error
        raise


def _no_room(nbytes: int) -> WorkerError:
    return WorkerError(
        f"There is no room for the {nbytes:,} bytes of the model's inputs and outputs",
        expected=f"at most {MEMORY_SHARE:.0%} of the memory that is available",
    )


def _exit_code(end: os.waitid_result) -> int:
    return end.si_status if end.si_code == os.CLD_EXITED else -end.si_status


def _resident_bytes(statm: int) -> int | None:
    try:
        pages = int(os.pread(statm, 128, 0).split()[1])
    except OSError:
        return None
    return pages * mmap.PAGESIZE or None  # a zombie has none


def _peak_bytes(pid: int) -> int | None:
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            name, _, value = line.partition(":")
            if name == "VmHWM":
                return int(value.split()[0]) * 1024
    return None
