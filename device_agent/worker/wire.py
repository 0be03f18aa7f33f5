"""What agent and worker say to each other; the data lie in shared memory.

The child gets a :class:`WorkerSpec` as its only argument, and waits for GO on the link, a socket
pair, so that its limits stand before it takes memory. It answers that with READY or BROKEN. From
then on a request is a number, rung on a bell of its own (``eventfd``), and its result the same
number on another: that costs half of what a datagram does. What takes a sentence goes by the link:
ERROR in place of a result. READY's text is :data:`CAN_CANCEL` where the runtime can break off an
inference: then CANCEL may be sent, with the number of the request. A message is one datagram
(``SOCK_SEQPACKET``): a code of one byte, the request's number in eight, and a sentence.
"""

from __future__ import annotations

import struct

import msgspec

from edgeml.device_agent.worker.layout import Layout

READY, BROKEN, DONE, ERROR, GO, CANCEL = range(6)
"""DONE is rung and never sent."""

CAN_CANCEL = "cancel"

_HEAD = struct.Struct("<BQ")

MAX_TEXT = 2000
"""Bytes of an error's sentence that are passed on."""

MAX_MESSAGE = _HEAD.size + MAX_TEXT


class WorkerSpec(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that a worker is told.

    Attributes:
        target: name in the registry.
        entry: path of the artifact's first file.
        threads: of the runtime.
        options: session options of the artifact.
        inputs: source name to runtime name.
        outputs: likewise.
        layout: of the shared memory.
        link: file descriptor of the socket.
        requests: file descriptor of the bell that is rung for a request.
        results: file descriptor of the bell that is rung for a result.
        memory: file descriptor of the shared memory.
        parent: process id of the agent.
    """

    target: str
    entry: str
    threads: int
    options: dict[str, str]
    inputs: dict[str, str]
    outputs: dict[str, str]
    layout: Layout
    link: int = -1
    requests: int = -1
    results: int = -1
    memory: int = -1
    parent: int = 0


def message(code: int, number: int = 0, text: str = "") -> bytes:
    """A datagram."""
    head = _HEAD.pack(code, number)
    return head + text.encode(errors="replace")[:MAX_TEXT] if text else head


def parse(datagram: bytes) -> tuple[int, int, str]:
    """Code, number and text of a datagram."""
    code, number = _HEAD.unpack_from(datagram)
    text = datagram[_HEAD.size :].decode(errors="replace") if len(datagram) > _HEAD.size else ""
    return code, number, text
