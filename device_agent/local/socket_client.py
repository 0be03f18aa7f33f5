"""A program's side of the local call over the Unix socket: tensors lie in shared memory."""

from __future__ import annotations

import contextlib
import mmap
import os
import select
import socket
import struct
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgeml.device_agent.local import socket_wire as wire
from edgeml.device_agent.local.call_error import CallError
from edgeml.device_agent.local.socket_address import connected
from edgeml.device_agent.serving.door import OPEN, WORD, Outside
from edgeml.device_agent.serving.turnstile import Passes
from edgeml.device_agent.worker.layout import Array

_Kind = TypeVar("_Kind", bound=wire.Answer)

GONE_S = 0.5
"""After this long a shut door of an agent that is gone is taken for what it is. To see whether it
is takes a system call, in which other threads of the program take the interpreter."""

_CHANGED = 409
_DONE = wire.Done()


class SocketWire:
    """One connection, opened again where it broke.

    Args:
        path: of the socket.
        timeout_s: for an answer.
    """

    def __init__(self, path: Path, *, timeout_s: float) -> None:
        self._path = path
        self._timeout_s = timeout_s
        self._link: socket.socket | None = None
        self._hung_up = select.poll()
        """Hears of the link's end alone."""
        self._there_at = 0.0
        """When the link was seen to stand, monotonic seconds."""
        self._opened: dict[str, _Opened] = {}
        self._mailbox = wire.Mailbox()
        self._received: list[int] = []
        """The descriptors that came with the latest answer."""

    def places(self, model: str) -> dict[str, Array]:
        """The memory that the agent reads the model's inputs from."""
        return self._open(model).inputs

    def infer(
        self, model: str, inputs: Mapping[str, Array], *, stream: str, copy: bool
    ) -> dict[str, Array]:
        """Run one sample."""
        try:
            return self._infer(model, inputs, stream=stream, copy=copy)
        except CallError as error:
            if error.status != _CHANGED:
                raise
        self._opened.pop(model).close()  # another version takes other inputs
        return self._infer(model, inputs, stream=stream, copy=copy)

    def get(self, path: str) -> bytes:
        """The document at a path."""
        return self._ask(wire.Get(path), wire.Document).body

    def post(self, path: str, body: bytes) -> bytes:
        """What the agent answers to a document."""
        return self._ask(wire.Post(path, body), wire.Document).body

    def close(self) -> None:
        """Close the connection and let go of the memory."""
        for opened in self._opened.values():
            opened.close()
        self._opened.clear()
        if self._link is not None:
            self._link.close()
            self._link = None

    def _infer(
        self, model: str, inputs: Mapping[str, Array], *, stream: str, copy: bool
    ) -> dict[str, Array]:
        opened = self._open(model)
        opened.put(inputs)
        passed = not stream and self._passes_the_door(opened)
        self._ask(opened.run(stream, passed=passed), wire.Done)
        outputs = opened.outputs
        return {name: array.copy() for name, array in outputs.items()} if copy else outputs

    def _open(self, model: str) -> _Opened:
        opened = self._opened.get(model)
        if opened is None:
            before = time.monotonic()
            answer = self._ask(wire.Open(model), wire.Opened)
            # In a container whose clock is another one, what stands at the door means nothing.
            same_clock = before <= answer.now <= time.monotonic()
            try:
                opened = _Opened(answer, self._received, same_clock=same_clock)
            except (OSError, IndexError) as error:  # with too many files open, none came
                raise CallError(
                    f"There is no memory that this program shares with the agent: {error}",
                    status=0,
                    remedy="Close files that it has open, or raise its limit (ulimit -n).",
                ) from error
            self._opened[model] = opened
        return opened

    def _passes_the_door(self, opened: _Opened) -> bool:
        """Turn back where the agent would refuse, or where as many as there is room for are on
        their way to it. Returns whether a pass was taken."""
        door, now = opened.door, time.monotonic()
        if door is None:
            return False
        until, who = door.shut_until, "what waits"
        if until <= now:
            until, who = door.passes_until, "who is on the way"
            if until == OPEN or door.take_pass():
                return until != OPEN
            if until <= now:
                return False
        if now - self._there_at > GONE_S:
            if self._hung_up.poll(0):
                return False  # the agent is gone: whoever asks is told so
            self._there_at = now
        door.turn_back()
        raise CallError(
            f"shed: {who} already leaves no room for it, for up to {(until - now) * 1000:.1f} ms",
            status=503,
        )

    def _ask(self, request: wire.Request | bytes, kind: type[_Kind]) -> _Kind:
        try:
            if self._link is None:
                self._link = _patient(connected(self._path, self._timeout_s), self._timeout_s)
                self._hung_up = select.poll()
                self._hung_up.register(self._link, 0)
            self._link.send(request if isinstance(request, bytes) else wire.encode(request))
            message = self._receive(self._link, with_memory=kind is wire.Opened)
            if not message:
                raise ConnectionResetError("it hung up")
            answer = _DONE if message == wire.DONE else wire.decode_answer(message)
        except (OSError, msgspec.DecodeError) as error:
            self.close()  # the next call opens a new one
            timed_out = isinstance(error, BlockingIOError)
            why = f"{self._timeout_s:g} s have passed" if timed_out else error
            raise CallError(
                f"The agent at {self._path} did not answer: {why or type(error).__name__}",
                status=0,
                remedy="Check that it runs, and that this user may use its socket.",
            ) from error
        if isinstance(answer, wire.Refused):
            raise CallError(answer.message, status=answer.status)
        assert isinstance(answer, kind)
        return answer

    def _receive(self, link: socket.socket, *, with_memory: bool) -> bytes:
        if not with_memory:
            return self._mailbox.receive(link)
        message, self._received, _, _ = socket.recv_fds(link, wire.MAX_MESSAGE, 3)
        return message


