"""What this machine is, for the figures that were measured on it."""

from __future__ import annotations

import platform
from functools import cache
from pathlib import Path

INSTRUCTION_SETS = (
    # x86-64, as /proc/cpuinfo calls them
    "amx_int8",
    "avx512_vnni",
    "avx512f",
    "avx_vnni",
    "avx2",
    "sse4_2",
    # 64-bit ARM
    "sve2",
    "sve",
    "i8mm",
    "asimddp",
    "asimd",
)
"""Widest first: of those that a processor has, this one says most about its speed at inference."""


@cache
def isa() -> str:
    """The widest instruction set relevant to inference, such as ``avx512_vnni``.

    The architecture where the kernel does not tell.
    """
    flags = set(_cpuinfo("flags", "Features").split())
    return next((name for name in INSTRUCTION_SETS if name in flags), platform.machine())


@cache
def processor() -> str:
    """The processor as its maker calls it, or else the machine's architecture."""
    model = Path("/proc/device-tree/model")  # an ARM board says more here than in cpuinfo
    try:
        board = model.read_text().rstrip("\0\n ")
    except OSError:
        board = ""
    return board or _cpuinfo("model name", "Model") or platform.machine()


def _cpuinfo(*names: str) -> str:
    """The value of the first line of /proc/cpuinfo with one of these names."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return ""
    for line in text.splitlines():
        name, colon, value = line.partition(":")
        if colon and name.strip() in names:
            return value.strip()
    return ""
