"""Keeps the processor's cores from sleeping while requests come.

A core with nothing to do is halted, and to wake it takes longer than a small inference: some
microseconds on a device, 30 and more in a virtual machine, where its host must be asked. A call
crosses from one process to another and back, a wake each. Linux lets a process say how long a wake
may take: whoever holds ``/dev/cpu_dma_latency`` open with a 0 written to it keeps idle cores in a
loop that looks for work (``Documentation/power/pm_qos_interface``). They draw more power meanwhile,
so it is asked for only for a while after each request. The kernel forgets it with this process.
"""

from __future__ import annotations

import os
import struct
import threading
import time
from pathlib import Path

from edgeml.device_agent import logs
from edgeml.device_agent.local.status import AwakeState

DEVICE = Path("/dev/cpu_dma_latency")
"""Takes microseconds as a signed word of 32 bits. Root's alone, unless somebody gave it away."""

_AWAKE = struct.pack("=i", 0)
_ANY = struct.pack("=i", 2_000_000_000)
"""The kernel's own value for a wake that may take as long as it likes."""


class Awake:
    """One for all models.

    Args:
        keep_s: to keep cores awake after a request came; 0 for not at all.
        device: other than the machine's.
    """

    def __init__(self, keep_s: float, *, device: Path = DEVICE) -> None:
        self._keep_s = keep_s
        self._until = 0.0
        self._held = False
        self._ended = False
        self._problem = ""
        self._handle: int | None = None
        self._bell = threading.Event()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="awake", daemon=True)
        if keep_s > 0:
            try:
                self._handle = os.open(device, os.O_WRONLY | os.O_CLOEXEC)
            except OSError as error:
                self._problem = f"{device}: {error.strerror}"
                logs.warn("cores may sleep", reason=self._problem)
            else:
                self._thread.start()

    def stir(self, now: float) -> None:
        """A request came, at this monotonic second. Costs next to nothing; the first one after
        a rest waits for the kernel, 12 µs in a virtual machine of two cores, and wakes a thread."""
        self._until = now + self._keep_s
        if not self._held and self._handle is not None:
            self._hold()
            self._bell.set()

    @property
    def state(self) -> AwakeState:
        """For the status."""
        return AwakeState(keep_ms=self._keep_s * 1000, held=self._held, problem=self._problem)

    def close(self) -> None:
        """Let cores sleep for good."""
        self._ended = True
        self._bell.set()
        if self._thread.ident is not None:
            self._thread.join()
        with self._lock:
            handle, self._handle, self._held = self._handle, None, False
        if handle is not None:
            os.close(handle)

    def _run(self) -> None:
        """Lets go when it is time; nothing runs while nothing is held."""
        while not self._ended:
            left_s = self._until - time.monotonic()
            if left_s > 0:
                self._hold()  # one may have come while this thread let go
                self._bell.wait(left_s)
            elif self._held:
                self._write(_ANY, held=False)
                continue
            else:
                self._bell.wait()
            self._bell.clear()

    def _hold(self) -> None:
        if not self._held:
            self._write(_AWAKE, held=True)

    def _write(self, value: bytes, *, held: bool) -> None:
        with self._lock:
            if self._handle is None:
                return
            self._held = held
            try:
                os.write(self._handle, value)
            except OSError as error:  # nobody's request is worse for it
                self._problem = f"It cannot be written to: {error.strerror}"
                logs.warn("cores may sleep", reason=self._problem)
                os.close(self._handle)
                self._handle, self._held = None, False
