"""Who holds a worker to its memory limit: the kernel where it can, else a poll. Says which.

``cgroup2`` and ``cgroup1`` are exact: the kernel counts every page and kills the worker for the
first one too many. ``poll`` is the weakest, and the one that needs no privilege: the resident set
is read every 20 ms (:mod:`~edgeml.device_agent.limits.watch`), and ``RLIMIT_DATA`` bounds what can
be allocated from one look to the next. ``none``: there is no limit.
"""

from __future__ import annotations

import contextlib
import resource
from pathlib import Path
from typing import Literal

from edgeml.device_agent import logs
from edgeml.device_agent.limits.cgroup import (
    Files,
    Group,
    Parent,
    Version,
    find_parent,
    own_groups,
)
from edgeml.device_agent.limits.kills import Kills, by_oomd, find_kills

Kind = Literal["cgroup2", "cgroup1", "poll", "none"]

DATA_HEADROOM = 256 * 10**6
"""Bytes of ``RLIMIT_DATA`` above the memory limit. It counts what is reserved, touched or not:
stacks of threads, allocators' arenas. Measured above the resident private pages with the tests'
tiny model: LiteRT 35 MB, ONNX Runtime 35 MB, OpenVINO 81 MB. A limit without this room would
refuse models that fit; with it, what 20 ms can add is bounded all the same."""


class Hold:
    """One worker's memory limit. Let it take the worker before that loads anything, and close it
    after the worker's end.

    Args:
        limit_bytes: None for no limit.
        group: the worker's own; None where it has none.
        data_limit: whether ``RLIMIT_DATA`` stands beside a poll.
        around: kills in the agent's own group, in which a worker is that has none; None where
            there are no groups that tell.
    """

    def __init__(
        self,
        limit_bytes: int | None,
        group: Group | None,
        *,
        data_limit: bool,
        around: Kills | None = None,
    ) -> None:
        self.limit_bytes = limit_bytes
        self._group = group
        self._data_limit = data_limit
        self._around = around
        self._kills = Kills(group.files, group.version, group.path) if group else around
        self._before = self._kills.now() if self._kills else None

    @property
    def kind(self) -> Kind:
        """Who holds it."""
        if self.limit_bytes is None:
            return "none"
        return self._group.version if self._group is not None else "poll"

    @property
    def polled_bytes(self) -> int | None:
        """The resident set at which the watch is to kill the worker; None where the kernel will."""
        return self.limit_bytes if self.kind == "poll" else None

    def take(self, pid: int) -> None:
        """Hold this process from now on; a poll in place of a group that does not let it in."""
        if self.limit_bytes is None:
            return
        if self._group is not None:
            try:
                self._group.take(pid)
            except OSError as error:
                logs.warn("not in its control group", worker=pid, reason=error, instead="poll")
                self._group.remove()
                self._group, self._kills = None, self._around
                self._before = self._kills.now() if self._kills else None
            else:
                return
        if self._data_limit:
            most = self.limit_bytes + DATA_HEADROOM
            with contextlib.suppress(ProcessLookupError):
                resource.prlimit(pid, resource.RLIMIT_DATA, (most, most))

    def breach(self, *, killed: bool) -> str:
        """A sentence where the worker was killed for memory, or nothing: whose limit it was.
        Ask before :meth:`close`, and once.

        Args:
            killed: whether the worker was ended by a SIGKILL that is not the agent's. A kill in its
                own group is its own, whatever it looked like from here.
        """
        if killed and self._group is not None and by_oomd(self._group.files, self._group.path):
            return (
                "its worker was killed by systemd-oomd, because the machine, or a group that the "
                "agent runs in, was short of memory"
            )
        if self._kills is None or self._before is None or not (killed or self._group):
            return ""
        kill = self._kills.claim(self._before)
        if kill is None:
            return ""
        killed_for = "its worker was killed by the kernel for memory"
        if kill.limit is None:
            return f"{killed_for}, at no limit that is to be seen here: the machine had none left"
        group, limit_bytes, _ = kill.limit
        allowed = f"{limit_bytes / 1e6:.0f} MB are allowed"
        if self._group is not None and group == self._group.path:
            return f"its worker wanted more memory than its control group gives it: {allowed}"
        return f"{killed_for}: in control group {group}, which the agent runs in, {allowed} in all"

    def close(self) -> None:
        """Let go of what holds it."""
        if self._group is not None:
            self._group.remove()


class Limiter:
    """Makes a :class:`Hold` for each worker.

    Args:
        parent: of control groups; None leaves the poll.
        around: kills in the agent's own group; None where there are no groups that tell.
    """

    def __init__(self, parent: Parent | None, *, around: Kills | None = None) -> None:
        self._parent = parent
        self._around = around

    def hold(self, limit_bytes: int | None, *, data_limit: bool = True) -> Hold:
        """Hold a worker that is yet to be started.

        Args:
            limit_bytes: None for no limit.
            data_limit: False for a runtime that reserves far more than it uses, as CUDA's does:
                ``RLIMIT_DATA`` would refuse it.
        """
        group = None
        if limit_bytes is not None and self._parent is not None:
            try:
                group = self._parent.new(limit_bytes)
            except OSError as error:
                logs.warn("no control group", reason=error, instead="poll")
        return Hold(limit_bytes, group, data_limit=data_limit, around=self._around)


def find_limiter() -> Limiter:
    """The strongest that this process may use. Looks once; makes and removes a group to know."""
    parent = find_parent(Files(), _own_places())
    # Looked up again: to make groups, this process may have moved into another.
    return Limiter(parent, around=find_kills(Files(), _own_places()))


def _own_places() -> dict[Version, Path]:
    try:
        cgroup = Path("/proc/self/cgroup").read_text()
        return own_groups(cgroup, Path("/proc/self/mountinfo").read_text())
    except OSError:
        return {}
