"""The local call over a Unix socket: tensors lie in memory that the program and the agent share.

The permissions of the socket say who may call. The memory is the agent's to make: allocated in full
and sealed, so that no program can cut it short under the agent's hands, which would be a bus error.
What stands in it the program may change at any time, so an input is copied once, to the worker,
before it is looked at; outputs are written where the program reads them. Nothing is serialized.

A request is served on its connection's own thread where the model is idle, and answered by
whichever thread ends it.
"""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
import shutil
import socket
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from edgeml.bundle import Manifest
from edgeml.bundle.manifest import Tensor
from edgeml.decoding import from_json
from edgeml.device_agent import config as bounds
from edgeml.device_agent import logs
from edgeml.device_agent.local import socket_wire as wire
from edgeml.device_agent.local.routes import Call, RefusedCall, Routes, served
from edgeml.device_agent.local.socket_address import listening
from edgeml.device_agent.serving.door import WORD, Count
from edgeml.device_agent.serving.tickets import Ticket
from edgeml.device_agent.worker.layout import Array, Layout, TensorSpec
from edgeml.errors import AgentError

if TYPE_CHECKING:
    from edgeml.device_agent.serving.service import Service

_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL

_REST_S = 0.25
"""Before another try to take a program that there was no descriptor for."""

_FAREWELL_S = 1.0
"""For connections that were hung up on to be seen to."""


class SocketApi:
    """The socket and a thread a connection.

    Args:
        path: of the socket.
        mode: its permissions.
        group: its group; the agent's own where it is empty.
        routes: what to answer besides inference, and the models.

    Raises:
        AgentError: the socket cannot be made.
    """

    def __init__(self, path: Path, routes: Routes, *, mode: int = 0o600, group: str = "") -> None:
        self.path = path
        self._routes = routes
        self._room = _Room(bounds.SHARED_BYTES)
        self._lock = threading.Lock()
        self._left = threading.Condition(self._lock)
        self._callers: set[socket.socket] = set()
        self._ended = threading.Event()
        try:
            self._listener = listening(path, mode)
            if group:
                shutil.chown(path, group=group)
        except (OSError, LookupError) as error:
            raise AgentError(
                f"The socket {path} cannot be made: {error}",
                expected="a folder that the agent may write to, and that no other agent uses",
                remedy="Choose another path with --socket.",
            ) from error
        self._thread = threading.Thread(target=self._accept, name="socket", daemon=True)

    def start(self) -> None:
        """Begin to answer."""
        self._thread.start()

    def stop(self) -> None:
        """Take no new connection, and hang up on those that stand; what programs counted at the
        door is counted by then."""
        self.path.unlink(missing_ok=True)
        with self._lock:
            self._ended.set()
            sockets = [self._listener, *self._callers]
        for each in sockets:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        if self._thread.ident is not None:
            self._thread.join()
        self._listener.close()
        with self._lock:
            self._left.wait_for(lambda: not self._callers, _FAREWELL_S)

    def _accept(self) -> None:
        while not self._ended.is_set():
            self._accept_one()

    def _accept_one(self) -> None:
        try:
            self._take(self._listener.accept()[0])
        except (OSError, RuntimeError) as error:  # there is no descriptor or thread to be had
            if not self._ended.wait(_REST_S):
                logs.warn("no program taken", reason=error)

    def _take(self, caller: socket.socket) -> None:
        with self._lock:
            full = len(self._callers) >= bounds.MAX_CALLERS
            if not full:
                self._callers.add(caller)
        if full:
            _turn_away(caller)
            return
        try:
            threading.Thread(target=self._talk, args=(caller,), name="caller", daemon=True).start()
        except RuntimeError:
            self._gone(caller)
            caller.close()
            raise

    def _gone(self, caller: socket.socket) -> None:
        with self._lock:
            self._callers.discard(caller)
            self._left.notify_all()

    def _talk(self, caller: socket.socket) -> None:
        try:
            with caller, _Caller(caller, self._routes, self._room) as talk:
                talk.run()
        except OSError:
            pass  # it went away
        except Exception:  # noqa: BLE001 - a fault of ours must not end more than this connection
            logs.LOG.exception("socket fault")
        finally:
            self._gone(caller)


class _Room:
    """How much memory all callers together may be given."""

    def __init__(self, nbytes: int) -> None:
        self._lock = threading.Lock()
        self._left = nbytes

    def take(self, nbytes: int) -> bool:
        with self._lock:
            if nbytes > self._left:
                return False
            self._left -= nbytes
            return True

    def give(self, nbytes: int) -> None:
        with self._lock:
            self._left += nbytes


