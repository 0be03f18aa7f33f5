"""The state folder: one agent at a time, and a clean place for artifacts and logs."""

from __future__ import annotations

import fcntl
import os
import shutil
import stat
from pathlib import Path
from types import TracebackType

from edgeml.device_agent.install.disk import free_bytes
from edgeml.device_agent.install.ledger import BUNDLES
from edgeml.device_agent.local.status import DiskState
from edgeml.errors import AgentError


class StateFolder:
    """The folder, locked for this process. The kernel lets go of the lock whatever happens to us.

    Args:
        path: made where it is missing.

    Raises:
        AgentError: another agent has it, or it cannot be written to.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            path.mkdir(parents=True, exist_ok=True)
            self._lock = (path / "lock").open("a+")
        except OSError as error:
            raise AgentError(
                f"The state folder {path} cannot be used: {error.strerror}",
                expected="a folder that the agent may write to",
                remedy="Name another with --state.",
            ) from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self._lock.seek(0)
            owner = self._lock.read().strip()
            self._lock.close()
            raise AgentError(
                f"The state folder {path} belongs to a running agent, process {owner or '?'}",
                remedy="Stop that one, or give this one a folder of its own with --state.",
            ) from error
        self._lock.truncate(0)
        self._lock.write(str(os.getpid()))
        self._lock.flush()
        # What an earlier run extracted is checked again from its bundle, so none of it is of use.
        shutil.rmtree(self.artifacts, ignore_errors=True)
        self.artifacts.mkdir(exist_ok=True)
        self.logs.mkdir(exist_ok=True)

    @property
    def artifacts(self) -> Path:
        """Where artifacts are extracted to."""
        return self.path / "artifacts"

    @property
    def profiles(self) -> Path:
        """What artifacts cost here. Kept from run to run."""
        return self.path / "profiles"

    @property
    def engines(self) -> Path:
        """What TensorRT builds here. Kept from run to run, as it takes minutes."""
        return self.path / "engines"

    @property
    def logs(self) -> Path:
        """Where the workers' own output goes, from their latest start."""
        return self.path / "logs"

    def disk(self) -> DiskState:
        """What lies there. From any thread; what comes and goes meanwhile may count or not."""
        return DiskState(
            used_bytes={
                kind: sum(_bytes(path) for path in (self.path / kind).rglob("*"))
                for kind in (BUNDLES, self.artifacts.name, self.engines.name)
            },
            free_bytes=free_bytes(self.path),
        )

    def close(self) -> None:
        """Let another agent have it."""
        self._lock.close()

    def __enter__(self) -> StateFolder:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _bytes(path: Path) -> int:
    try:
        found = path.stat()
    except OSError:  # it is gone by now
        return 0
    return found.st_size if stat.S_ISREG(found.st_mode) else 0
