"""A version that serves a share of the requests, beside the active one (an A/B test).

Which request goes where is not left to chance, so that it can be told afterwards: a stream stays
with one version for as long as the split lasts, and of requests without a stream every so many-th
goes to the guest. Each version's windows carry its own name.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping

from edgeml.device_agent.serving.pairs import Disagreement
from edgeml.device_agent.serving.runner import Runner
from edgeml.device_agent.serving.tickets import Ticket
from edgeml.device_agent.worker.layout import Array


class Draw:
    """Which requests a share is made of. Pure.

    Args:
        share: of the requests, 0..1.
    """

    def __init__(self, share: float) -> None:
        self._share = share
        self._count = 0

    def takes(self, stream: str) -> bool:
        """Whether the next request is one of them: of any ``n`` without a stream, ``n`` times the
        share are, to within one; of streams, those whose hash says so."""
        if stream:
            digest = hashlib.blake2b(stream.encode(), digest_size=8).digest()
            return int.from_bytes(digest, "big") < self._share * 2**64
        before = math.floor(self._count * self._share)
        self._count += 1
        return math.floor(self._count * self._share) > before


class Split:
    """A :class:`~edgeml.device_agent.serving.guest.Guest`.

    Args:
        runner: of the version, proved.
        share: of the requests.
    """

    def __init__(self, runner: Runner, *, share: float) -> None:
        self._runner = runner
        self._draw = Draw(share)
        self.share = share
        """Of the requests."""

    @property
    def runner(self) -> Runner:
        """Its worker."""
        return self._runner

    @property
    def disagreement(self) -> Disagreement | None:
        """No input is seen by both."""
        return None

    def takes(self, ticket: Ticket) -> bool:
        """Whether this one is of the share."""
        return self._draw.takes(ticket.stream)

    def saw(self, ticket: Ticket, outputs: Mapping[str, Array]) -> None:
        """Nothing to do."""

    def close(self) -> None:
        """Nothing of its own to end."""
