"""What a program and the agent say to each other over the Unix socket. Pure.

One datagram a message (``SOCK_SEQPACKET``), MessagePack. A program opens a model and is given
memory with room for its inputs and outputs, as a file descriptor beside the answer; from then on it
writes inputs there, says :class:`Run`, and finds the outputs there. Where it sees at the model's
door that it would be refused, it says nothing.
"""

from __future__ import annotations

import functools
import socket

import msgspec

from edgeml.decoding import msgpack_decoder
from edgeml.device_agent.worker.layout import Layout

MAX_MESSAGE = 160 * 1024
"""Bytes. Tensors do not travel here, and the kernel's own limit for a datagram is about 200 kB."""


class Open(msgspec.Struct, frozen=True, tag=True):
    """I want to call this model. Answered with :class:`Opened` and a descriptor."""

    model: str


class Run(msgspec.Struct, frozen=True, tag=True):
    """The inputs are in place. Answered with :class:`Done`.

    Attributes:
        passed: whether the program took a pass.
    """

    model: str
    stream: str = ""
    passed: bool = False


class Get(msgspec.Struct, frozen=True, tag=True):
    """What HTTP would answer to this path. Answered with :class:`Document`."""

    path: str


class Post(msgspec.Struct, frozen=True, tag=True):
    """What HTTP would answer to this path and body. Answered with :class:`Document`."""

    path: str
    body: bytes


class Opened(msgspec.Struct, frozen=True, tag=True):
    """The memory that comes with this is laid out like that. A second descriptor is that of the
    model's door (:mod:`edgeml.device_agent.serving.door`), a third where passes are taken from
    (:mod:`edgeml.device_agent.serving.turnstile`).

    Attributes:
        count: byte of the memory where the program counts how often it turned back at the door.
        now: by the agent's clock, which the door goes by.
    """

    model: str
    layout: Layout
    count: int = 0
    now: float = 0.0


class Done(msgspec.Struct, frozen=True, tag=True):
    """The outputs are in place."""


class Document(msgspec.Struct, frozen=True, tag=True):
    """The answer that HTTP would give."""

    body: bytes


class Refused(msgspec.Struct, frozen=True, tag=True):
    """Not served; the status is HTTP's, 409 where the model takes other inputs by now."""

    status: int
    message: str


Request = Open | Run | Get | Post
Answer = Opened | Done | Document | Refused

encode = msgspec.msgpack.Encoder().encode
_requests = msgpack_decoder(Request)
_answers = msgpack_decoder(Answer)


DONE = encode(Done())


class Mailbox:
    """Where messages are received: made once, since room for the longest one is more than the
    allocator keeps at hand, and would be had from the kernel and given back for each."""

    def __init__(self) -> None:
        self._view = memoryview(bytearray(MAX_MESSAGE))

    def receive(self, link: socket.socket) -> bytes:
        """The next message; empty where the other side hung up.

        Raises:
            OSError: the link is broken, or its time is over.
        """
        return bytes(self._view[: link.recv_into(self._view)])


_SHORT = 256
"""Bytes of a message that is remembered, and how many are: programs repeat the same few."""

_remembered = functools.lru_cache(_SHORT)(_requests.decode)


def decode_request(message: bytes) -> Request:
    """A program's message.

    Raises:
        msgspec.DecodeError: it is none.
    """
    return _remembered(message) if len(message) <= _SHORT else _requests.decode(message)


def decode_answer(message: bytes) -> Answer:
    """The agent's message.

    Raises:
        msgspec.DecodeError: it is none.
    """
    return _answers.decode(message)
