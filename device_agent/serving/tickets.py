"""A request's way back to its caller."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping

from edgeml.device_agent.serving.admission import Outcome
from edgeml.device_agent.worker.layout import Array


class Ticket:
    """A request that was offered, and what became of it. Ends exactly once.

    Attributes:
        inputs: by name.
        arrived: monotonic seconds.
        deadline: monotonic seconds.
        stream: that it is of; empty for none.
        outcome: None while it is on its way.
        outputs: by name; empty unless served.
        message: why not, unless served.
    """

    __slots__ = (
        "_done",
        "_ended",
        "arrived",
        "deadline",
        "inputs",
        "message",
        "outcome",
        "outputs",
        "stream",
    )

    def __init__(
        self,
        inputs: Mapping[str, Array],
        *,
        arrived: float,
        deadline: float,
        stream: str = "",
        done: Callable[[Ticket], None] | None,
    ) -> None:
        self.inputs = inputs
        self.arrived = arrived
        self.deadline = deadline
        self.stream = stream
        self.outcome: Outcome | None = None
        self.outputs: dict[str, Array] = {}
        self.message = ""
        self._done = done
        self._ended = threading.Event()

    def end(self, outcome: Outcome, outputs: dict[str, Array], message: str) -> None:
        """Say what became of it, and wake who waits."""
        assert self.outcome is None
        self.outcome = outcome
        self.outputs = outputs
        self.message = message
        self._ended.set()
        if self._done is not None:
            self._done(self)

    def wait(self) -> Outcome:
        """Wait until it has ended. The service ends every ticket, so this needs no limit."""
        self._ended.wait()
        assert self.outcome is not None
        return self.outcome
