"""Files that an export hangs on beside those it was given, and whether they are as they were.

:mod:`edgeml.exporter.repeat.recording` notes them while a user's code runs; here they are hashed.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

ABSENT = "absent"
"""Stands for the hash of what was asked for and did not exist: a file that appears is a change."""

WEIGHTS = "*"
"""At the end of a folder's path stands for the files of weights in it: see :func:`beside_code`."""

_NATIVE = (".h5", ".hdf5", ".safetensors", ".ckpt", ".index", ".msgpack", ".gguf")
"""What libraries read in native code, unseen by the record. TensorFlow's ``.data-…`` files change
with their ``.index``, PyTorch's and NumPy's files are read by Python."""

_CHUNK = 1 << 20


def read_record(path: Path, *, ignore: Iterable[Path] = ()) -> tuple[str, ...]:
    """The paths in a record, sorted, those of folders with a slash at the end.

    Args:
        path: what :func:`edgeml.exporter.repeat.recording.record` wrote; nothing where it is
            missing.
        ignore: folders whose files do not count.
    """
    hidden = tuple(f"{each.resolve()}/" for each in ignore)
    try:
        lines = os.fsdecode(path.read_bytes()).splitlines()
    except OSError:
        return ()
    kept = {line for line in lines if line and not f"{Path(line).resolve()}/".startswith(hidden)}
    return tuple(sorted(kept))


def states(names: Iterable[str]) -> dict[str, str]:
    """Path to :func:`state` of each."""
    return {name: state(name) for name in names}


def state(name: str) -> str:
    """The SHA-256 of a file, of the names in a folder, or of the dates and sizes of the weights in
    one and in those inside it; :data:`ABSENT` where there is none.

    Bundles, and what begins with a dot or two underscores, do not count among a folder's names:
    exports write the former, Python the latter.
    """
    try:
        if name.endswith(f"/{WEIGHTS}"):
            return _hashed(_weights(Path(name).parent))
        if not name.endswith("/"):
            return file_hash(Path(name))
        listed = sorted(entry.name for entry in Path(name).iterdir())
    except OSError:
        return ABSENT
    return _hashed(n for n in listed if not n.startswith((".", "__")) and not n.endswith(".edgeml"))


def beside_code(names: Iterable[str]) -> set[str]:
    """For each folder with code among some files, the name of its weights.

    A Keras factory loads ``net.weights.h5`` from beside itself, and the record does not show it.
    """
    return {f"{Path(name).parent}/{WEIGHTS}" for name in names if name.endswith(".py")}


def _weights(folder: Path) -> list[str]:
    found: list[str] = []
    for entries in (folder.glob("*"), folder.glob("*/*")):
        for path in entries:
            if path.name.endswith(_NATIVE) and path.is_file():
                stat = path.stat()
                found.append(f"{path} {stat.st_size} {stat.st_mtime_ns}")
    return sorted(found)


def _hashed(lines: Iterable[str]) -> str:
    return hashlib.sha256("\0".join(lines).encode(errors="surrogateescape")).hexdigest()


def changed(recorded: Mapping[str, str]) -> str:
    """The first that is not as it was; empty where all of it is."""
    return next((name for name, was in recorded.items() if state(name) != was), "")


def written_since(names: Iterable[str], moment_ns: int) -> str:
    """The first file among them, or in a folder among them, that was written at or after a moment;
    empty where none was. Of a folder whose name ends in a slash only the names count."""
    for path in (each for name in names if not name.endswith("/") for each in _files(Path(name))):
        try:
            written = path.stat().st_mtime_ns
        except OSError:
            continue
        if written >= moment_ns:
            return str(path)
    return ""


def _files(path: Path) -> Iterable[Path]:
    return (path, *path.rglob("*")) if path.is_dir() else (path,)


def file_hash(path: Path, *, without: frozenset[str] = frozenset()) -> str:
    """SHA-256 of a file, or of a folder: over its files' paths and hashes, in order.

    Args:
        path: of either.
        without: names of files in a folder that do not count.
    """
    digest = hashlib.sha256()
    if path.is_dir():
        for file in sorted(path.rglob("*")):
            if file.is_file() and file.name not in without:
                digest.update(f"{file.relative_to(path)}\0{file_hash(file)}\n".encode())
        return digest.hexdigest()
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()
