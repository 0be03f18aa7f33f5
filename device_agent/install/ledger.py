"""What a device must remember of its versions, in two places: the ledger and the bundles.

``ledger.json`` holds every model's :class:`~edgeml.device_agent.install.lifecycle.Record`; it is
replaced whole. ``bundles/SHA256.edgeml`` are the bundles, so that what is active does not depend on
a file of somebody else's. The order keeps them together: a bundle is there before a record names
it, and goes after the last record that did.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Collection, Mapping
from pathlib import Path

import msgspec

from edgeml.bundle import SUFFIX
from edgeml.decoding import from_json
from edgeml.device_agent import logs
from edgeml.device_agent.install.disk import Disk, free_bytes
from edgeml.device_agent.install.lifecycle import Record
from edgeml.errors import AgentError

FILE = "ledger.json"
SET_ASIDE = "ledger.damaged"
BUNDLES = "bundles"

SCHEMA = 1

_DRAFT = "fetched.part"
_NAME = re.compile(rf"[0-9a-f]{{64}}{re.escape(SUFFIX)}")


class _File(msgspec.Struct, frozen=True, kw_only=True):
    schema: int
    models: tuple[Record, ...]


class Ledger:
    """Records and bundles. One thread at a time.

    Args:
        folder: the agent's state folder.
        disk: to write with.

    Raises:
        AgentError: the folder cannot be used, or the ledger is of a later version.
    """

    def __init__(self, folder: Path, disk: Disk) -> None:
        self._path = folder / FILE
        self._bundles = folder / BUNDLES
        self._disk = disk
        self.damaged = ""
        """What was wrong with the file that was moved aside; empty where none was."""
        try:
            self._bundles.mkdir(exist_ok=True)
            self._records = {record.name: record for record in self._read()}
        except OSError as error:
            raise _unwritable(self._path, error) from error
        self.sweep()

    @property
    def records(self) -> Mapping[str, Record]:
        """By the model's name."""
        return self._records

    def write(self, record: Record) -> None:
        """Replace a model's record, all or nothing; when this returns it is on the medium.

        Raises:
            AgentError: the disk does not take it. The record stands as it was.
        """
        records = {**self._records, record.name: record}
        document = msgspec.json.encode(_File(schema=SCHEMA, models=tuple(records.values())))
        draft = self._path.with_name(f"{FILE}.part")
        try:
            self._disk.write(draft, msgspec.json.format(document, indent=2))
            self._disk.rename(draft, self._path)
        except OSError as error:
            with contextlib.suppress(OSError):
                self._disk.remove(draft)
            raise _unwritable(self._path, error) from error
        self._records = records
        try:
            self._disk.flush_folder(self._path.parent)
        except OSError as error:  # a power cut may bring the old one back, which is whole as well
            logs.warn("ledger not flushed", reason=error)

    def path(self, bundle: str) -> Path:
        """Where the store has a bundle, by its SHA-256."""
        return self._bundles / f"{bundle}{SUFFIX}"

    def fetch(self, source: Path) -> str:
        """Take a bundle into the store; returns its SHA-256.

        Raises:
            AgentError: it cannot be read, or there is no room for it.
        """
        draft = self._bundles / _DRAFT
        try:
            size, free = source.stat().st_size, free_bytes(self._bundles)
            if size > free:
                raise AgentError(
                    f"There is no room for the {size:,} bytes of {source}",
                    expected=f"at most {free:,}, which are free in {self._bundles}",
                    remedy="Free some, or put the state folder elsewhere.",
                )
            sha256 = self._disk.copy(source, draft)
            self._disk.rename(draft, self.path(sha256))
            self._disk.flush_folder(self._bundles)
        except OSError as error:
            with contextlib.suppress(OSError):
                self._disk.remove(draft)
            raise AgentError(
                f"{source} cannot be taken into {self._bundles}: {error.strerror or error}"
            ) from error
        return sha256

    def needed(self, *, serving: Collection[str] = ()) -> dict[str, Path]:
        """SHA-256 of each bundle that has to stay → its file.

        Args:
            serving: bundles of what runs, whatever the records say.
        """
        named = {bundle for record in self._records.values() for bundle in record.needed}
        return {bundle: self.path(bundle) for bundle in {*named, *serving}}

    def sweep(self, *, serving: Collection[str] = ()) -> None:
        """Remove bundles that are not needed, and drafts. What resists stays for next time, and
        where the records are lost, everything does."""
        if self.damaged:
            return
        keep = {path.name for path in self.needed(serving=serving).values()}
        for path in list(self._bundles.iterdir()):
            if path.name == _DRAFT or (_NAME.fullmatch(path.name) and path.name not in keep):
                with contextlib.suppress(OSError):
                    self._disk.remove(path)

    def _read(self) -> tuple[Record, ...]:
        try:
            content = self._path.read_bytes()
        except FileNotFoundError:
            return ()
        try:
            found = from_json(content, _File)
        except msgspec.DecodeError as error:
            self.damaged = str(error)
            self._disk.rename(self._path, self._path.with_name(SET_ASIDE))
            return ()
        if found.schema != SCHEMA:
            raise AgentError(
                f"{self._path} has schema {found.schema}",
                expected=f"schema {SCHEMA}, which this edgeml reads",
                remedy="Install the edgeml that wrote it, or move the file away.",
            )
        return found.models


def _unwritable(path: Path, error: OSError) -> AgentError:
    return AgentError(
        f"{path} cannot be written: {error.strerror or error}",
        expected="room, and a state folder that the agent may write to",
    )
