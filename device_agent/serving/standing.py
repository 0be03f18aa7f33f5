"""How a model stands: its phase, its manifest, its deadline; and whom to tell when that changes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import msgspec

from edgeml.bundle import Manifest
from edgeml.device_agent import config as bounds
from edgeml.device_agent.serving.pairs import Disagreement
from edgeml.device_agent.serving.progress import Progress
from edgeml.errors import AgentError
from edgeml.telemetry import ModelState

Phase = Literal["starting", "verified", "proved", "active", "failed"]
Details = dict[str, str | int | float]


class Hooks(msgspec.Struct, frozen=True):
    """What a service tells the agent. Called from the service's threads."""

    event: Callable[[str, str, str, Details], None]
    """Kind, sentence, model, details."""
    changed: Callable[[], None]
    """The reported state is another one, or a window was closed."""
    asked: Callable[[float], None] = lambda _: None
    """A request came, at this monotonic second."""


class Standing:
    """Of one model.

    Args:
        name: until its manifest tells another.
        hooks: whom to tell.
    """

    def __init__(self, name: str, hooks: Hooks) -> None:
        self._hooks = hooks
        self._state = ModelState(
            name=name, version="unknown", bundle="", artifact="", phase="starting"
        )
        self._manifest: Manifest | None = None
        self.progress = Progress(hooks.changed)
        """Of what is on its way."""
        self.deadline_s = bounds.DEADLINE_MS / 1000
        """From arrival to answer."""

    @property
    def name(self) -> str:
        """Of the model."""
        return self._state.name

    @property
    def state(self) -> ModelState:
        """For the reported state."""
        return msgspec.structs.replace(self._state, building=self.progress.building)

    @property
    def manifest(self) -> Manifest:
        """Of the bundle that serves.

        Raises:
            AgentError: no bundle could be opened.
        """
        if self._manifest is None:
            raise AgentError(f"{self.name} has no readable bundle")
        return self._manifest

    @property
    def known(self) -> bool:
        """Whether a bundle of it could be opened."""
        return self._manifest is not None

    def goes_by(self, manifest: Manifest) -> None:
        """Requests are looked at by this manifest from now on."""
        self._manifest = manifest

    def report(self, phase: Phase, **changes: str) -> None:
        """It has come to another phase."""
        changes.setdefault("error", "")
        self._state = msgspec.structs.replace(self._state, phase=phase, **changes)
        self.changed()

    def changed(self) -> None:
        """There is something new to be told."""
        self._hooks.changed()

    def tell(self, kind: str, message: str, details: Details) -> None:
        """Something happened."""
        self._hooks.event(kind, message, self.name, details)

    def disagree(self, found: Disagreement) -> None:
        """A shadow and what serves have been compared."""
        self.tell(
            "disagreement",
            f"The shadow and {self.state.version} disagree on {found.differing} of {found.pairs} "
            f"inputs, {found.low:.2%} to {found.high:.2%} of them at 95 % confidence",
            msgspec.to_builtins(found),
        )
