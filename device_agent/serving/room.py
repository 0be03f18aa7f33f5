"""Whether there is memory for one more worker beside those that run. Its peak counts, not what it
settles at: two that load at once are what brings a small device down.
"""

from __future__ import annotations

from collections.abc import Callable

from edgeml.device_agent.limits.spare import available_bytes
from edgeml.device_agent.serving.runner import Variant

UNKNOWN_BYTES = 128 * 10**6
"""Of a worker, beside twice its artifact, where nothing was measured: Python, NumPy, a runtime."""

AVAILABLE_SHARE = 0.8
"""Of the memory that is available, what one more worker may take: the rest of the device lives on
it, too."""


class Room:
    """Args:
    limit_bytes: of all workers together; None for what the machine has.
    used_bytes: what they have resident now.
    available: memory that can be had now, bytes.
    """

    def __init__(
        self,
        limit_bytes: int | None,
        *,
        used_bytes: Callable[[], int],
        available: Callable[[], int] = available_bytes,
    ) -> None:
        self._limit = limit_bytes
        self._used = used_bytes
        self._available = available

    def fits(self, need_bytes: int) -> bool:
        """Whether a worker with this peak fits beside those that run now."""
        if self._limit is not None and self._used() + need_bytes > self._limit:
            return False
        return need_bytes <= self._available() * AVAILABLE_SHARE


def peak_bytes(variant: Variant) -> int:
    """What a worker of it takes at most: measured here, else by the exporter, else a guess."""
    measured = variant.artifact.measured
    if variant.profile is not None:
        need = int(variant.profile.peak_mb * 1e6)
    elif measured is not None and measured.peak_rss_mb:
        need = int(measured.peak_rss_mb * 1e6)
    else:
        need = UNKNOWN_BYTES + 2 * variant.artifact.bytes
    return need if variant.limit_bytes is None else min(need, variant.limit_bytes)
