"""A second version beside the one that serves: what the service lets it see and do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from edgeml.device_agent.serving.pairs import Disagreement
from edgeml.device_agent.serving.runner import Runner
from edgeml.device_agent.serving.tickets import Ticket
from edgeml.device_agent.worker.layout import Array


class Guest(Protocol):
    """Brought up by :meth:`Service.accompany
    <edgeml.device_agent.serving.service.Service.accompany>`. :meth:`takes` and :meth:`saw` are
    called on the model's thread, between requests: be quick, and raise nothing.
    """

    @property
    def runner(self) -> Runner:
        """Its worker. Used by the model's thread only for what :meth:`takes`."""
        ...

    @property
    def share(self) -> float:
        """Of the requests that it serves."""
        ...

    @property
    def disagreement(self) -> Disagreement | None:
        """With the active version; None where no input is seen by both."""
        ...

    def takes(self, ticket: Ticket) -> bool:
        """Whether its runner is to serve this request in place of the active one."""
        ...

    def saw(self, ticket: Ticket, outputs: Mapping[str, Array]) -> None:
        """The active version answered this."""
        ...

    def close(self) -> None:
        """Its part is over."""
        ...
