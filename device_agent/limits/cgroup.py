"""Memory limits that the kernel holds: one control group a worker, version 2 or version 1.

Where groups may be made is read off ``/proc/self/cgroup`` and ``/proc/self/mountinfo``; a group is
then a folder whose files are the kernel's. See cgroups(7), and in the kernel's documentation
``admin-guide/cgroup-v2`` and ``admin-guide/cgroup-v1/memory``.

Version 2 has a rule that shapes this module: a group that hands a controller to its children may
hold no process itself. So the agent moves into a child of its own (:data:`LEAF`) first, which
systemd's ``Delegate=yes`` allows it to.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Literal

Version = Literal["cgroup2", "cgroup1"]

LEAF = "edgeml-agent"
"""The agent's own group, below the one that was delegated to it. Version 2 only."""

_AVOID = "user.oomd_avoid"
"""``systemd-oomd`` ends a group with this note last: ``ManagedOOMPreference=`` in
systemd.resource-control(5), which gives no way to say it of a group below the unit's own."""

_PREFIX = "edgeml-worker-"
_REMOVE_TRIES = 20
_REMOVE_PAUSE_S = 0.01
"""A group stays busy for some milliseconds after its last process was killed."""


class Files:
    """The operations on a control group. Tests put a tree of ordinary files in their place."""

    def make(self, path: Path) -> None:
        """A new group."""
        path.mkdir()

    def remove(self, path: Path) -> None:
        """End a group that holds no process."""
        path.rmdir()

    def read(self, path: Path) -> str:
        """One of its files."""
        return path.read_text()

    def attribute(self, path: Path, name: str) -> bytes:
        """What somebody noted on it (xattr(7))."""
        return os.getxattr(path, name)

    def note(self, path: Path, name: str, value: bytes) -> None:
        """Leave such a note; groups of version 2 take them since Linux 5.7."""
        os.setxattr(path, name, value)

    def write(self, path: Path, text: str) -> None:
        """One of its files; it is the kernel's and is never made here."""
        handle = os.open(path, os.O_WRONLY)
        try:
            os.write(handle, text.encode())
        finally:
            os.close(handle)


class Group:
    """A worker's group.

    Args:
        path: of its folder, which exists.
        version: whose files these are.
        files: how to reach them.
    """

    def __init__(self, path: Path, version: Version, files: Files) -> None:
        self.path = path
        self.version: Version = version
        self.files = files

    def limit(self, limit_bytes: int) -> None:
        """Set the limit: without swap, and for all processes of the group together.

        Raises:
            OSError: the kernel does not take it.
        """
        if self.version == "cgroup2":
            self._write("memory.max", limit_bytes)
            self._try("memory.swap.max", 0)  # missing on a kernel without swap
            self._try("memory.oom.group", 1)
        else:
            self._write("memory.limit_in_bytes", limit_bytes)
            self._try("memory.memsw.limit_in_bytes", limit_bytes)

    def take(self, pid: int) -> None:
        """Have a process join. What it takes from now on is charged to the group; what it has
        stays charged where it was.

        Raises:
            OSError: the process is gone, or may not be moved.
        """
        self._write("cgroup.procs", pid)

    def remove(self) -> None:
        """Kill what is left in the group, and end it. One that stays busy is left to
        :meth:`Parent.sweep`."""
        for _ in range(_REMOVE_TRIES):
            for pid in self._members():
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, signal.SIGKILL)
            try:
                self.files.remove(self.path)
            except FileNotFoundError:
                return
            except OSError:
                time.sleep(_REMOVE_PAUSE_S)
            else:
                return

    def _members(self) -> list[int]:
        try:
            text = self.files.read(self.path / "cgroup.procs")
        except OSError:
            return []
        return [int(word) for word in text.split() if int(word) > 0]

    def _write(self, name: str, value: int) -> None:
        self.files.write(self.path / name, str(value))

    def _try(self, name: str, value: int) -> None:
        with contextlib.suppress(OSError):
            self._write(name, value)


