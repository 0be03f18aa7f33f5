"""A thread that reads a sensor and opens it again when it is gone."""

from __future__ import annotations

import random
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING

from edgeml.device_agent import config as bounds
from edgeml.device_agent import logs
from edgeml.device_agent.serving.requests import Array
from edgeml.device_agent.serving.tickets import Ticket
from edgeml.device_agent.uplink.backoff import Backoff
from edgeml.errors import SourceError

if TYPE_CHECKING:
    from edgeml.device_agent.serving.service import Service


class Source(ABC):
    """Args:
    name: of the sensor, for the log and as the stream.
    service: the model.
    newest: only the newest input waits; else each is waited for before the next is read.
    answer: told of each request that has ended.
    """

    def __init__(
        self, name: str, service: Service, *, newest: bool, answer: Callable[[Ticket], None]
    ) -> None:
        self._name = name
        self._service = service
        self._newest = newest
        self._answer = answer
        self._told = ""
        self._backoff = Backoff(bounds.REOPEN_S, bounds.REOPEN_CAP_S, random.SystemRandom())
        self.ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name="source", daemon=True)

    def start(self) -> None:
        """Begin to read."""
        self._thread.start()

    def end(self) -> None:
        """Read no more; what was offered is finished by the service. Returns at once."""
        self.ending.set()
        self.interrupt()

    def join(self) -> None:
        """After :meth:`end`: wait for the thread."""
        self._thread.join()

    @abstractmethod
    def read(self) -> bool:
        """Open the sensor and read it until it ends or :attr:`ending` is set.

        Returns:
            Whether it has ended for good, as a file does.

        Raises:
            SourceError: it cannot be opened, or what it gives does not fit.
        """

    def interrupt(self) -> None:  # noqa: B027 - most sensors need none
        """End a read that waits for the sensor. From any thread."""

    def offer(self, inputs: dict[str, Array]) -> None:
        """One input of the model."""
        stream = f"source:{self._name}" if self._newest else ""
        ticket = self._service.submit(inputs, stream=stream, done=self._answer)
        if not self._newest:
            ticket.wait()

    def unfit(self, error: SourceError) -> None:
        """Something came that is no input of the model. Counted each time, logged once."""
        self._service.unfit()
        self._warn(error)

    def _run(self) -> None:
        while not self.ending.is_set():
            begin = time.monotonic()
            try:
                if self.read():
                    logs.info("input ended", model=self._service.name, source=self._name)
                    return
            except SourceError as error:
                self._warn(error)
            except Exception:  # noqa: BLE001 - whatever a driver raises, the next try may do
                logs.fault("input fault", model=self._service.name, source=self._name)
            # One that comes and goes is no more to be hammered, or told of, than one that is gone.
            if time.monotonic() - begin >= bounds.REOPEN_CAP_S:
                self._backoff.reset()
                self._told = ""
            self.ending.wait(self._backoff.next())

    def _warn(self, error: SourceError) -> None:
        if str(error) != self._told:
            self._told = str(error)
            logs.warn("input", model=self._service.name, source=self._name, reason=error)
