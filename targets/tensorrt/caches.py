"""The folder that keeps a device's TensorRT engines: what is in it, who is at it, and what goes.

    MODEL-SETTINGS-RUNTIME/   the engine of a model, and the timing cache that it was built with
    timing-SETTINGS/          what builds have measured: :mod:`~edgeml.targets.tensorrt.timing`

MODEL is the SHA-256 of the model's file, SETTINGS stands for the options, TensorRT, its driver and
the device, RUNTIME for ONNX Runtime. Where one of these is another, the engine is another, in a
folder of its own. So an engine that an upgrade made useless stays where it is, and somebody has to
:func:`sweep`.

Whoever loads an engine holds its folder as long as it is in use, by a lock that the kernel takes
back with the process. A folder that somebody holds is never removed.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import time
from collections.abc import Callable, Generator, Mapping
from pathlib import Path
from typing import NamedTuple

FOLDER = "caches.folder"
"""Session option: the folder. Without it, one in the user's cache folder is used."""

_LOADED = "loaded"
"""A file in an engine's folder, of the time of the latest start with it."""

_ENGINE = re.compile(r"([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{8})")
_TIMING = re.compile(r"timing-([0-9a-f]{16})")


class Engine(NamedTuple):
    """What the folder of an engine is named after, each as hexadecimal digits."""

    model: str
    settings: str
    runtime: str

    def __str__(self) -> str:
        return "-".join(self)

    @property
    def timing(self) -> str:
        """The folder of what its build can do with, and adds to."""
        return f"timing-{self.settings}"

    @staticmethod
    def parse(name: str) -> Engine | None:
        """Of a folder's name; None where that is no engine's."""
        found = _ENGINE.fullmatch(name)
        return Engine(*found.groups()) if found else None


def model_of(sha256: str) -> str:
    """An engine's ``model``, of the SHA-256 of the model's file in hexadecimal digits."""
    return sha256[:32]


def hold(folder: Path) -> int:
    """Make an engine's folder, and keep it from being removed.

    Args:
        folder: of the engine, in that of all.

    Returns:
        A descriptor; it is held until that is closed.

    Raises:
        OSError: the folder cannot be made.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with _lock(folder.parent, fcntl.LOCK_SH):
        folder.mkdir(exist_ok=True)
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        with contextlib.suppress(OSError):  # where there are no locks, nobody removes anything
            fcntl.flock(handle, fcntl.LOCK_SH)
    return handle


def loaded(folder: Path) -> None:
    """An engine serves: of those of its model it is the latest, whatever the clock says.

    Raises:
        OSError: the disk does not take that.
    """
    found = _contents(folder.parent).values()
    latest = max((at for at in found if at is not None), default=0)
    mark = folder / _LOADED
    mark.touch()
    at = max(time.time_ns(), latest + 1)
    os.utime(mark, ns=(at, at))


def surplus(
    found: Mapping[str, int | None], models: Mapping[str, int], *, settled: bool
) -> list[str]:
    """Which folders are of no more use. Pure.

    Args:
        found: names of folders → when an engine served from there for the latest time, by whatever
            clock; None where none did as yet.
        models: each that may be loaded → how many artifacts are that very file, with options of
            their own.
        settled: whether what serves now has shown that it will. Then of each model as many engines
            stay as it has artifacts, those that served latest: others are of another TensorRT,
            driver, GPU, ONNX Runtime or memory limit. Until then all of its engines do.
    """
    engines = [engine for engine in map(Engine.parse, found) if engine is not None]
    kept: list[Engine] = []
    for model, artifacts in models.items():
        own = [engine for engine in engines if engine.model == model]
        if settled:
            own.sort(key=lambda engine: found[str(engine)] or 0, reverse=True)
            own = [engine for engine in own if found[str(engine)] is not None][:artifacts]
        kept += own
    names = {str(engine) for engine in kept} | {engine.timing for engine in kept}
    return [name for name in found if name not in names]


def sweep(
    folder: Path,
    models: Mapping[str, int],
    *,
    settled: bool,
    remove: Callable[[Path], None],
) -> None:
    """Remove what :func:`surplus` names and nobody holds. What is half removed when the power goes
    is named again.

    Args:
        folder: of all engines; it need not exist.
        models: see :func:`surplus`.
        settled: likewise.
        remove: a folder and what is in it.

    Raises:
        OSError: the folder cannot be read, or something not removed.
    """
    if not folder.exists():
        return
    with _lock(folder, fcntl.LOCK_EX) as locked:  # meanwhile nobody begins to hold one
        for name in surplus(_contents(folder), models, settled=settled) if locked else []:
            with _lock(folder / name, fcntl.LOCK_EX | fcntl.LOCK_NB) as free:
                if free:
                    remove(folder / name)


def _contents(folder: Path) -> dict[str, int | None]:
    """For :func:`surplus`. What has another kind of name is somebody else's, and left alone."""
    found: dict[str, int | None] = {}
    for path in folder.iterdir():
        if _ENGINE.fullmatch(path.name) or _TIMING.fullmatch(path.name):
            found[path.name] = None
            with contextlib.suppress(OSError):
                found[path.name] = (path / _LOADED).stat().st_mtime_ns
    return found


@contextlib.contextmanager
def _lock(folder: Path, how: int) -> Generator[bool]:
    """For the block; whether it was had."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        try:
            fcntl.flock(handle, how)
        except OSError:
            yield False
        else:
            yield True
    finally:
        os.close(handle)
