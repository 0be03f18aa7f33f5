"""How far an artifact is on its way to serve: a person waits for it, maybe for minutes.

A runtime tells nothing while it builds an engine, so progress is time: spent, and spent last time.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Generator

import msgspec

from edgeml.device_agent.serving.runner import Variant
from edgeml.telemetry import Building


class Progress:
    """Of one model; at most one artifact at a time. Read from any thread.

    Args:
        changed: called when something begins, proceeds or ends.
    """

    def __init__(self, changed: Callable[[], None]) -> None:
        self._changed = changed
        self._building: tuple[Building, float] | None = None

    @property
    def building(self) -> Building | None:
        """What is on its way now."""
        found = self._building
        if found is None:
            return None
        building, begin = found
        return msgspec.structs.replace(building, elapsed_s=round(time.monotonic() - begin, 1))

    @contextlib.contextmanager
    def of(self, variant: Variant, *, expected_s: float | None) -> Generator[Callable[[], None]]:
        """An artifact loads, and then proves itself.

        Args:
            variant: of which bundle.
            expected_s: until it is loaded, as far as that is known.

        Yields:
            What to call when it is loaded.
        """
        building = Building(
            version=variant.bundle.manifest.version,
            artifact=variant.artifact.id,
            stage="loading",
            elapsed_s=0.0,
            expected_s=expected_s,
        )
        begin = time.monotonic()

        def loaded() -> None:
            self._building = msgspec.structs.replace(building, stage="proving"), begin
            self._changed()

        self._building = building, begin
        self._changed()
        try:
            yield loaded
        finally:
            self._building = None
            self._changed()
