"""What was made before, by what it was made of: the store behind the cache.

An entry is a folder ``KIND/KEY`` with its files and ``entry.json``, which names them with their
hashes and carries a document. Entries appear by a rename and disappear by one, so that two exports
at once see an entry whole or not at all. Every file is hashed again when it is used: a damaged
entry is thrown away, and its content made anew. Each hit adds a byte to the entry's file ``hits``,
whose length is their number and whose time is that of the last use.

What the keys are made of is :mod:`edgeml.exporter.repeat.keys`. Nothing that goes wrong here may
fail an export: :meth:`Cache.keep` says why it did not keep something, and finding never raises.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar

import msgspec

from edgeml.decoding import from_json
from edgeml.exporter.folders import claimed, remove_abandoned
from edgeml.exporter.repeat.dependencies import changed, file_hash

VARIABLE = "EDGEML_CACHE"
SIZE_VARIABLE = "EDGEML_CACHE_SIZE"
MOST_BYTES = 5_000_000_000
"""Of all entries; ``EDGEML_CACHE_SIZE`` changes it. Beyond it, what was not used longest goes."""

Kind = Literal["export", "conversion", "input"]
"""A whole export; one conversion; a live model or samples that Python code gave."""

KINDS: tuple[Kind, ...] = ("export", "conversion", "input")
_ENTRY = "entry.json"
_HITS = "hits"
_TEMPORARY = "tmp"

T = TypeVar("T")


class Stored(msgspec.Struct, frozen=True):
    """A file of an entry."""

    sha256: str
    bytes: int


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """``entry.json``, below a first line with its own hash."""

    kind: Kind
    model: str
    """For people."""
    target: str
    """``tflite int8``, or the targets of an export."""
    files: dict[str, Stored]
    dependencies: dict[str, str] = {}
    """State of files that must be as they were: see :mod:`edgeml.exporter.repeat.dependencies`."""
    value: msgspec.Raw = msgspec.Raw(b"null")

    @property
    def bytes(self) -> int:
        """Of all files."""
        return sum(file.bytes for file in self.files.values())


class Damaged(Exception):  # noqa: N818 - never seen outside
    """An entry is not what was kept."""


class Entry:
    """An entry that was found, its files not looked at yet."""

    def __init__(self, folder: Path, record: Record) -> None:
        self.folder = folder
        self.record = record

    @property
    def key(self) -> str:
        """The name of its folder."""
        return self.folder.name

    @property
    def hits(self) -> int:
        """How often it was used."""
        return self._hits().st_size if self._hits_exist() else 0

    @property
    def used(self) -> float:
        """When it was used last, or else made: seconds since the epoch."""
        return _used(self.folder)

    def value(self, kind: type[T]) -> T:
        """Its document.

        Raises:
            Damaged: it is of another kind.
        """
        try:
            return from_json(self.record.value, kind, hook=_path)
        except msgspec.DecodeError as error:
            raise Damaged(str(error)) from error

    def copy(self, name: str, to: Path) -> None:
        """Write one of its files to ``to``, in one step.

        Raises:
            Damaged: the file is not what was kept.
            OSError: ``to`` cannot be written.
        """
        with self.laid_beside(name, to):
            pass

    @contextlib.contextmanager
    def laid_beside(self, name: str, to: Path) -> Generator[None]:
        """Likewise, when the block ends: until then it lies beside ``to`` under another name, so
        that there is room for it, and an error in the block leaves what stood there."""
        stored = self.record.files[name]
        digest = hashlib.sha256()
        with atomic(to) as stream:
            try:
                source = (self.folder / name).open("rb")
            except OSError as error:
                raise Damaged(str(error)) from error
            with source:
                while chunk := source.read(1 << 20):
                    digest.update(chunk)
                    stream.write(chunk)
            if digest.hexdigest() != stored.sha256:
                raise Damaged(f"{name} of {self.key} has changed")
            stream.flush()
            os.fsync(stream.fileno())
            yield

    def intact(self) -> bool:
        """Whether all of its files are what was kept: for who uses them where they lie."""
        with contextlib.suppress(OSError):
            return all(
                file_hash(self.folder / name) == stored.sha256
                for name, stored in self.record.files.items()
            )
        return False

    def count(self) -> None:
        """Note that it was used."""
        with contextlib.suppress(OSError):
            handle = os.open(self.folder / _HITS, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
            try:
                os.write(handle, b"+")
            finally:
                os.close(handle)

    def _hits(self) -> os.stat_result:
        return (self.folder / _HITS).stat()

    def _hits_exist(self) -> bool:
        return (self.folder / _HITS).exists()


class Cache:
    """The entries in one folder.

    Args:
        folder: made when something is kept.
        most_bytes: the size at which the least recently used entries go.
    """

    def __init__(self, folder: Path | None = None, *, most_bytes: int | None = None) -> None:
        self.folder = folder or home()
        self.most_bytes = most_bytes if most_bytes is not None else _most_bytes()

    def find(self, kind: Kind, key: str) -> Entry | None:
        """The entry of this key, if what it hangs on is as it was.

        One key may have several entries, which differ in their dependencies.
        """
        parent = self.folder / kind
        with contextlib.suppress(OSError):
            for folder in sorted(parent.glob(f"{key}*")):
                entry = self._read(folder)
                if entry is not None and not changed(entry.record.dependencies):
                    return entry
        return None

    def latest(self, kind: Kind, most: int) -> list[Entry]:
        """Those used last, the last one first."""
        with contextlib.suppress(OSError):
            folders = sorted((self.folder / kind).iterdir(), key=_used, reverse=True)
            return list(filter(None, map(self._read, folders[:most])))
        return []

    def keep(
        self,
        kind: Kind,
        key: str,
        files: Mapping[str, Path],
        value: object,
        *,
        model: str,
        target: str = "",
        dependencies: Mapping[str, str] | None = None,
    ) -> str:
        """Keep something; what is there already under this key stays.

        Args:
            kind: what it is.
            key: see :mod:`edgeml.exporter.repeat.keys`.
            files: by the name that each gets in the entry; copied.
            value: a document beside them; paths in it become text.
            model: for people.
            target: for people.
            dependencies: what it hangs on beside the key.

        Returns:
            Why it was not kept; empty where it was.
        """
        if dependencies:
            text = msgspec.json.encode(sorted(dependencies.items()))
            key = f"{key}-{hashlib.sha256(text).hexdigest()[:16]}"
        final = self.folder / kind / key
        if final.exists():
            return ""
        try:
            total = sum(path.stat().st_size for path in files.values())
            if total > self.most_bytes:
                return f"it is larger than the cache may be ({SIZE_VARIABLE})"
            with self._scratch() as folder:
                record = Record(
                    kind=kind,
                    model=model,
                    target=target,
                    files={name: _store(path, folder / name) for name, path in files.items()},
                    dependencies=dict(dependencies or {}),
                    value=msgspec.Raw(msgspec.json.encode(value, enc_hook=str)),
                )
                _write_record(folder, record)
                (folder / _HITS).touch()
                final.parent.mkdir(parents=True, exist_ok=True)
                try:
                    folder.rename(final)
                except OSError:
                    if not final.exists():  # another export was first, which is as good
                        raise
            self.prune(most_bytes=self.most_bytes)
        except OSError as error:
            return f"{self.folder}: {error.strerror or error}"
        return ""

    def drop(self, entry: Entry) -> int:
        """Remove an entry; returns the bytes that it took."""
        with contextlib.suppress(OSError), self._scratch() as folder:
            entry.folder.rename(folder / "gone")
            return entry.record.bytes
        return 0

    def entries(self) -> list[Entry]:
        """All of them, the most recently used first."""
        found: list[Entry] = []
        for kind in KINDS:
            with contextlib.suppress(OSError):
                found += filter(None, map(self._read, (self.folder / kind).iterdir()))
        return sorted(found, key=lambda entry: entry.used, reverse=True)

    def prune(self, *, most_bytes: int | None = None, older_than_s: float | None = None) -> int:
        """Remove entries; returns the bytes that they took.

        Args:
            most_bytes: the least recently used ones go until the rest is no larger.
            older_than_s: those that were not used for so many seconds go.
        """
        freed = 0
        total = 0
        for entry in self.entries():
            total += entry.record.bytes
            old = older_than_s is not None and time.time() - entry.used > older_than_s
            if old or (most_bytes is not None and total > most_bytes):
                total -= entry.record.bytes
                freed += self.drop(entry)
        return freed

    def clear(self) -> int:
        """Remove everything; returns the bytes that the entries took."""
        freed = sum(self.drop(entry) for entry in self.entries())
        for name in (*KINDS, _TEMPORARY):
            shutil.rmtree(self.folder / name, ignore_errors=True)
        return freed

    def _read(self, folder: Path) -> Entry | None:
        try:
            digest, _, body = (folder / _ENTRY).read_bytes().partition(b"\n")
            if hashlib.sha256(body).hexdigest().encode() == digest:
                return Entry(folder, from_json(body, Record))
        except FileNotFoundError:
            if not folder.is_dir():
                return None
        except (OSError, msgspec.DecodeError):
            pass
        with contextlib.suppress(OSError), self._scratch() as scratch:
            folder.rename(scratch / "gone")
        return None

    @contextlib.contextmanager
    def _scratch(self) -> Generator[Path]:
        """A new folder on the cache's own disk, gone afterwards; left-overs of the dead go too."""
        parent = self.folder / _TEMPORARY
        parent.mkdir(parents=True, exist_ok=True)
        remove_abandoned(parent.iterdir())
        with claimed(lambda: Path(tempfile.mkdtemp(dir=parent))) as folder:
            yield folder


def home() -> Path:
    """Where the cache lies: ``EDGEML_CACHE``, else the user's cache folder."""
    chosen = os.environ.get(VARIABLE)
    if chosen:
        return Path(chosen).expanduser().absolute()
    import platformdirs

    return platformdirs.user_cache_path("edgeml")


@contextlib.contextmanager
def atomic(path: Path) -> Generator[Any]:
    """Write a file in one step: it is there whole, or what stood there before still does."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _store(path: Path, to: Path) -> Stored:
    to.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(path, to)
    _sync(to)
    return Stored(file_hash(to), to.stat().st_size)


def _write_record(folder: Path, record: Record) -> None:
    body = msgspec.json.encode(record)
    path = folder / _ENTRY
    path.write_bytes(hashlib.sha256(body).hexdigest().encode() + b"\n" + body)
    _sync(path)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _path(kind: type, value: Any) -> Any:
    return kind(value)


def _used(folder: Path) -> float:
    """When an entry was used last, or else made: seconds since the epoch."""
    try:
        return (folder / _HITS).stat().st_mtime
    except OSError:
        return 0.0


def _most_bytes() -> int:
    text = os.environ.get(SIZE_VARIABLE, "")
    return int(text) if text.isdigit() else MOST_BYTES
