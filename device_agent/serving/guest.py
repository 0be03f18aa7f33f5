"""A second version beside the one that serves: what the service lets it see and do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from edgeml.device_agent.serving.runner import Runner
from edgeml.device_agent.serving.tickets import Ticket
from edgeml.device_agent.worker.layout import Array
from edgeml.device_agent.worker.parent import WorkerError


class Guest(Protocol):
    """Called on the model's thread, between requests: be quick, and raise nothing.

    :meth:`Service.invite <edgeml.device_agent.serving.service.Service.invite>` brings its runner
    up, :meth:`~edgeml.device_agent.serving.service.Service.host` lets it take part.
    """

    @property
    def runner(self) -> Runner:
        """Its worker. Used by the model's thread only for what :meth:`takes`."""
        ...

    def takes(self, ticket: Ticket) -> bool:
        """Whether its runner is to serve this request in place of the active one."""
        ...

    def saw(self, ticket: Ticket, outputs: Mapping[str, Array]) -> None:
        """The active version answered this."""
        ...

    def lost(self, error: WorkerError) -> None:
        """Its worker is gone; it takes part no more. Called from any of the service's threads."""
        ...
