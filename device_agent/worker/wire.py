"""What agent and worker say to each other over the socket pair: the doorbell, not the data.

The child gets a :class:`WorkerSpec` as its only argument, and waits for GO, so that its limits
stand before it takes memory. It answers that with READY or BROKEN, then each RUN with DONE or
ERROR. READY's text is :data:`CAN_CANCEL` where the runtime can break off an inference: then CANCEL
may be sent over a socket pair of its own, with the number of the request. A message is one datagram
(``SOCK_SEQPACKET``): a code of one byte, the request's number in eight, and a sentence.
"""

from __future__ import annotations

import struct

import msgspec

from edgeml.device_agent.worker.layout import Layout

RUN, READY, BROKEN, DONE, ERROR, GO, CANCEL = range(7)

CAN_CANCEL = "cancel"

HEAD = struct.Struct("<BQ")

MAX_TEXT = 2000
"""Bytes of an error's sentence that are passed on."""

MAX_MESSAGE = HEAD.size + MAX_TEXT


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
        socket: file descriptor of the doorbell.
        control: file descriptor of the socket that CANCEL comes over.
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
    socket: int = -1
    control: int = -1
    memory: int = -1
    parent: int = 0


def message(code: int, number: int = 0, text: str = "") -> bytes:
    """A datagram."""
    head = HEAD.pack(code, number)
    return head + text.encode(errors="replace")[:MAX_TEXT] if text else head


def parse(datagram: bytes) -> tuple[int, int, str]:
    """Code, number and text of a datagram."""
    code, number = HEAD.unpack_from(datagram)
    text = datagram[HEAD.size :].decode(errors="replace") if len(datagram) > HEAD.size else ""
    return code, number, text
