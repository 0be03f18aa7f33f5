"""A request's way back to its caller."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping

from edgeml.device_agent.serving.admission import Outcome
from edgeml.device_agent.worker.layout import Array


class Ticket:
    """A request that was offered, and what became of it. Ends exactly once.

    Attributes:
        inputs: by name. Where they lie in memory that others write to, they are read when it
            begins, and are copies from then on.
        arrived: monotonic seconds.
        deadline: monotonic seconds.
        stream: that it is of; empty for none.
        borrowed: whether the inputs lie in such memory.
        passed: whether it came with a pass (:mod:`~edgeml.device_agent.serving.turnstile`).
        recurs: whether it will be offered again by the next run, where this one's end cuts it off;
            it is counted then.
        cut_off: whether that is what became of it, once it has ended.
        outcome: None while it is on its way.
        outputs: by name; empty unless served.
        message: why not, unless served.
    """

    __slots__ = (
        "_done",
        "_ended",
        "arrived",
        "borrowed",
        "cut_off",
        "deadline",
        "inputs",
        "message",
        "outcome",
        "outputs",
        "passed",
        "recurs",
        "stream",
    )

    def __init__(
        self,
        inputs: Mapping[str, Array],
        *,
        arrived: float,
        deadline: float,
        stream: str = "",
        borrowed: bool = False,
        passed: bool = False,
        recurs: bool = False,
        done: Callable[[Ticket], None] | None = None,
    ) -> None:
        self.inputs = inputs
        self.arrived = arrived
        self.deadline = deadline
        self.stream = stream
        self.borrowed = borrowed
        self.passed = passed
        self.recurs = recurs
        self.cut_off = False
        self.outcome: Outcome | None = None
        self.outputs: dict[str, Array] = {}
        self.message = ""
        self._done = done
        self._ended = threading.Lock()  # an Event would cost more than all the rest
        self._ended.acquire()

    def end(self, outcome: Outcome, outputs: dict[str, Array], message: str) -> None:
        """Say what became of it, and wake who waits."""
        assert self.outcome is None
        self.outcome = outcome
        if outcome != "served":
            self.inputs = {}  # nobody holds on to memory for them
        self.outputs = outputs
        self.message = message
        try:
            if self._done is not None:
                self._done(self)
        finally:
            self._ended.release()

    def keep(self, inputs: Mapping[str, Array]) -> None:
        """It has begun: from now on these inputs, copied, are its own."""
        self.inputs = {name: array.copy() for name, array in inputs.items()}

    def wait(self) -> Outcome:
        """Wait until it has ended. The service ends every ticket, so this needs no limit."""
        with self._ended:  # left open, for whoever waits after this
            assert self.outcome is not None
            return self.outcome
