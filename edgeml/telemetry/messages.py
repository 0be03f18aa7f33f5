"""What device and collector say to each other. Site and device stand in the topic.

Every message has a ``schema`` number: a reader counts and drops one that it does not know. Nothing
that matters rides in an MQTT 5 property, so that a 3.1.1 broker will do.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

import msgspec
from msgspec import Meta

SCHEMA = 2
"""1 named each stream and its grid in a window, and had a list of integers for its counts."""

WINDOW_SCHEMA = 4
"""Of windows. In those of 2 all counts were packed plainly, in those of 3 some in Golomb codes;
both are read as ever."""

Count = Annotated[int, Meta(ge=0)]
Positive = Annotated[int, Meta(ge=1)]
Name = Annotated[str, Meta(pattern=r"^[A-Za-z0-9._-]{1,64}$")]
Packed = Annotated[bytes, Meta(min_length=1, max_length=1 << 16)]
Text = Annotated[str, Meta(max_length=4096)]


class Message(msgspec.Struct, frozen=True, kw_only=True):
    """Base of all messages."""

    MAX_BYTES: ClassVar[int] = 256 * 1024
    """A longer payload is refused unread."""
    BINARY: ClassVar[bool] = False
    """MessagePack instead of JSON."""
    SCHEMAS: ClassVar[tuple[int, ...]] = (SCHEMA,)
    """Those that are read."""

    schema: int = SCHEMA


class Window(Message, frozen=True, kw_only=True):
    """``stats/{model}``: one closed window, absolute counts, never a delta.

    The collector's key for it is (device, boot, sequence, model, version, start).
    """

    MAX_BYTES: ClassVar[int] = 1024 * 1024
    BINARY: ClassVar[bool] = True
    SCHEMAS: ClassVar[tuple[int, ...]] = (SCHEMA, 3, WINDOW_SCHEMA)

    schema: int = WINDOW_SCHEMA
    boot: Name
    """Names the run of the agent that first sent it; sequences count from 1 within it."""
    sequence: Positive
    """Given when the window is first sent, so what was merged before that has one number."""
    oldest: Positive
    """Lowest sequence of this boot that is still in the outbox: nothing below it will ever come."""
    model: Name
    version: Name
    bundle: Annotated[str, Meta(pattern=r"^[0-9a-f]{64}$")]
    artifact: Name
    start_ms: Count
    """Unix time by the device's own clock, which may be wrong."""
    duration_ms: Count
    """By its monotonic clock, which is not. Of a merged window: of all its windows together."""
    merged: Positive = 1
    """Windows that were added up to this one, while it waited in an outbox that was full. The
    counts are exact, the resolution in time is lost."""
    rows: Count
    """Samples behind the statistics."""
    outcomes: dict[Name, Count]
    """Requests of the window by what became of them: served, late, shed, failed."""
    baseline: Annotated[str, Meta(pattern=r"^([0-9a-f]{16})?$")] = ""
    """:attr:`edgeml.statistics.Baseline.hash` of what the counts mean; empty where there are
    none."""
    statistics: Annotated[list[Packed], Meta(max_length=4096)] = []
    """Of each of the baseline's streams, in its order, what :func:`edgeml.statistics.pack` made of
    its counts."""


class ActiveModel(msgspec.Struct, frozen=True, kw_only=True):
    """A model that serves on a device."""

    name: Name
    version: Name
    bundle: str
    """SHA-256 of the bundle."""
    artifact: Name


class DeviceFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What a device is."""

    machine: Text = ""
    """Architecture, such as ``aarch64``."""
    system: Text = ""
    python: Text = ""
    cores: Count = 0
    memory_mb: Count = 0


class Status(Message, frozen=True, kw_only=True):
    """``status``, retained: birth with ``online``; the last will is the same without."""

    online: bool
    boot: Name
    agent: Text = ""
    """Version of edgeml."""
    started_ms: Count = 0
    facts: DeviceFacts = DeviceFacts()
    models: tuple[ActiveModel, ...] = ()


class Building(msgspec.Struct, frozen=True, kw_only=True):
    """An artifact that a device makes ready: its runtime loads it, which means minutes where that
    builds an engine, and then it proves itself."""

    version: Name
    artifact: Name
    stage: Name
    """``loading``, then ``proving``."""
    elapsed_s: Annotated[float, Meta(ge=0)]
    """In both stages together, by the device's monotonic clock."""
    expected_s: Annotated[float, Meta(ge=0)] | None = None
    """What it took the last time on this device; none where there was no last time."""


class ModelState(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a model on a device."""

    name: Name
    version: Name
    bundle: str
    artifact: str
    phase: Name
    """``verified``, ``proved``, ``active``, ``failed``."""
    error: Text = ""
    memory_limit: Text = ""
    """How the memory budget is held: ``cgroup2``, ``cgroup1``, ``poll``, ``none``."""
    building: Building | None = None
    """What is on its way to serve, whatever the phase of what serves; said again and again
    meanwhile. Earlier agents do not say it."""


class Reported(Message, frozen=True, kw_only=True):
    """``reported``, retained: what does run, in which phase, with which error."""

    boot: Name
    models: tuple[ModelState, ...]


class Event(Message, frozen=True, kw_only=True):
    """``event/{kind}``: budget breach, restart, rollback, refused bundle."""

    boot: Name
    kind: Name
    time_ms: Count
    message: Text
    model: str = ""
    details: dict[str, str | int | float] = {}


class Stored(Message, frozen=True, kw_only=True):
    """``stored``: every window of ``boot`` up to and with ``sequence`` is in the store for good."""

    boot: Name
    sequence: Count


class Command(Message, frozen=True, kw_only=True):
    """``cmd``, never retained: something that a device is asked to do, once."""

    id: Name
    """Chosen by the sender, anew for each; a device does what one asks for at most once."""
    kind: Name
    issued_ms: Count
    """Unix time by the sender's clock."""
    lifetime_s: Annotated[float, Meta(gt=0, le=3600)]
    """After this it is not begun any more."""
    model: str = ""
    count: Annotated[int, Meta(ge=0, le=1000)] = 0
    """Lines of the log, or windows; 0 for the usual number."""


class CommandResult(Message, frozen=True, kw_only=True):
    """``cmd/result``: what became of it."""

    MAX_BYTES: ClassVar[int] = 1024 * 1024

    id: str
    kind: str
    boot: Name
    time_ms: Count
    """By the device's clock."""
    outcome: Literal["done", "refused", "failed", "repeated"]
    message: Text = ""
    """Why not, unless it is done."""
    part: Positive = 1
    parts: Positive = 1
    """Some answers come in several, each with its part of the document."""
    document: dict[str, Any] = {}
