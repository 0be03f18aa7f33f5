"""A stored window on its way to the monitors."""

from __future__ import annotations

from typing import NamedTuple

import msgspec
import sqlalchemy as sa

from edgeml.collector.drift.peers import Device
from edgeml.collector.drift.policy import Policy
from edgeml.statistics import Counts

_COPIED = (
    *("device_id", "site", "model", "version", "artifact", "bundle", "start_ms", "duration_ms"),
    *("merged", "received_ms"),
)


class Arrived(msgspec.Struct, frozen=True, kw_only=True):
    """A stored window whose counts fit its bundle."""

    window_id: int
    device_id: int
    site: str
    key: str
    """The same in every replay."""
    model: str
    version: str
    artifact: str
    bundle: str
    start_ms: int
    duration_ms: int
    merged: int
    """Windows of the device that were added up to this one."""
    received_ms: int
    counts: dict[str, Counts]
    """Of each stream of the bundle's baseline."""


class Place(NamedTuple):
    """Where a window lies among those of its peers."""

    device: Device
    length_ms: int
    """Of a window as the device counts them."""
    test_ms: int
    """Of a test window of those, at least: the alarm budget goes by these."""
    slot_ms: int
    """The usual length next to that."""

    @classmethod
    def of(cls, window: Arrived, policy: Policy) -> Place:
        """A merged window is one test as any other: it goes by the device's windows."""
        length_ms = window.duration_ms // window.merged
        device = Device(window.site, window.device_id)
        return cls(device, length_ms, policy.test_ms(length_ms), policy.slot_ms(length_ms))


def arrived(row: sa.RowMapping, counts: dict[str, Counts]) -> Arrived:
    """A row of ``windows`` with its device, and its counts, as it was when it came."""
    return Arrived(
        window_id=row["id"],
        key=key_of(row),
        counts=counts,
        **{name: row[name] for name in _COPIED},
    )


def window_key(site: str, device: str, boot: str, start_ms: int, sequence: int) -> str:
    """What names a window, the same in every replay: whatever is random about it starts here."""
    return f"{site}/{device}/{boot}/{start_ms}/{sequence}"


def key_of(row: sa.RowMapping) -> str:
    """Of a row of ``windows`` with its device."""
    return window_key(row["site"], row["device"], row["boot"], row["start_ms"], row["sequence"])
