"""Whether a command is carried out. Pure; both clocks come in.

A command is begun only while *neither* clock says that it is too old: the device's wall clock has
not reached ``issued_ms`` + ``lifetime_s``, and by its monotonic clock it has not waited here for
longer than ``lifetime_s``. A wall clock that is wrong can only refuse: one that is ahead makes
everything too old, and one that is behind sees commands from the future, whose age it cannot tell.
"""

from __future__ import annotations

from collections.abc import Collection

from edgeml.telemetry import Command

SKEW_MS = 60_000
"""How far a sender's clock may be ahead of the device's."""


def refusal(
    command: Command,
    *,
    kinds: Collection[str],
    allowed: Collection[str],
    retained: bool,
    wall_ms: int,
    waited_s: float,
) -> str:
    """Why a command is not carried out, or nothing.

    Args:
        command: that came.
        kinds: there are.
        allowed: of these, by the configuration.
        retained: the broker had kept it, so it may be of any age and come again and again.
        wall_ms: the device's wall clock now, Unix time.
        waited_s: since it came, on the monotonic clock.
    """
    if command.kind not in kinds:
        return f"There is no command '{command.kind}'. Expected one of {', '.join(kinds)}."
    if command.kind not in allowed:
        have = ", ".join(allowed) or "none"
        return (
            f"This device does not permit '{command.kind}', only: {have}. "
            "Its configuration says so under [commands]."
        )
    if retained:
        return "The command was retained. Expected one that the broker does not keep."
    return _age(command, wall_ms, waited_s)


def _age(command: Command, wall_ms: int, waited_s: float) -> str:
    age_ms = wall_ms - command.issued_ms
    if age_ms > command.lifetime_s * 1000:
        return (
            f"The command is {age_ms / 1000:.0f} s old by this device's clock. "
            f"Expected at most {command.lifetime_s:g} s."
        )
    if age_ms < -SKEW_MS:
        return (
            f"The command was issued {-age_ms / 1000:.0f} s in the future of this device's clock. "
            "One of the two clocks is wrong."
        )
    if waited_s > command.lifetime_s:
        return (
            f"The command waited here for {waited_s:.0f} s. "
            f"Expected at most {command.lifetime_s:g} s."
        )
    return ""
