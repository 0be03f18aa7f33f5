"""``edgeml agent install``: the agent as a service of systemd."""

from __future__ import annotations

import pwd
import subprocess
import sys
from pathlib import Path

import typer

from edgeml.device_agent.config import end_s
from edgeml.device_agent.config_file import read_config
from edgeml.device_agent.local.socket_address import SYSTEM as SOCKET
from edgeml.device_agent.unit import NAME, STATE, render_unit
from edgeml.errors import UsageError

SYSTEM = Path("/etc/systemd/system") / NAME


def install(config: Path, *, user: str, unit: Path | None, show: bool) -> None:
    """Write the unit, or print it.

    Args:
        config: of the agent; read, so that a mistake shows now and not at the next start.
        user: whom to run as; root where it is empty.
        unit: where to write it; None for the system's place.
        show: print it, and write nothing.

    Raises:
        UsageError: the configuration is wrong, there is no such user, or the place cannot be
            written to.
    """
    config = config.absolute()
    settings = read_config(config)
    _check_user(user)
    command = [sys.executable, "-m", "edgeml", "agent", "run", "--config", str(config)]
    if settings.state is None:
        command += ["--state", str(STATE)]
    if settings.socket is None:
        command += ["--socket", str(SOCKET)]
    text = render_unit(command, stop_s=end_s(settings), user=user, awake=settings.awake_ms > 0)
    if show:
        sys.stdout.write(text)
        return
    target = unit or SYSTEM
    try:
        target.write_text(text)
    except OSError as error:
        raise UsageError(
            f"{target} cannot be written: {error.strerror}",
            expected="the rights of root, and a system with systemd",
            remedy="Use sudo; or --unit FILE to write it elsewhere, or --show to see it.",
        ) from error
    typer.echo(f"{target} written.")
    if target == SYSTEM and Path("/run/systemd/system").is_dir():
        subprocess.run(["systemctl", "daemon-reload"], check=True)
        typer.echo(f"Start it with: systemctl enable --now {NAME}")


def _check_user(user: str) -> None:
    if not user:
        return
    try:
        pwd.getpwnam(user)
    except KeyError as error:
        raise UsageError(
            f"There is no user '{user}'", remedy=f"useradd --system {user} makes one"
        ) from error
