"""The one error that a program sees of the local call."""

from __future__ import annotations

from edgeml.errors import AgentError


class CallError(AgentError):
    """The agent did not serve a call.

    Attributes:
        status: of HTTP: 400 the input does not fit, 401 no valid token, 404 no such model, 503 shed
            or not serving, 504 late, 500 failed; 0 where there was no answer at all.
    """

    def __init__(self, found: str, *, status: int, remedy: str = "") -> None:
        super().__init__(found, remedy=remedy)
        self.status = status