def _patient(link: socket.socket, timeout_s: float) -> socket.socket:
    """Have the kernel watch the time: Python's way takes twice as many system calls."""
    limit = struct.pack("@ll", int(timeout_s), int(timeout_s % 1 * 1e6))
    link.settimeout(None)
    link.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, limit)
    link.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)
    return link


class _Opened:
    """The memory of one model."""

    def __init__(self, answer: wire.Opened, handles: list[int], *, same_clock: bool) -> None:
        self._model = answer.model
        self.door: Outside | None = None
        """Of the model; None where there is none to be seen."""
        try:
            self._memory = mmap.mmap(handles[0], max(answer.layout.nbytes, answer.count + WORD))
            if same_clock and len(handles) > 1:
                word = memoryview(self._memory)[answer.count : answer.count + WORD]
                passes = Passes(handles.pop()) if len(handles) > 2 else None
                self.door = Outside(handles[1], word, passes)
        finally:
            for handle in handles:
                os.close(handle)
        self.inputs, self.outputs = answer.layout.views(self._memory)
        self._runs: dict[tuple[str, bool], bytes] = {}

    def run(self, stream: str, *, passed: bool) -> bytes:
        """The message; a program has few streams, and says the same again and again."""
        message = self._runs.get((stream, passed))
        if message is None:
            run = wire.Run(self._model, stream, passed=passed)
            message = self._runs[stream, passed] = wire.encode(run)
        return message

    def put(self, inputs: Mapping[str, Array]) -> None:
        if inputs.keys() != self.inputs.keys():
            raise CallError(
                f"The inputs given are {', '.join(inputs) or 'none'}. "
                f"Expected {', '.join(self.inputs)}.",
                status=400,
            )
        for name, place in self.inputs.items():
            if inputs[name] is not place:
                _copy(name, inputs[name], place)

    def close(self) -> None:
        self.inputs, self.outputs, self.door = {}, {}, None
        with contextlib.suppress(BufferError):  # the program still holds a view
            self._memory.close()


def _copy(name: str, array: NDArray[Any], place: Array) -> None:
    """Into place, with or without the batch axis of one, where nothing is lost by it."""
    sample = place.shape[1:]
    fits = array.shape in {place.shape, sample} and _loses_nothing(array, place.dtype)
    if not fits:
        raise CallError(
            f"'{name}' has shape {list(array.shape)} and dtype {array.dtype}. "
            f"Expected shape {list(place.shape)} and dtype {place.dtype}.",
            status=400,
        )
    place[...] = array.reshape(place.shape)


def _loses_nothing(array: NDArray[Any], dtype: np.dtype[Any]) -> bool:
    """The agent's rule for callers (:mod:`edgeml.device_agent.serving.requests`)."""
    if array.dtype == dtype or (array.dtype.kind == "f" and dtype.kind == "f"):
        return True
    if array.dtype.kind in "iu" and dtype.kind in "iu" and array.size:
        bounds = np.iinfo(dtype)
        return bool(bounds.min <= int(array.min()) and int(array.max()) <= bounds.max)
    return False
