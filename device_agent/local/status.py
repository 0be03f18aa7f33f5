"""The agent as it is this moment: what metrics and people read of it. Data."""

from __future__ import annotations

import msgspec

from edgeml.device_agent.serving.snapshot import ModelSnapshot


class BrokerState(msgspec.Struct, frozen=True, kw_only=True):
    """The connection to the broker."""

    address: str
    connected: bool


class OutboxState(msgspec.Struct, frozen=True, kw_only=True):
    """What waits for the collector, and what had to give way since the start.

    Attributes:
        waiting: windows that were never sent.
        numbered: windows that are on their way.
        bytes: of all their payloads.
        limit_bytes: what they may have.
        events: events that wait for the broker.
        merged: windows that became part of another one.
        dropped: windows that were given up.
    """

    waiting: int
    numbered: int
    bytes: int
    limit_bytes: int
    events: int
    merged: int
    dropped: int


class DiskState(msgspec.Struct, frozen=True, kw_only=True):
    """What the agent has on the disk, besides the outbox.

    Attributes:
        used_bytes: by folder of the state folder: ``bundles`` of the versions that are installed,
            ``artifacts`` extracted from them, ``engines`` that TensorRT built.
        free_bytes: left on that file system.
    """

    used_bytes: dict[str, int]
    free_bytes: int


class AwakeState(msgspec.Struct, frozen=True, kw_only=True):
    """Whether the processor's cores are kept from sleeping.

    Attributes:
        keep_ms: after each request; 0 where that is not wanted.
        held: they are now.
        problem: why they cannot be; empty where they can.
    """

    keep_ms: float
    held: bool
    problem: str


class AgentStatus(msgspec.Struct, frozen=True, kw_only=True):
    """The whole.

    Attributes:
        agent: version of edgeml.
        site: that the device is at.
        device: its name.
        boot: names this run.
        started_ms: Unix time by the device's clock.
        uptime_s: by its monotonic clock.
        resident_mb: of the agent itself, without workers, 10^6 bytes.
        temperature_c: of the hottest thermal zone; None where there is none.
        memory_pressure: share of the last ten seconds in which something waited for memory; None
            where the kernel does not tell.
        awake: whether cores are kept from sleeping.
        broker: None where none is configured.
        outbox: of this device.
        disk: of this device.
        windows: statistics windows closed since the start, by model.
        models: each with all it tells.
    """

    agent: str
    site: str
    device: str
    boot: str
    started_ms: int
    uptime_s: float
    resident_mb: float
    temperature_c: float | None
    memory_pressure: float | None
    awake: AwakeState
    broker: BrokerState | None
    outbox: OutboxState
    disk: DiskState
    windows: dict[str, int]
    models: tuple[ModelSnapshot, ...]
