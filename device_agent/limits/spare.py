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

from edgeml.device_agent.limits.cgroup import Files, Version, counters, own_groups

_NAMES: dict[Version, tuple[str, str, str]] = {
    "cgroup2": ("memory.max", "memory.current", "inactive_file"),
    "cgroup1": ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
}
"""Version → files of limit and use, and what in ``memory.stat`` is given back."""


def available_bytes() -> int:
    """Of this process, now."""
    proc = Path("/proc/self")
    places = own_groups((proc / "cgroup").read_text(), (proc / "mountinfo").read_text())
    left = [
        room for version, place in places.items() for room in group_rooms(Files(), version, place)
    ]
    return max(0, min([_machine_bytes(Path("/proc/meminfo").read_text()), *left]))


def group_rooms(files: Files, version: Version, place: Path) -> Iterator[int]:
    """Bytes that this group leaves, and each above it that has a limit; below zero where one is
    over it."""
    limit_name, used_name, cached_name = _NAMES[version]
    for group in (place, *place.parents):
        try:
            limit = files.read(group / limit_name).strip()
            used = int(files.read(group / used_name))
            cached = counters(files.read(group / "memory.stat")).get(cached_name, 0)
        except OSError:  # without this controller, the top of version 2, or above all groups
            continue
        if limit != "max":
            yield int(limit) - used + cached


def _machine_bytes(meminfo: str) -> int:
    for line in meminfo.splitlines():
        name, _, value = line.partition(":")
        if name == "MemAvailable":
            return int(value.split()[0]) * 1024
    return 0