class _Region:
    """Memory of one caller for one model."""

    def __init__(self, manifest: Manifest, room: _Room, service: Service) -> None:
        self.layout = _layout(manifest)
        self._manifest = manifest
        self._room = room
        self._service = service
        self._nbytes = nbytes = self.layout.nbytes + WORD
        if not room.take(nbytes):
            raise RefusedCall(503, f"There is no room for {nbytes:,} more bytes of shared memory.")
        self.handle = -1
        try:
            self.handle = os.memfd_create("edgeml-call", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
            os.posix_fallocate(self.handle, 0, nbytes)
            fcntl.fcntl(self.handle, fcntl.F_ADD_SEALS, _SEALS)
            self._memory = mmap.mmap(self.handle, nbytes)
        except OSError as error:
            self._free()
            raise RefusedCall(503, f"There is no shared memory: {error}.") from error
        self.inputs, self._outputs = self.layout.views(self._memory)
        """``inputs`` the caller may write to at any time."""
        self._count = Count(memoryview(self._memory)[self.layout.nbytes : nbytes])
        service.doorkeeper.comes(self._count)

    def fits(self, manifest: Manifest) -> bool:
        if manifest is not self._manifest and self.layout == _layout(manifest):
            self._manifest = manifest
        return manifest is self._manifest

    def put(self, outputs: dict[str, Array]) -> None:
        for name, place in self._outputs.items():
            place[...] = outputs[name]

    def close(self) -> None:
        self._service.doorkeeper.leaves(self._count)
        self.inputs, self._outputs = {}, {}
        with contextlib.suppress(BufferError):  # whoever still holds a view lets go of it
            self._memory.close()
        self._free()

    def _free(self) -> None:
        if self.handle >= 0:
            os.close(self.handle)
        self._room.give(self._nbytes)


class _Caller:
    """One connection."""

    def __init__(self, link: socket.socket, routes: Routes, room: _Room) -> None:
        self._link = link
        self._routes = routes
        self._room = room
        self._regions: dict[str, _Region] = {}

    def run(self) -> None:
        mailbox = wire.Mailbox()
        while message := mailbox.receive(self._link):
            self._answer(message)

    def _answer(self, message: bytes) -> None:
        try:
            self._do(wire.decode_request(message))
        except RefusedCall as refusal:
            self._say(wire.Refused(refusal.status, str(refusal)))
        except msgspec.DecodeError as error:
            self._say(wire.Refused(400, f"The message cannot be read: {error}."))

    def _do(self, request: wire.Request) -> None:
        match request:
            case wire.Run(model, stream, passed):
                self._run(model, stream, passed=passed)
            case wire.Open(model):
                self._open(model)
            case wire.Get(path):
                self._document(Call("GET", path, trusted=True))
            case wire.Post(path, body):
                self._document(Call("POST", path, body, trusted=True))

    def _open(self, model: str) -> None:
        service = self._routes.service(model)
        manifest = service.manifest
        self._close(model)
        region = self._regions[model] = _Region(manifest, self._room, service)
        opened = wire.Opened(model, region.layout, count=region.layout.nbytes, now=time.monotonic())
        answer = wire.encode(opened)
        with service.door.handles() as handles:
            socket.send_fds(self._link, [answer], [region.handle, *handles])

    def _run(self, model: str, stream: str, *, passed: bool) -> None:
        region = self._regions.get(model)
        service = self._routes.service(model)
        if region is None or not region.fits(service.manifest):
            refused = _other(model)
            raise RefusedCall(refused.status, refused.message)
        if not stream and (left_s := service.doorkeeper.turns_back(passed=passed)) > 0:
            until = f"for up to {left_s * 1000:.1f} ms"
            raise RefusedCall(
                503, f"shed: requests wait already that leave no room for it, {until}"
            )

        def answer(ticket: Ticket) -> None:
            try:
                region.put(served(ticket))
                message = wire.DONE
            except RefusedCall as refusal:
                message = wire.encode(wire.Refused(refusal.status, str(refusal)))
            except (KeyError, ValueError):  # another version took over in this very moment
                message = wire.encode(_other(model))
            try:
                self._link.send(message, socket.MSG_DONTWAIT)
            except OSError:  # it went away, or reads no answers: nobody waits for that
                with contextlib.suppress(OSError):
                    self._link.shutdown(socket.SHUT_RDWR)

        stream = f"socket:{stream}" if stream else ""
        ticket = service.call(
            region.inputs, stream=stream, borrowed=True, passed=passed, done=answer
        )
        ticket.wait()

    def _document(self, call: Call) -> None:
        reply = self._routes.answer(call)
        if reply.status != 200:
            document = from_json(reply.body, dict[str, str])
            raise RefusedCall(reply.status, document["error"])
        self._say(wire.Document(reply.body))

    def _say(self, answer: wire.Answer) -> None:
        message = wire.encode(answer)
        if len(message) > wire.MAX_MESSAGE:
            raise RefusedCall(413, f"The answer has {len(message):,} bytes: ask for it over HTTP.")
        self._link.send(message)

    def _close(self, model: str) -> None:
        region = self._regions.pop(model, None)
        if region is not None:
            region.close()

    def __enter__(self) -> _Caller:
        return self

    def __exit__(self, *_: object) -> None:
        for model in list(self._regions):
            self._close(model)


def _turn_away(caller: socket.socket) -> None:
    """Tell a program too many, in answer to what it asks: it asks at once, or never."""
    full = f"{bounds.MAX_CALLERS} programs are connected already. Expected at most as many."
    with caller, contextlib.suppress(OSError):
        caller.settimeout(_REST_S)
        caller.recv(wire.MAX_MESSAGE)
        caller.send(wire.encode(wire.Refused(503, full)))


def _other(model: str) -> wire.Refused:
    return wire.Refused(409, f"{model} has not been opened, or takes other inputs by now.")


def _layout(manifest: Manifest) -> Layout:
    return Layout(_specs(manifest.inputs), _specs(manifest.outputs))


def _specs(tensors: tuple[Tensor, ...]) -> tuple[TensorSpec, ...]:
    return tuple(TensorSpec(tensor.name, tensor.shape, tensor.dtype) for tensor in tensors)
