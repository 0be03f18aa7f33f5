"""The worker: loads one artifact, then runs it whenever the bell rings.

It imports NumPy and its own runtime, nothing of the agent. It ends when the agent does: the kernel
kills it (``PR_SET_PDEATHSIG``), and the end of the link says the same.
"""

from __future__ import annotations

import gc
import mmap
import os
import socket
import threading
from pathlib import Path
from typing import Any

import numpy as np

from edgeml.decoding import from_json
from edgeml.device_agent.worker import wire
from edgeml.device_agent.worker.ear import Ear
from edgeml.device_agent.worker.layout import Array
from edgeml.device_agent.worker.turns import Turns
from edgeml.processes import die_with_parent
from edgeml.targets.runtime import NamedSession, open_session

AWAKE_S = 0.0002
"""After an answer: a program that has its next input ready asks again within this."""


def serve(argument: str, link: socket.socket) -> None:
    """Load and run until the agent goes away.

    Args:
        argument: a :class:`~edgeml.device_agent.worker.wire.WorkerSpec` as JSON.
        link: this side of the socket pair.
    """
    spec = from_json(argument, wire.WorkerSpec)
    die_with_parent(spec.parent)
    memory = mmap.mmap(spec.memory, spec.layout.nbytes)
    inputs, outputs = spec.layout.views(memory)
    try:
        session = NamedSession(
            open_session(spec.target, Path(spec.entry), threads=spec.threads, options=spec.options),
            spec.inputs,
            spec.outputs,
        )
        run = session.bound(inputs)
    except Exception as error:  # noqa: BLE001 - whatever a runtime raises, the agent must hear it
        link.send(wire.message(wire.BROKEN, text=_sentence(error)))
        return
    gc.collect()
    gc.freeze()  # a full collection takes milliseconds, and finds nothing
    breaker = _Breaker(session, link)
    link.send(wire.message(wire.READY, text=wire.CAN_CANCEL if session.can_cancel else ""))
    bells = Ear(spec.requests, link, messages=False, awake_s=AWAKE_S)
    turns = Turns()
    while number := bells.hears(None):
        fault = ""
        try:
            breaker.running(number)
            try:
                with turns:
                    results = run()
            finally:
                breaker.running(0)
            for name, place in outputs.items():
                _put(name, results[name], place)
        except Exception as error:  # noqa: BLE001 - likewise
            fault = _sentence(error)
        if fault:
            link.send(wire.message(wire.ERROR, number, fault))
        else:
            os.eventfd_write(spec.results, number)


class _Breaker:
    """Breaks an inference off when the agent says so, from a thread of its own."""

    def __init__(self, session: NamedSession, link: socket.socket) -> None:
        self._session = session
        self._link = link
        self._lock = threading.Lock()
        self._running = 0
        if session.can_cancel:
            threading.Thread(target=self._listen, daemon=True).start()

    def running(self, number: int) -> None:
        """This request is at work; 0 for none."""
        with self._lock:
            self._running = number

    def _listen(self) -> None:
        while ring := self._link.recv(wire.MAX_MESSAGE):
            _, number, _ = wire.parse(ring)
            with self._lock:  # never the request after it
                if number == self._running:
                    self._session.cancel()


def _put(name: str, result: Any, place: Array) -> None:
    found = np.asarray(result)
    if found.shape != place.shape or found.dtype != place.dtype:
        raise ValueError(
            f"Output '{name}' has shape {list(found.shape)} and dtype {found.dtype}. Expected "
            f"shape {list(place.shape)} and dtype {place.dtype}, as the manifest says."
        )
    place[...] = found


def _sentence(error: Exception) -> str:
    return str(error) or type(error).__name__
