"""Telling systemd (or whoever set ``NOTIFY_SOCKET``) that the agent is ready, lives, and ends.

A datagram with lines of ``NAME=VALUE``: sd_notify(3). Without the variable all of it does nothing.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import MutableMapping

_SHARE = 3
"""Signs of life within one interval of the watchdog: two may be missed."""

EXTEND_S = 30.0
"""While models load, the start may take this much longer with each sign of life."""


class Notifier:
    """Args:
    environment: the variables of systemd are taken out of it, so that no worker finds them.
    """

    def __init__(self, environment: MutableMapping[str, str]) -> None:
        self._address = environment.pop("NOTIFY_SOCKET", "")
        watchdog_us = environment.pop("WATCHDOG_USEC", "")
        meant = environment.pop("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        self._interval_s = EXTEND_S / _SHARE if self._address else float("inf")
        if meant and watchdog_us.isdigit() and int(watchdog_us):
            self._interval_s = min(self._interval_s, int(watchdog_us) / 1e6 / _SHARE)
        self.due = float("-inf") if self._address else float("inf")
        """When the next sign of life is to be given, monotonic seconds."""

    def alive(self, now: float, *, starting: bool = False) -> None:
        """Give a sign of life if it is time to. From the main loop and nowhere else: a loop that
        does not turn any more must not look alive."""
        if now < self.due:
            return
        self.due = now + self._interval_s
        extend = {"EXTEND_TIMEOUT_USEC": int(EXTEND_S * 1e6)} if starting else {}
        self._send(WATCHDOG=1, **extend)

    def ready(self, status: str) -> None:
        """The start is done."""
        self._send(READY=1, STATUS=status)

    def stopping(self, within_s: float) -> None:
        """The end has begun, and may take so long, whatever the unit says."""
        self._send(STOPPING=1, EXTEND_TIMEOUT_USEC=int(within_s * 1e6))

    def _send(self, **fields: object) -> None:
        if not self._address:
            return
        message = "\n".join(f"{name}={value}" for name, value in fields.items())
        # An address that begins with @ is an abstract one.
        address = self._address.replace("@", "\0", 1)
        with (
            contextlib.suppress(OSError),  # a service manager that went away is no reason to
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as link,
        ):
            link.sendto(message.encode(), address)
