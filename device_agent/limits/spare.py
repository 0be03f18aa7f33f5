"""Memory that can be had now: what the machine has to spare, and no more than a control group that
this process lives in leaves it, as a container's or a service's ``MemoryMax=``.

Groups are walked up to the top that is to be seen: a limit above holds as well. What a group caches
of files and has not used lately counts as free, as the kernel gives it back first; so does
Kubernetes reckon. See ``admin-guide/cgroup-v2`` and ``admin-guide/cgroup-v1/memory`` in the
kernel's documentation.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from edgeml.device_agent.limits.cgroup import Files, Version, counters, own_groups

_NAMES: dict[Version, tuple[str, str, str]] = {
    "cgroup2": ("memory.max", "memory.current", "inactive_file"),
    "cgroup1": ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
}
"""Version → files of limit and use, and what in ``memory.stat`` is given back."""


_NO_LIMIT = 2**62
"""Version 1 says that there is none by a number of pages that no machine has."""


class Limit(NamedTuple):
    """Of a group.

    Attributes:
        group: its folder.
        limit_bytes: what all that is in it may have together.
        room_bytes: what that leaves now; below zero where the group is over it.
    """

    group: Path
    limit_bytes: int
    room_bytes: int


def available_bytes() -> int:
    """Of this process, now."""
    proc = Path("/proc/self")
    places = own_groups((proc / "cgroup").read_text(), (proc / "mountinfo").read_text())
    left = [
        limit.room_bytes
        for version, place in places.items()
        for limit in group_limits(Files(), version, place)
    ]
    return max(0, min([_machine_bytes(Path("/proc/meminfo").read_text()), *left]))


def group_limits(files: Files, version: Version, place: Path) -> Iterator[Limit]:
    """Of this group and each above it that has a limit, the nearest first."""
    limit_name, used_name, cached_name = _NAMES[version]
    for group in (place, *place.parents):
        try:
            told = files.read(group / limit_name).strip()
            used = int(files.read(group / used_name))
            cached = counters(files.read(group / "memory.stat")).get(cached_name, 0)
        except OSError:  # without this controller, the top of version 2, or above all groups
            continue
        if told != "max" and (limit := int(told)) < _NO_LIMIT:
            yield Limit(group, limit, limit - used + cached)


def _machine_bytes(meminfo: str) -> int:
    for line in meminfo.splitlines():
        name, _, value = line.partition(":")
        if name == "MemAvailable":
            return int(value.split()[0]) * 1024
    return 0
