"""Which windows, or which streams, somebody means: of a device, a site, a model version, an agent's
version, a span of time."""

from __future__ import annotations

from typing import Any

import msgspec
import sqlalchemy as sa

from edgeml.collector.store.fleet_tables import groups
from edgeml.collector.store.tables import boots, devices, streams, windows
from edgeml.errors import CollectorError

_OF_DEVICES = ("device", "site")
_END_MS = windows.c.start_ms + sa.case(
    (windows.c.resolution_ms > 0, windows.c.resolution_ms), else_=1
)
"""Of what a window stands for; one that was not merged goes by its beginning."""


class Selection(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All that is named has to hold; an empty name means any."""

    device: str = ""
    site: str = ""
    model: str = ""
    version: str = ""
    """Of the model."""
    agent: str = ""
    """Version of the device agent, as the birth of the boot said."""
    from_ms: int | None = None
    to_ms: int | None = None
    """Windows that start in [from_ms, to_ms), by the device's clock."""

    def windows(self, *columns: Any) -> Any:
        """A query of the windows that are meant, joined with their devices.

        Raises:
            CollectorError: nothing is named: all windows there are cannot be meant.
        """
        if not any((self.device, self.site, self.version, self.agent)) and self.from_ms is None:
            raise CollectorError(
                "neither a device, a site, a version, an agent nor a beginning is named",
                expected="at least one of them",
                remedy="Name what is to be taken back.",
            )
        query = (
            sa.select(*columns)
            .select_from(windows)
            .join(devices, devices.c.id == windows.c.device_id)
            .where(*(devices.c[n] == getattr(self, n) for n in _OF_DEVICES if getattr(self, n)))
        )
        for name in ("model", "version"):
            if wanted := getattr(self, name):
                query = query.where(windows.c[name] == wanted)
        if self.agent:
            query = query.join(
                boots,
                sa.and_(boots.c.device_id == windows.c.device_id, boots.c.boot == windows.c.boot),
            ).where(boots.c.agent == self.agent)
        # Of what was merged, that which lies in the span as a whole.
        if self.from_ms is not None:
            query = query.where(windows.c.start_ms >= self.from_ms)
        if self.to_ms is not None:
            query = query.where(self.to_ms >= _END_MS)
        return query

    def across(self) -> Any:
        """A query: how many merged windows reach across the beginning or the end of the span."""
        edges = [
            sa.and_(windows.c.start_ms < edge, edge < _END_MS)
            for edge in (self.from_ms, self.to_ms)
            if edge is not None
        ]
        anywhen = msgspec.structs.replace(self, from_ms=self.from_ms and -(2**62), to_ms=None)
        query = anywhen.windows(sa.func.count())
        return query.where(windows.c.resolution_ms > 0, sa.or_(sa.false(), *edges))


class StreamSelection(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Streams of a device, of a site with the site's own, or of all, with all group streams."""

    device: str = ""
    site: str = ""
    stream: str = ""
    """Only this statistic."""
    all: bool = False

    def check(self) -> None:
        """Raises:
        CollectorError: nothing is named.
        """
        if not (self.device or self.site or self.all):
            raise CollectorError(
                "neither a device nor a site is named",
                expected="a device, a site, or all",
                remedy="Name what is to start anew.",
            )

    def of_devices(self) -> Any:
        """A condition on ``streams`` joined with ``devices``."""
        named = {devices.c.device: self.device, devices.c.site: self.site}
        wanted = [column == value for column, value in named.items() if value]
        wanted += [streams.c.stream == self.stream] if self.stream else []
        return sa.and_(sa.true(), *wanted)

    def of_groups(self) -> Any:
        """A condition on ``groups``; a single device has no group."""
        if self.device:
            return sa.false()
        wanted = [groups.c.site == self.site] if self.site else []
        wanted += [groups.c.stream == self.stream] if self.stream else []
        return sa.and_(sa.true(), *wanted)
