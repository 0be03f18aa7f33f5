"""Adds the target ``sleeper`` to every Python process that has this folder on its PYTHONPATH.

Its runtime is a tiny model that misbehaves on demand: see :mod:`sleeper_runtime`. Where
:data:`KILL_AT` is set, the process is killed at that step of an installation.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edgeml.targets import registry

SLEEPER = registry.Target(
    name="sleeper",
    title="a runtime that misbehaves",
    sources=frozenset(),
    precisions=("fp32",),
    compile="none",
    runtime="sleeper_runtime",
    packages=("numpy",),
    extra="none",
)

if __name__ == "sitecustomize":  # a test that imports it puts it in by itself, and takes it out
    rows: Any = registry.TARGETS
    rows["sleeper"] = SLEEPER

KILL_AT = "SLEEPER_KILL_AT"
"""``METHOD NAME COUNT``: the count-th call of a method of the disk for a file or folder of this
name, or in a folder of this name."""


def _kill_at(method: str, name: str, count: str) -> None:
    from edgeml.device_agent.install.disk import Disk

    disk: Any = Disk
    real: Callable[..., Any] = getattr(disk, method)
    left = [int(count)]

    def killing(self: Any, *paths: Path) -> Any:
        if name in {paths[-1].name, paths[-1].parent.name}:
            left[0] -= 1
            if not left[0]:
                os.kill(os.getpid(), signal.SIGKILL)
        return real(self, *paths)

    setattr(disk, method, killing)


if os.environ.get(KILL_AT):
    _kill_at(*os.environ[KILL_AT].split())
