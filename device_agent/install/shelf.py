"""The versions on this device and what was decided on them: lifecycle, ledger and events together.

Every step is on the medium before its effect is to be seen: :mod:`lifecycle` says which may follow
which, :mod:`ledger` keeps them.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Collection, Mapping
from pathlib import Path

import msgspec

from edgeml.bundle import Bundle, open_bundle
from edgeml.device_agent import logs
from edgeml.device_agent.install.ledger import Ledger
from edgeml.device_agent.install.lifecycle import Mode, Record, Release
from edgeml.device_agent.install.remains import Remains
from edgeml.errors import AgentError, BundleError, EdgemlError

Details = dict[str, str | int | float]
Tell = Callable[[str, str, str, Details], None]
"""Kind of event, sentence, model, details."""


class Shelf:
    """Args:
    ledger: of the state folder.
    remains: likewise.
    tell: of what happened.
    """

    def __init__(self, ledger: Ledger, remains: Remains, tell: Tell) -> None:
        self._ledger = ledger
        self._remains = remains
        self._tell = tell
        self.lock = threading.RLock()
        """Held by whoever changes something."""
        if ledger.damaged:
            logs.warn("ledger damaged", reason=ledger.damaged)
            tell(
                "ledger-damaged",
                f"The ledger was damaged and moved aside; what serves is what the configuration "
                f"names: {ledger.damaged}",
                "",
                {},
            )

    @property
    def records(self) -> Mapping[str, Record]:
        """Of every model that was ever on its way here, by name."""
        return self._ledger.records

    def write(self, record: Record) -> None:
        """See :meth:`Ledger.write`. Tells where it rolls a version back."""
        before = self.records.get(record.name)
        self._ledger.write(record)
        if before is not None:
            self._tell_rolled_back(before, record)

    def sweep(self, *, serving: Collection[str], settled: bool) -> None:
        """Remove what is of no version that is needed; nothing where the records are lost.

        Args:
            serving: bundles of what runs, whatever the records say.
            settled: whether all that serves has been healthy.
        """
        if self._ledger.damaged:
            return
        self._ledger.sweep(serving=serving)
        self._remains.sweep(self._ledger.needed(serving=serving), settled=settled)

    # At the start of the agent.

    def offer(self, source: Path) -> str:
        """Take the configuration's bundle into account, count this start; returns the name.

        What goes wrong here costs the new bundle or the count, not the version that is active.

        Raises:
            EdgemlError: the bundle cannot be used, and no version is active in its place.
        """
        with self.lock:
            try:
                record = self._offered(source)
            except EdgemlError as error:
                found = self._active_from(source)
                if found is None:
                    raise
                record = found
                logs.warn("not installed", model=record.name, bundle=source, reason=error)
                self._tell("refused", str(error), record.name, {})
            started = record.started()
            if started != record:
                self._try(started)
            return record.name

    def choices(self, name: str) -> list[Release]:
        """What may serve now, best first."""
        record = self.records[name]
        candidate = record.candidate.release if record.candidate is not None else None
        found = (candidate, record.active, record.fallback)
        return [release for release in found if release is not None]

    # At any time.

    def bring_in(self, name: str, path: Path, *, mode: Mode, share: float) -> Bundle:
        """Take a bundle as a candidate whose hashes are right.

        Raises:
            AgentError: it is of another model, serves already, or the disk does not take it.
            BundleError: it is damaged.
        """
        record = self.records[name]
        given = open_bundle(path)
        manifest = given.manifest
        if manifest.name != record.name:
            raise AgentError(
                f"{path} holds the model '{manifest.name}'", expected=f"'{record.name}'"
            )
        if record.active is not None and given.sha256 == record.active.bundle:
            raise AgentError(f"{record.name} {manifest.version} serves already, from this bundle")
        release = Release(version=manifest.version, bundle=given.sha256)
        fetched = record.fetched(release, mode=mode, share=share)
        sha256 = self._ledger.fetch(path)
        if sha256 != given.sha256:
            raise BundleError(f"{path} was changed while it was read")
        self.write(fetched)
        try:
            return self.open(name, release)
        except EdgemlError as error:
            self.refuse(name, str(error))
            raise

    def open(self, name: str, release: Release) -> Bundle:
        """A bundle of the store, every hash checked.

        Raises:
            BundleError: it is damaged.
        """
        path = self._ledger.path(release.bundle)
        bundle = open_bundle(path)
        if bundle.sha256 != release.bundle or bundle.manifest.name != name:
            raise BundleError(f"{path} is another bundle than {name} {release.version}")
        with self.lock:
            record = self.records[name]
            candidate = record.candidate
            if candidate is not None and candidate.release == release:
                if candidate.step != "fetched":  # of an earlier start
                    fetched = msgspec.structs.replace(candidate, step="fetched")
                    record = msgspec.structs.replace(record, candidate=fetched)
                self.write(record.verified())
        return bundle

    def commit(self, name: str, bundle: str) -> None:
        """A candidate is proved: from here on a start would begin with it."""
        with self.lock:
            record = self.records[name]
            if record.candidate is None or record.candidate.release.bundle != bundle:
                raise AgentError(f"{name}: another version is on its way by now")
            record = record.proved()
            self.write(record)
            self.write(record.activated())

    def refuse(self, name: str, reason: str) -> None:
        """Forget a candidate; where the disk does not take even that, the next start will."""
        record = self.records[name]
        if record.candidate is None:
            return
        version = record.candidate.release.version
        self._try(record.refuse(reason))
        self._tell("refused", reason, name, {"version": version})

    def proved(self, name: str, release: Release) -> None:
        """It came up and may serve.

        Raises:
            AgentError: the disk does not take that.
        """
        with self.lock:
            record = self.records[name]
            if record.candidate is not None and record.candidate.release == release:
                self.commit(name, release.bundle)
            elif record.active != release:
                self._try(record.rolled_back("it did not come up"))

    def refused(self, name: str, release: Release, reason: str) -> None:
        """It did not come up. The record of an active version is changed once another one did."""
        logs.warn("not installed", model=name, version=release.version, reason=reason)
        with self.lock:
            record = self.records[name]
            if record.candidate is not None and record.candidate.release == release:
                self._try(record.refuse(reason))
                self._tell("refused", reason, name, {"version": release.version})

    # Inside.

    def _offered(self, source: Path) -> Record:
        given = open_bundle(source)
        manifest, sha256 = given.manifest, given.sha256
        record = self.records.get(manifest.name) or Record(name=manifest.name)
        if record.active is not None and record.active.bundle == sha256:
            if (record.offered, record.source) != (sha256, str(source)):
                record = msgspec.structs.replace(record, offered=sha256, source=str(source))
                self.write(record)
            return record
        if record.offered == sha256 and (record.active or record.candidate):
            return record
        stored = self._ledger.fetch(source)
        if stored != sha256:
            raise BundleError(f"{source} was changed while it was read")
        release = Release(version=manifest.version, bundle=sha256)
        record = record.fetched(release, mode="active")
        record = msgspec.structs.replace(record, offered=sha256, source=str(source))
        self.write(record)
        return record

    def _active_from(self, source: Path) -> Record | None:
        """The model that this file is of, as far as can be told, if a version of it is active."""
        name = ""
        with contextlib.suppress(EdgemlError):
            name = open_bundle(source).manifest.name
        for record in self.records.values():
            if record.active is not None and (record.name == name or record.source == str(source)):
                return record
        return None

    def _try(self, record: Record) -> None:
        """Write what is good to know; the device serves without it."""
        try:
            self.write(record)
        except AgentError as error:
            logs.warn("ledger not written", model=record.name, reason=error)

    def _tell_rolled_back(self, before: Record, after: Record) -> None:
        bad, good = before.active, after.active
        if bad is None or good is None or before.fallback is None:
            return
        if bad.bundle == good.bundle or good.bundle != before.fallback.bundle:
            return
        if bad.bundle not in after.refused:
            return  # what was active before is deployed again
        reason = after.refused.get(bad.bundle, "")
        sentence = f"{good.version} serves again in the place of {bad.version}: {reason}"
        logs.warn("rolled back", model=after.name, version=good.version, reason=reason)
        self._tell("rolled-back", sentence, after.name, {"from": bad.version, "to": good.version})
