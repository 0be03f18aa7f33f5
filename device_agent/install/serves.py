"""What the installer needs of a service, which knows nothing of ledgers and shelves."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from edgeml.bundle import Bundle
from edgeml.device_agent.install.lifecycle import Beside


class Taken(Protocol):
    """What a service says of a version that it took."""

    @property
    def artifact(self) -> str:
        """That runs."""
        ...

    @property
    def beside(self) -> bool:
        """Whether its predecessor served on until then."""
        ...


class Serves(Protocol):
    """What is needed of a service (:class:`edgeml.device_agent.serving.changeover.Changeover`)."""

    @property
    def ready(self) -> bool:
        """Whether a version serves now."""
        ...

    @property
    def bundle(self) -> str:
        """SHA-256 of what serves, or did; empty before."""
        ...

    def adopt(
        self,
        bundle: Bundle,
        *,
        in_time: bool,
        proved: Callable[[], None],
        cancelled: Callable[[], bool],
    ) -> Taken:
        """Serve another bundle. ``proved`` is called when it may, and before it does; what that
        raises ends the attempt."""
        ...

    def accompany(
        self,
        bundle: Bundle,
        *,
        mode: Beside,
        share: float,
        proved: Callable[[], None],
        cancelled: Callable[[], bool],
        lost: Callable[[str], None],
    ) -> Taken:
        """Have another bundle take part beside the active one; ``lost`` says that it ended."""
        ...

    def dismiss(self) -> None:
        """End the part of that one."""
        ...
