"""What a keeper may do, and what it goes by."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from edgeml.device_agent.limits import sensors
from edgeml.device_agent.serving.ladder import Thresholds


class Policy(msgspec.Struct, frozen=True, kw_only=True):
    """What a keeper may do.

    Attributes:
        restarts: workers replaced within :data:`~edgeml.device_agent.config.RESTART_SPAN_S` before
            the model is given up.
        standby: keep a warm second worker, where there is room for it.
        ladder: of the steps between artifacts; None for no steps.
        creep_rest_s: see :class:`~edgeml.device_agent.serving.creep.Creep`.
    """

    restarts: int
    standby: bool
    ladder: Thresholds | None
    creep_rest_s: float = 10.0


class Sensors(msgspec.Struct, frozen=True, kw_only=True):
    """Where the machine's distress is read."""

    pressure: Callable[[], float | None] = sensors.memory_pressure
    celsius: Callable[[], float | None] = sensors.temperature
