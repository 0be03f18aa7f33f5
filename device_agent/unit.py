"""The systemd unit of the agent, as text. Pure."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path

from edgeml.device_agent.awake import DEVICE

NAME = "edgeml-agent.service"
STATE = Path("/var/lib/edgeml")

_PLAIN = re.compile(r"[\w@+=:,./-]+")
"""A word that needs no quotes."""

WATCHDOG_S = 30
"""The main loop gives a sign of life every ten seconds; two may be missed."""

_UNIT = """\
[Unit]
Description=edgeml device agent
Wants=network-online.target
After=network-online.target
# A device comes back whatever it is that ends the agent, however often.
StartLimitIntervalSec=0

[Service]
Type=notify
{before}ExecStart={command}
Restart=always
RestartSec=2
WatchdogSec={watchdog}
TimeoutStopSec={stop}
# The agent ends its workers in order; what is left after that is killed.
KillMode=mixed
# Each worker gets a control group of its own below this one, with its memory limit.
Delegate=yes
# One that the kernel kills for memory is replaced. Some versions of systemd would stop the agent.
OOMPolicy=continue
{user}StateDirectory=edgeml
RuntimeDirectory=edgeml
NoNewPrivileges=yes
ProtectSystem=full
UMask=0027

[Install]
WantedBy=multi-user.target
"""

_AWAKE = """\
# It keeps cores from sleeping (awake_ms), which is root's to allow.
ExecStartPre=+-/bin/chown {user} {device}
"""


def render_unit(
    command: Sequence[str], *, stop_s: float, user: str = "", awake: bool = False
) -> str:
    """The unit.

    Args:
        command: what to run.
        stop_s: what its end may take.
        user: whom to run as; root where it is empty.
        awake: whether it is to keep the processor's cores from sleeping.
    """
    return _UNIT.format(
        command=" ".join(_quoted(word) for word in command),
        watchdog=WATCHDOG_S,
        stop=math.ceil(stop_s),
        user=f"User={user}\n" if user else "",
        before=_AWAKE.format(user=user, device=DEVICE) if user and awake else "",
    )


def _quoted(word: str) -> str:
    """As systemd reads a command line: ``%`` and ``$`` are its own."""
    escaped = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    return word if _PLAIN.fullmatch(word) else f'"{escaped}"'
