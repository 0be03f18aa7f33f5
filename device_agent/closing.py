"""Closed windows on their way to the outbox: when they are due, and how they wait for the disk."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from edgeml.device_agent import logs
from edgeml.device_agent.install.shelf import Tell
from edgeml.device_agent.uplink.outbox import Appended, Outbox
from edgeml.device_agent.uplink.thinning import thinned
from edgeml.errors import AgentError, TelemetryError
from edgeml.telemetry import Window

if TYPE_CHECKING:
    from edgeml.device_agent.serving.service import Service

_UNSAVED = 16
"""Closed windows kept in memory while the disk does not take them; more are merged."""

_RETRY_S = 1.0
"""Before the disk is tried again."""


class Closing:
    """On the agent's main thread.

    Args:
        services: whose windows.
        outbox: of this run.
        closed: told of each window that is stored.
        tell: of what happened to others.
    """

    def __init__(
        self,
        services: Sequence[Service],
        outbox: Outbox,
        *,
        closed: Callable[[Window], None],
        tell: Tell,
    ) -> None:
        self._services = services
        self._outbox = outbox
        self._closed = closed
        self._tell = tell
        self._unsaved: list[Window] = []
        self._damage_told = ""

    def due(self, now: float) -> float:
        """When there is something to do, monotonic seconds; infinite where that is never."""
        if self._unsaved:
            return now + _RETRY_S
        return min((service.window_due for service in self._services), default=float("inf"))

    def turn(self, *, only_due: bool) -> None:
        """Close windows and store them: those that are due, or all."""
        now, known = time.monotonic(), len(self._unsaved)
        for service in self._services:
            if not only_due or service.window_due <= now:
                self._unsaved.extend(service.windows(now=now, wall_ms=time.time_ns() // 10**6))
        fresh = len(self._unsaved) > known
        self._unsaved = thinned(self._unsaved, _UNSAVED)
        while self._unsaved:
            window, waiting = self._unsaved[0], len(self._unsaved)
            try:
                appended = self._outbox.append(window)
            except AgentError as error:
                if fresh:  # not each time that it is tried again: the log may go to this disk
                    logs.warn(
                        "window not stored", model=window.model, reason=error, waiting=waiting
                    )
                break
            except TelemetryError as error:  # more statistics than a message may hold
                logs.warn("window dropped", model=window.model, reason=error)
                del self._unsaved[0]
                continue
            del self._unsaved[0]
            logs.info(
                "window",
                model=window.model,
                rows=window.rows,
                **{name: count for name, count in window.outcomes.items() if count},
            )
            self._tell_full(appended)
            self._closed(window)
        self.tell_damage()

    def _tell_full(self, appended: Appended) -> None:
        """An event for the 1st, 2nd, 4th, 8th … window that was merged or had to go."""
        box = self._outbox
        for kind, now, total, what in (
            ("outbox-merged", appended.merged, box.merged, "became part of another one"),
            ("outbox-full", appended.dropped, box.dropped, "were given up"),
        ):
            if now and total.bit_length() != (total - now).bit_length():
                self._tell(
                    kind,
                    f"{total} windows {what}: the collector has not taken them, and the outbox "
                    f"holds {box.limit_bytes / 1e6:g} MB",
                    "",
                    {"windows": total},
                )

    def tell_damage(self) -> None:
        """Say that the outbox was damaged, once."""
        if self._outbox.damaged != self._damage_told:
            self._damage_told = self._outbox.damaged
            logs.warn("outbox damaged", reason=self._damage_told)
            self._tell(
                "outbox-damaged",
                f"The outbox was damaged and moved aside; what it held is lost: "
                f"{self._damage_told}",
                "",
                {},
            )
