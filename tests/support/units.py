"""The agent as systemd runs it, on the machine of ``scripts/machine.sh``: installed as docs say."""

from __future__ import annotations

import os
import re
import select
import subprocess
import sys
import threading
from pathlib import Path

from edgeml.decoding import from_json
from edgeml.device_agent.local.client import Client
from edgeml.device_agent.local.status import AgentStatus
from support.agents import PATIENCE_S
from support.sleeper.sleeper_runtime import BELL

SUPPORT = Path(__file__).parent
EDGEML = Path(sys.executable).with_name("edgeml")
NAME = "edgeml-agent.service"
SOCKET = Path("/run/edgeml/agent.sock")
GROUP = Path("/sys/fs/cgroup/system.slice") / NAME
CONFIG = Path("/etc/edgeml/agent.toml")


def run(*words: object, check: bool = True) -> str:
    """What a program writes."""
    done = subprocess.run(
        [str(word) for word in words],
        check=False,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=PATIENCE_S,
    )
    assert done.returncode == 0 or not check, f"{words}: {done.stdout}"
    return done.stdout


class Journal:
    """What comes into the journal from now on, of one unit or of the kernel."""

    def __init__(self, *of: str) -> None:
        self._process = subprocess.Popen(
            ["journalctl", "--follow", "--lines=0", "--output=cat", *of],
            stdout=subprocess.PIPE,
            text=True,
        )
        self.lines: list[str] = []
        self._grown = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def wait_for(self, pattern: str, *, count: int = 1) -> str:
        """The ``count``-th line that matches."""
        expression = re.compile(pattern)

        def found() -> list[str]:
            return [line for line in self.lines if expression.search(line)]

        with self._grown:
            self._grown.wait_for(lambda: len(found()) >= count, PATIENCE_S)
            matches = found()
            assert len(matches) >= count, f"no {pattern!r} in:\n" + "\n".join(self.lines)
            return matches[count - 1]

    def close(self) -> None:
        self._process.terminate()
        self._process.wait()
        self._reader.join()

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as lines:
            for line in lines:
                with self._grown:
                    self.lines.append(line.rstrip("\n"))
                    self._grown.notify_all()


class Unit:
    """``edgeml-agent.service``. One at a time: it is the machine's."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.journal = Journal("--unit", NAME)
        self.bell = folder / "bell"
        os.mkfifo(self.bell)
        self._nap = os.open(self.bell, os.O_RDONLY | os.O_NONBLOCK)

    def install(self, config: str, *, user: str = "", target: str = "sleeper") -> None:
        """Write the configuration and the unit.

        ``target``, which only tests have, comes by a drop-in beside what ``agent install`` wrote.
        """
        CONFIG.parent.mkdir(exist_ok=True)
        CONFIG.write_text(config)
        run(EDGEML, "agent", "install", "--config", CONFIG, *(["--user", user] if user else []))
        self.adapt(f"Environment=PYTHONPATH={SUPPORT / target} {BELL}={self.bell}")

    def adapt(self, *lines: str) -> None:
        """Lines of ``[Service]`` that stand beside the unit's own, for this boot."""
        drop_in = Path("/run/systemd/system") / f"{NAME}.d" / "tests.conf"
        drop_in.parent.mkdir(parents=True, exist_ok=True)
        before = drop_in.read_text() if drop_in.exists() else "[Service]\n"
        drop_in.write_text(before + "\n".join(lines) + "\n")
        run("systemctl", "daemon-reload")

    def start(self) -> None:
        """As docs say. Returns when the agent has told that it is ready: ``Type=notify``."""
        try:
            run("systemctl", "enable", "--now", NAME)
        except AssertionError as error:
            raise AssertionError("\n".join(self.journal.lines)) from error

    def show(self, name: str) -> str:
        """A property of the unit, as systemd has it."""
        return run("systemctl", "show", "--value", "--property", name, NAME).strip()

    @property
    def pid(self) -> int:
        return int(self.show("MainPID"))

    def client(self, model: str = "tiny") -> Client:
        return Client(SOCKET, model, timeout_s=PATIENCE_S)

    def status(self) -> AgentStatus:
        """What ``edgeml agent status`` says."""
        return from_json(run(EDGEML, "agent", "status", "--json").encode(), AgentStatus)

    def processes(self) -> set[int]:
        """All of the service: the kernel's own list, of its group and of those below it."""
        files = [GROUP / "cgroup.procs", *GROUP.glob("**/cgroup.procs")]
        return {int(word) for file in files if file.exists() for word in file.read_text().split()}

    def wait_for_nap(self) -> None:
        """Until the sleeper is at work on a NAP or a HANG."""
        assert select.select([self._nap], [], [], PATIENCE_S)[0], "the worker never began"
        assert os.read(self._nap, 1) == b"x"

    def remove(self) -> None:
        """Stop it, and forget all that it left."""
        run("systemctl", "disable", "--now", NAME, check=False)
        run("systemctl", "reset-failed", NAME, check=False)
        for path in (Path("/etc/systemd/system") / NAME, CONFIG):
            path.unlink(missing_ok=True)
        run("rm", "-rf", "/var/lib/edgeml", f"/run/systemd/system/{NAME}.d")
        run("systemctl", "daemon-reload")
        self.journal.close()
        os.close(self._nap)
