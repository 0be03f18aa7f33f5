"""One way to open and run an artifact, whatever the target. Light: it runs on devices.

A :class:`Session` speaks the runtime's own tensor names; :class:`NamedSession` puts the manifest's
names over them and checks what is fed. The target's runtime library is imported when its first
session is opened, or :func:`opener` is asked for what opens them, and not before.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, runtime_checkable

import msgspec
import numpy as np
import numpy.typing as npt

from edgeml.errors import RefusedError, SourceError
from edgeml.targets.host import can_run_here
from edgeml.targets.registry import target

Array = npt.NDArray[Any]


class TensorInfo(msgspec.Struct, frozen=True):
    """An input or output as the runtime declares it.

    Attributes:
        name: the runtime's name for it.
        shape: with the batch axis, which is 1; -1 where the runtime leaves an axis open.
        dtype: a numpy dtype name.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str


def dtype_name(dtype: Any) -> str:
    """numpy's name of whatever numpy takes for a dtype."""
    described: npt.DTypeLike = dtype
    return str(np.dtype(described))


class Session(Protocol):
    """A model loaded and ready. Not for use by two threads at once."""

    @property
    def inputs(self) -> tuple[TensorInfo, ...]:
        """What :meth:`run` must be fed."""
        ...

    @property
    def outputs(self) -> tuple[TensorInfo, ...]:
        """What :meth:`run` returns."""
        ...

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Runs one batch of 1. Arrays go in and come out under the runtime's names.

        The arrays returned are the caller's: a later call does not overwrite them.
        """
        ...

    def close(self) -> None:
        """Lets go of the model's memory. The session is of no use afterwards."""
        ...


@runtime_checkable
class Cancellable(Protocol):
    """A session that can break off a run. Not every runtime can."""

    def cancel(self) -> None:
        """Have the :meth:`Session.run` that is at work raise soon: between two nodes of the graph,
        at the earliest. From any thread."""
        ...


class Opener(Protocol):
    """Loads artifacts of one target."""

    def __call__(
        self, entry: Path, *, threads: int = 1, options: Mapping[str, str] | None = None
    ) -> Session:
        """As :func:`open_session` does."""
        ...


def open_session(
    name: str, entry: Path, *, threads: int = 1, options: Mapping[str, str] | None = None
) -> Session:
    """Loads an artifact.

    Args:
        name: the target.
        entry: the artifact's first file; further files lie beside it.
        threads: intra-operator threads, at least 1.
        options: the artifact's session options from the manifest; the registry's defaults stand
            below them.

    Raises:
        UsageError: there is no such target.
        SourceError: the file is missing, or is no artifact of this target.
        RefusedError: the target cannot run here, or would run elsewhere than asked.
    """
    return opener(name)(entry, threads=threads, options=options)


def opener(name: str) -> Opener:
    """What loads artifacts of a target, with the target's runtime library imported.

    Raises:
        UsageError: there is no such target.
        RefusedError: the target cannot run here.
    """
    row = target(name)
    refusal = can_run_here(row)
    if refusal is not None:
        raise RefusedError(f"{name} cannot run here: {refusal.reason}", remedy=refusal.remedy)
    module = importlib.import_module(row.runtime)
    module.library()

    def opened(
        entry: Path, *, threads: int = 1, options: Mapping[str, str] | None = None
    ) -> Session:
        if not entry.is_file():
            raise SourceError(f"There is no file {entry}", expected=f"an artifact for {name}")
        given = {**row.options, **(options or {})}
        session: Session = module.open_session(entry, threads=max(1, threads), options=given)
        return session

    return opened


class NamedSession:
    """A session under the source model's names.

    Args:
        session: the one to wrap; closed with this one.
        inputs: source name to runtime name, as the manifest's artifact has it.
        outputs: likewise.

    Raises:
        SourceError: a runtime name in the mapping is not one of the session's, or one of the
            session's inputs is mapped by none.
    """

    def __init__(
        self, session: Session, inputs: Mapping[str, str], outputs: Mapping[str, str]
    ) -> None:
        self._session = session
        self._to_runtime = dict(inputs)
        self._from_runtime = dict(outputs)
        self._inputs = _renamed("input", inputs, session.inputs)
        self._outputs = _renamed("output", outputs, session.outputs)
        unmapped = {info.name for info in session.inputs} - set(inputs.values())
        if unmapped:
            raise SourceError(
                f"The artifact's inputs {sorted(unmapped)} have no name in the manifest",
                expected="one for every input of the artifact",
                remedy="Export the model again.",
            )

    @property
    def inputs(self) -> tuple[TensorInfo, ...]:
        """Inputs under the source's names."""
        return tuple(self._inputs.values())

    @property
    def outputs(self) -> tuple[TensorInfo, ...]:
        """Outputs under the source's names."""
        return tuple(self._outputs.values())

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Runs one batch of 1.

        Raises:
            SourceError: an input is missing or unknown, or has another shape or dtype.
        """
        self.check(feeds)
        results = self._session.run({self._to_runtime[name]: feeds[name] for name in self._inputs})
        return {name: results[runtime] for name, runtime in self._from_runtime.items()}

    def bound(self, feeds: Mapping[str, Array]) -> Callable[[], dict[str, Array]]:
        """A run of always the same arrays, whose content may change. They are checked once, here.

        Raises:
            SourceError: as :meth:`run`.
        """
        self.check(feeds)
        session = self._session
        given = {self._to_runtime[name]: feeds[name] for name in self._inputs}
        names = tuple(self._from_runtime.items())

        def run() -> dict[str, Array]:
            results = session.run(given)
            return {name: results[runtime] for name, runtime in names}

        return run

    @property
    def can_cancel(self) -> bool:
        """Whether :meth:`cancel` does anything."""
        return isinstance(self._session, Cancellable)

    def cancel(self) -> None:
        """Break off the run that is at work, where the runtime can. From any thread."""
        if isinstance(self._session, Cancellable):
            self._session.cancel()

    def check(self, feeds: Mapping[str, Array]) -> None:
        """Refuses feeds that do not fit, saying what was found and what was expected."""
        if feeds.keys() != self._inputs.keys():
            raise SourceError(
                f"The model was given inputs {sorted(feeds)}", expected=str(sorted(self._inputs))
            )
        for name, info in self._inputs.items():
            found = np.asarray(feeds[name])
            fits = len(found.shape) == len(info.shape) and all(
                want in (-1, have) for have, want in zip(found.shape, info.shape, strict=False)
            )
            if not fits or found.dtype != np.dtype(info.dtype):
                raise SourceError(
                    f"Input {name!r} has shape {list(found.shape)} and dtype {found.dtype}",
                    expected=f"shape {list(info.shape)} and dtype {info.dtype}",
                )

    def close(self) -> None:
        """Closes the wrapped session."""
        self._session.close()

    def __enter__(self) -> NamedSession:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _renamed(
    kind: str, names: Mapping[str, str], infos: Sequence[TensorInfo]
) -> dict[str, TensorInfo]:
    """Source name to the info of the runtime tensor behind it, under the source's name."""
    known = {info.name: info for info in infos}
    missing = sorted(set(names.values()) - known.keys())
    if missing:
        raise SourceError(
            f"The manifest maps to {kind}s {missing} that the artifact does not have",
            expected=f"{kind}s among {sorted(known)}",
            remedy="Export the model again.",
        )
    return {
        name: msgspec.structs.replace(known[runtime], name=name) for name, runtime in names.items()
    }
