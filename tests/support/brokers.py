"""A real MQTT broker."""

from __future__ import annotations

import shutil
import socket
import subprocess
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import pytest


@dataclass
class Mosquitto:
    """A real Mosquitto on a loopback port that stays the same over :meth:`kill` and :meth:`start`.

    Anonymous, without persistence: what it holds is lost with it, as the worst broker would.
    """

    program: Path
    folder: Path
    port: int
    host: str = "127.0.0.1"
    _process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    def start(self) -> None:
        """Start it, and return when it listens."""
        config = self.folder / "mosquitto.conf"
        config.write_text(
            f"listener {self.port} {self.host}\n"
            "allow_anonymous true\npersistence false\nlog_dest stderr\nlog_type all\n"
        )
        self._process = subprocess.Popen(
            [str(self.program), "-c", str(config)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        assert self._process.stderr is not None
        log = (self.folder / "mosquitto.log").open("ab")
        for line in self._process.stderr:
            log.write(line)
            if b" running" in line:
                break
        else:
            log.close()
            pytest.fail(f"Mosquitto did not start: {log.name}", pytrace=False)
        # The rest of its log goes to the file too, so that the pipe never fills.
        threading.Thread(target=_drain, args=(self._process.stderr, log), daemon=True).start()

    def kill(self) -> None:
        """Kill it as a power cut would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


def _drain(source: IO[bytes], log: IO[bytes]) -> None:
    with source, log:
        shutil.copyfileobj(source, log)


def free_port() -> int:
    """A TCP port on loopback that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
