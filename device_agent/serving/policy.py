"""What a keeper may do, and what it goes by."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from edgeml.device_agent.config import ModelConfig
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


def policy_of(config: ModelConfig) -> Policy:
    """As a model's configuration has it. One artifact that is named is no ladder."""
    thresholds = Thresholds(
        span_s=config.ladder_s,
        quiet_s=config.quiet_s,
        celsius=config.hot_c,
        celsius_low=config.hot_c - 10,
    )
    return Policy(
        restarts=config.restarts,
        standby=config.standby,
        ladder=thresholds if config.ladder and not config.target else None,
    )