class Parent:
    """The group below which this process may make others.

    Args:
        path: of its folder.
        version: of control groups.
        files: how to reach them.
    """

    def __init__(self, path: Path, version: Version, files: Files) -> None:
        self._path = path
        self._version: Version = version
        self._files = files
        self._count = 0

    @property
    def version(self) -> Version:
        """Of control groups."""
        return self._version

    def new(self, limit_bytes: int) -> Group:
        """A group with this limit and no process yet.

        Raises:
            OSError: it cannot be made.
        """
        self._count += 1
        path = self._path / f"{_PREFIX}{os.getpid()}-{self._count}"
        self._files.make(path)
        group = Group(path, self._version, self._files)
        try:
            group.limit(limit_bytes)
        except OSError:
            group.remove()
            raise
        return group

    def sweep(self) -> None:
        """End the empty groups that agents left behind which were killed."""
        for path in self._path.glob(f"{_PREFIX}*"):
            owner = path.name.removeprefix(_PREFIX).partition("-")[0]
            if not Path("/proc", owner).exists():
                with contextlib.suppress(OSError):
                    self._files.remove(path)


def find_parent(files: Files, places: Mapping[Version, Path]) -> Parent | None:
    """Where this process may make groups with a memory limit, or None where it may nowhere.

    Args:
        files: how to reach groups.
        places: this process's own group in each version, of :func:`own_groups`.
    """
    for version in ("cgroup2", "cgroup1"):
        place = places.get(version)
        if place is None:
            continue
        try:
            if version == "cgroup2":
                place = _delegate(files, place)
            parent = Parent(place, version, files)
            parent.sweep()
            # Asked for once here: whether it works is not to be read off permissions.
            parent.new(2**40).remove()
        except OSError:
            continue
        return parent
    return None


def own_groups(cgroup: str, mountinfo: str) -> dict[Version, Path]:
    """The folders of a process's own groups: of version 2, and of version 1's memory controller.

    Args:
        cgroup: text of ``/proc/self/cgroup``.
        mountinfo: text of ``/proc/self/mountinfo``.
    """
    paths: dict[Version, str] = {}
    for line in cgroup.splitlines():
        number, controllers, path = line.split(":", 2)
        if number == "0":
            paths["cgroup2"] = path
        elif "memory" in controllers.split(","):
            paths["cgroup1"] = path
    places: dict[Version, Path] = {}
    for line in mountinfo.splitlines():
        head, _, tail = line.partition(" - ")
        root, mounted = head.split()[3:5]
        kind, _, options = tail.split(" ", 2)
        version: Version
        if kind == "cgroup2":
            version = "cgroup2"
        elif kind == "cgroup" and "memory" in options.split(","):
            version = "cgroup1"
        else:
            continue
        # A container may see only a part of the hierarchy, mounted as if it were the whole.
        try:
            inside = PurePosixPath(paths[version]).relative_to(root)
        except (KeyError, ValueError):
            continue
        if ".." not in inside.parts:
            places[version] = Path(mounted) / inside
    return places


def counters(text: str) -> dict[str, int]:
    """The kernel's lines of a name and a number."""
    pairs = (line.split() for line in text.splitlines())
    return {name: int(value) for name, value in pairs}


def _delegate(files: Files, own: Path) -> Path:
    """Make the agent's own group one that gives children memory limits (version 2).

    Raises:
        OSError: it has no memory controller, or is not ours alone.
    """
    place = own.parent if own.name == LEAF else own
    if "memory" not in files.read(place / "cgroup.controllers").split():
        raise OSError(f"{place} has no memory controller")
    if "memory" in files.read(place / "cgroup.subtree_control").split():
        return place
    leaf = place / LEAF
    with contextlib.suppress(FileExistsError):
        files.make(leaf)
    files.write(leaf / "cgroup.procs", "0")
    with contextlib.suppress(OSError):  # else it may take the agent, whose pages it sees reclaimed
        files.note(leaf, _AVOID, b"1")
    try:
        files.write(place / "cgroup.subtree_control", "+memory")
    except OSError:  # other processes live in it: a session of somebody's, not a service's group
        files.write(place / "cgroup.procs", "0")
        files.remove(leaf)
        raise
    return place
