"""Child processes that answer a line with a line, one at a time, until this process ends."""

from __future__ import annotations

import atexit
import contextlib
import os
import select
import subprocess
from collections.abc import Mapping, Sequence

from edgeml.processes import describe_exit, dying_with


class EndedError(Exception):
    """The child ended before it answered, or was ended since it took too long.

    Attributes:
        status: as ``Popen.returncode`` has it; None where it took too long.
    """

    def __init__(self, status: int | None) -> None:
        how = "took too long" if status is None else f"ended with {describe_exit(status)}"
        super().__init__(f"The child {how}")
        self.status = status


class Answering:
    """A child that is started when it is first asked, and anew after it ended.

    Args:
        command: reads lines from standard input and writes as many to standard output.
        environment: as of ``Popen``.
    """

    def __init__(
        self, command: Sequence[str], environment: Mapping[str, str] | None = None
    ) -> None:
        self._command = command
        self._environment = environment
        self._process: subprocess.Popen[bytes] | None = None
        atexit.register(self.close)

    def ask(self, line: bytes, *, seconds: float | None = None) -> bytes:
        """The child's line in answer to one.

        Args:
            line: without its end.
            seconds: how long it may take on the clock; None for ever.

        Raises:
            EndedError: there is no answer.
        """
        process = self._process = self._process or self._start()
        assert process.stdin is not None
        assert process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            process.stdin.write(line + b"\n")
            process.stdin.flush()
            ready, _, _ = select.select([process.stdout], [], [], seconds)
            if not ready:
                process.kill()
                self.close()
                raise EndedError(None)
            answer = process.stdout.readline()
            if answer:
                return answer
        status = process.wait()
        self.close()
        raise EndedError(status)

    def close(self) -> None:
        """End it: it reads no further line. A later question starts a new one."""
        process, self._process = self._process, None
        if process is not None:
            with contextlib.suppress(BrokenPipeError):
                process.communicate()

    def _start(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            self._command,
            env=None if self._environment is None else dict(self._environment),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            preexec_fn=dying_with(os.getpid()),
        )
