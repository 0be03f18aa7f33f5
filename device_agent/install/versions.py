"""What a service asks when it comes up: which bundles may serve, best first."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from edgeml.bundle import Bundle, open_bundle
from edgeml.device_agent.install.lifecycle import Release
from edgeml.device_agent.install.shelf import Shelf
from edgeml.errors import AgentError, EdgemlError


class Versions(Protocol):
    """Of one model."""

    def choices(self) -> Iterator[Bundle]:
        """Bundles that may serve, every hash checked. Ask for the next where one did not come up.

        Raises:
            EdgemlError: there is none.
        """
        ...

    def on_trial(self, bundle: Bundle) -> bool:
        """Whether it is refused for being late: there is another one to serve."""
        ...

    def proved(self, bundle: Bundle) -> None:
        """It may serve, and will.

        Raises:
            AgentError: the disk does not take that.
        """
        ...

    def refused(self, bundle: Bundle, error: EdgemlError) -> None:
        """It did not come up."""
        ...


class Fixed:
    """One file and no other.

    Args:
        path: of the bundle.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def choices(self) -> Iterator[Bundle]:
        """The file."""
        yield open_bundle(self._path)

    def on_trial(self, bundle: Bundle) -> bool:  # noqa: ARG002
        """Never: there is no other."""
        return False

    def proved(self, bundle: Bundle) -> None:
        """Nothing to remember."""

    def refused(self, bundle: Bundle, error: EdgemlError) -> None:
        """Likewise."""


class Shelved:
    """Those that were installed on this device, and the configuration's.

    Args:
        shelf: has them.
        source: the bundle that the configuration names.
    """

    def __init__(self, shelf: Shelf, source: Path) -> None:
        self._shelf = shelf
        self._source = source
        self._name = ""
        self._releases: dict[str, Release] = {}

    def choices(self) -> Iterator[Bundle]:
        """Candidate, active version, fallback."""
        shelf = self._shelf
        self._name = name = shelf.offer(self._source)
        problem: EdgemlError | None = None
        for release in shelf.choices(name):
            self._releases[release.bundle] = release
            try:
                bundle = shelf.open(name, release)
            except (EdgemlError, OSError) as error:
                shelf.refused(name, release, str(error))
                problem = error if isinstance(error, EdgemlError) else AgentError(str(error))
                continue
            yield bundle
        if problem is not None:
            raise problem

    def proved(self, bundle: Bundle) -> None:
        """It may serve, and will. See :meth:`Shelf.proved`."""
        self._shelf.proved(self._name, self._releases[bundle.sha256])

    def on_trial(self, bundle: Bundle) -> bool:
        """Whether another one is active."""
        active = self._shelf.records[self._name].active
        return active is not None and active.bundle != bundle.sha256

    def refused(self, bundle: Bundle, error: EdgemlError) -> None:
        """It did not come up."""
        self._shelf.refused(self._name, self._releases[bundle.sha256], str(error))
