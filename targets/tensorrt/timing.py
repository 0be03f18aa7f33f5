"""TensorRT's timing cache, which all models of a device share.

To build an engine, TensorRT measures every kernel that might do a layer. The timing cache keeps
what it measured: that holds for a GPU, a TensorRT and its settings, whatever the model, and the
next version of a model has most of its layers from the one before. ONNX Runtime reads and writes it
as a file in a folder. It writes in place, and refuses a model whose timing cache it cannot read; so
each build gets a copy beside its engine, and gives it back whole. Of two that build at once the
later one's is kept.
"""

from __future__ import annotations

import os
import shutil
import uuid
from pathlib import Path

_FILES = "*.timing"


def lend(shared: Path, own: Path) -> None:
    """Give a build what others have measured, unless it has some of its own.

    Args:
        shared: folder of this device's.
        own: of the engine.

    Raises:
        OSError: the file cannot be copied.
    """
    for path in shared.glob(_FILES):
        if not (own / path.name).exists():
            _put(path, own / path.name)


def give_back(own: Path, shared: Path, *, before: frozenset[tuple[str, int]]) -> None:
    """Let others have what a build has measured; nothing where it has measured nothing.

    Args:
        own: folder of the engine.
        shared: of this device's.
        before: :func:`state` of ``own`` before the build.

    Raises:
        OSError: the file cannot be copied.
    """
    for name, _ in state(own) - before:
        shared.mkdir(parents=True, exist_ok=True)
        _put(own / name, shared / name)


def state(folder: Path) -> frozenset[tuple[str, int]]:
    """Name and time of change, in nanoseconds, of each timing cache in a folder."""
    return frozenset((path.name, path.stat().st_mtime_ns) for path in folder.glob(_FILES))


def _put(source: Path, target: Path) -> None:
    """Copy a file so that nobody ever sees a part of it, not even after a power cut."""
    draft = target.with_name(f"{target.name}.{uuid.uuid4().hex}")
    try:
        with source.open("rb") as given, draft.open("xb") as taken:
            shutil.copyfileobj(given, taken)
            taken.flush()
            os.fsync(taken.fileno())
        draft.replace(target)
    finally:
        draft.unlink(missing_ok=True)
