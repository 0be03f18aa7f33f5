"""Whether the kernel killed a process for memory, and whose limit that was: that of the process's
own control group, or of one above, as a container's or a service's ``MemoryMax=``.

What the kernel tells differs between versions. A kill counts in the group of the process that was
killed; in version 2 in all above as well, unless one reads ``memory.events.local``. That a limit
was reached counts in the group that has it: in version 2 as ``oom`` when nothing could be given
back, in version 1 as ``failcnt`` even if something could. Where version 1 limits memory and swap
together, as for a container without swap, a new kernel counts nothing (6.18 was seen to); it is
read off the most that the group ever had, so that a limit counts as reached once it was. Of several
groups the one is taken that leaves least now: what the process had is gone from all of them alike.
See ``admin-guide/cgroup-v2`` and ``admin-guide/cgroup-v1/memory`` in the kernel's documentation.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from edgeml.device_agent.limits.cgroup import Files, Version, counters
from edgeml.device_agent.limits.spare import Limit, group_limits

_OOMD = "user.oomd_ooms"


class Counts(NamedTuple):
    """What the kernel has counted.

    Attributes:
        kills: for memory, of processes in the group.
        reached: how often a group, this or one above, was at its limit.
    """

    kills: int
    reached: Mapping[Path, int]


class Kill(NamedTuple):
    """One process that the kernel killed for memory.

    Attributes:
        limit: that was reached; None where it is none that can be seen.
    """

    limit: Limit | None


class Kills:
    """Of processes in one group. Each is told of once, so that two processes of one group that end
    are not both taken for the one that the kernel killed.

    Args:
        files: how to reach groups.
        version: of control groups.
        group: in which the processes are.
    """

    def __init__(self, files: Files, version: Version, group: Path) -> None:
        self._files = files
        self._version: Version = version
        self._group = group
        self._lock = threading.Lock()
        self._told = 0

    def now(self) -> Counts:
        """To be compared with later."""
        groups = (self._group, *self._group.parents)
        reached = {group: _reached(self._files, self._version, group) for group in groups}
        return Counts(_kills(self._files, self._version, self._group) or 0, reached)

    def claim(self, before: Counts) -> Kill | None:
        """One that nobody was told of yet, for a process that has ended; None where there is none.

        Args:
            before: the process began.
        """
        now = self.now()
        with self._lock:
            told = max(self._told, before.kills)
            if now.kills <= told:
                return None
            self._told = told + 1
        limits = [
            limit
            for limit in group_limits(self._files, self._version, self._group)
            if now.reached[limit.group] > before.reached[limit.group]
            or _was_full(self._files, limit.group)
        ]
        return Kill(min(limits, key=lambda limit: limit.room_bytes, default=None))


def by_oomd(files: Files, group: Path) -> bool:
    """Whether ``systemd-oomd`` (or the oomd that it goes back to) has ended this group. It counts
    that on the group itself, before it does so; groups of version 2 take such notes since Linux
    5.7.
    """
    with contextlib.suppress(OSError, ValueError):
        return int(files.attribute(group, _OOMD)) > 0
    return False


def find_kills(files: Files, places: Mapping[Version, Path]) -> Kills | None:
    """Those in the group that a process's memory is charged to; None where none tells.

    Args:
        files: how to reach groups.
        places: the process's own group in each version, of
            :func:`~edgeml.device_agent.limits.cgroup.own_groups`.
    """
    for version, place in places.items():
        for group in (place, *place.parents):  # the nearest that has the controller
            if _kills(files, version, group) is not None:
                return Kills(files, version, group)
    return None


def _kills(files: Files, version: Version, group: Path) -> int | None:
    """None where the group does not tell.

    Version 1 counts them since Linux 4.13; before, any time that the limit was reached is one.
    """
    if version == "cgroup2":
        return _event(files, group, "oom_kill")
    with contextlib.suppress(OSError):
        found = counters(files.read(group / "memory.oom_control")).get("oom_kill")
        return found if found is not None else _reached(files, version, group)
    return None


def _reached(files: Files, version: Version, group: Path) -> int:
    if version == "cgroup2":
        return _event(files, group, "oom") or 0
    times = 0
    for name in ("memory.failcnt", "memory.memsw.failcnt"):  # the latter where swap is counted
        with contextlib.suppress(OSError):
            times += int(files.read(group / name))
    return times


def _was_full(files: Files, group: Path) -> bool:
    """Whether it ever had all that version 1 allows it of memory and swap together."""
    with contextlib.suppress(OSError):
        most = int(files.read(group / "memory.memsw.max_usage_in_bytes"))
        return most >= int(files.read(group / "memory.memsw.limit_in_bytes"))
    return False


def _event(files: Files, group: Path, name: str) -> int | None:
    for file in ("memory.events.local", "memory.events"):  # the former since Linux 5.2
        with contextlib.suppress(OSError):
            return counters(files.read(group / file)).get(name, 0)
    return None
