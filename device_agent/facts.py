"""What this device is, as its birth message says it; and the name of this run."""

from __future__ import annotations

import os
import platform
import secrets

from edgeml.telemetry import DeviceFacts


def new_boot() -> str:
    """A name for this run of the agent. Random: a clock may start at the same second twice."""
    return secrets.token_hex(8)


def device_facts() -> DeviceFacts:
    """Of this machine."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return DeviceFacts(
        machine=platform.machine(),
        system=f"{platform.system()} {platform.release()}",
        python=platform.python_version(),
        cores=os.cpu_count() or 0,
        memory_mb=memory // 10**6,
    )
