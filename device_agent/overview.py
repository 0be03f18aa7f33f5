"""What the agent tells of itself as a whole: the birth message, the reported state, the status."""

from __future__ import annotations

import mmap
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from edgeml import __version__
from edgeml.device_agent.config import Config
from edgeml.device_agent.facts import device_facts
from edgeml.device_agent.limits.sensors import memory_pressure, temperature
from edgeml.device_agent.local.status import (
    AgentStatus,
    AwakeState,
    BrokerState,
    DiskState,
    OutboxState,
)
from edgeml.device_agent.uplink.outbox import Outbox
from edgeml.telemetry import ActiveModel, Reported, Status, Topics

if TYPE_CHECKING:
    from edgeml.device_agent.serving.service import Service


class Overview:
    """Args:
    config: of the agent.
    topics: who it is.
    boot: of this run.
    services: its models.
    outbox: of this run.
    disk: tells of the state folder.
    connected: whether the broker is there.
    awake: whether cores are kept from sleeping.
    """

    def __init__(
        self,
        config: Config,
        *,
        topics: Topics,
        boot: str,
        services: Sequence[Service],
        outbox: Outbox,
        disk: Callable[[], DiskState],
        connected: Callable[[], bool],
        awake: Callable[[], AwakeState],
    ) -> None:
        self._config = config
        self._topics = topics
        self._boot = boot
        self._services = services
        self._outbox = outbox
        self._disk = disk
        self._connected = connected
        self._awake = awake
        self._facts = device_facts()
        self._started = time.monotonic()
        self._started_ms = time.time_ns() // 10**6
        self.windows: Counter[str] = Counter()
        """Windows closed since the start, by model."""

    def birth(self, online: bool) -> Status:
        """The ``status`` message."""
        active = (s.state for s in self._services if s.state.phase == "active")
        return Status(
            online=online,
            boot=self._boot,
            agent=__version__,
            started_ms=self._started_ms,
            facts=self._facts,
            models=tuple(
                ActiveModel(name=s.name, version=s.version, bundle=s.bundle, artifact=s.artifact)
                for s in active
            ),
        )

    def reported(self) -> Reported:
        """The ``reported`` message."""
        states = [service.state for service in self._services]
        return Reported(boot=self._boot, models=tuple(s for s in states if s.phase != "starting"))

    def now(self) -> AgentStatus:
        """Everything, for whoever asks on the device. From any thread.

        Raises:
            AgentError: the outbox cannot be read.
        """
        filling = self._outbox.filling()
        broker = self._config.broker
        return AgentStatus(
            agent=__version__,
            site=self._topics.site,
            device=self._topics.device,
            boot=self._boot,
            started_ms=self._started_ms,
            uptime_s=time.monotonic() - self._started,
            resident_mb=_resident_bytes() / 1e6,
            temperature_c=temperature(),
            memory_pressure=memory_pressure(),
            awake=self._awake(),
            broker=BrokerState(address=f"{broker.host}:{broker.port}", connected=self._connected())
            if broker is not None
            else None,
            outbox=OutboxState(
                waiting=filling.waiting,
                numbered=filling.numbered,
                bytes=filling.bytes,
                limit_bytes=int(self._config.outbox_mb * 1e6),
                events=filling.events,
                merged=self._outbox.merged,
                dropped=self._outbox.dropped,
            ),
            disk=self._disk(),
            windows=dict(self.windows),
            models=tuple(service.snapshot() for service in self._services),
        )


def _resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * mmap.PAGESIZE
