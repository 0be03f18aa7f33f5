"""Puts versions of a running agent's models in place and takes them out again.

One change at a time, on whichever thread asks for it; what is decided stands on the shelf
(:mod:`~edgeml.device_agent.install.shelf`) first. A thread of its own confirms what stayed healthy,
and rolls back what did not.
"""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from pathlib import Path

import msgspec

from edgeml.bundle import Bundle
from edgeml.device_agent import config as bounds
from edgeml.device_agent import logs
from edgeml.device_agent.install.lifecycle import Beside, Mode, Record
from edgeml.device_agent.install.serves import Serves, Taken
from edgeml.device_agent.install.shelf import Details, Shelf, Tell
from edgeml.errors import AgentError, EdgemlError, UsageError

LOSSES = frozenset({"worker-died", "memory-exceeded", "deadline-missed"})
"""Events that count as a worker lost."""


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """What an installation or a roll back came to.

    Attributes:
        model: its name.
        version: that it is about.
        bundle: SHA-256 of it.
        mode: what it is now.
        artifact: that runs.
        beside: whether nothing stopped serving for it.
    """

    model: str
    version: str
    bundle: str
    mode: Mode
    artifact: str
    beside: bool = True


class Installer:
    """Args:
    shelf: of the state folder.
    healthy_s: for which a version must serve without losing a worker until it is confirmed.
    tell: of what happened.
    """

    def __init__(self, shelf: Shelf, *, healthy_s: float, tell: Tell) -> None:
        self._shelf = shelf
        self._healthy_s = healthy_s
        self._tell = tell
        self._services: dict[str, Serves] = {}
        self._since: dict[str, float] = {}
        self._unsettled: set[str] = set()
        """Models that have not been healthy since they came up, or lost a worker."""
        self._work: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name="installer", daemon=True)

    @property
    def records(self) -> Mapping[str, Record]:
        """Of every model that was ever active here, by name."""
        return self._shelf.records

    def start(self) -> None:
        """Begin to confirm and to roll back."""
        self._thread.start()

    def end(self) -> None:
        """Make no more changes; one that is under way is given up."""
        self._ending.set()
        self._work.put(None)

    def join(self) -> None:
        """Wait until nothing is changed any more; the services must have been stopped."""
        if self._thread.ident is not None:
            self._thread.join()
        with self._shelf.lock:  # a caller's thread may be at it
            pass

    # What people ask for.

    def install(
        self, name: str, path: Path, *, mode: Mode = "active", share: float = 0.0
    ) -> Change:
        """Fetch, verify and prove a bundle on this device, then have it serve.

        Args:
            name: of a model that the agent serves.
            path: of the bundle.
            mode: ``active``: in the place of what serves; ``shadow``: beside it, on copies of
                inputs in idle time; ``split``: beside it, for a share of the requests.
            share: of the requests, above 0 and below 1, for ``split``.

        Raises:
            UsageError: mode and share contradict each other.
            AgentError: no such model, another change is under way, or the bundle is not taken:
                what served serves on.
            BundleError: the bundle is damaged, or forged.
        """
        if (mode == "split") != (0.0 < share < 1.0):
            raise UsageError(
                f"The share is {share:g} and the mode '{mode}'",
                expected="a share above 0 and below 1 for 'split', and none for any other",
            )
        with self._changing(name) as service:
            bundle = self._shelf.bring_in(name, path, mode=mode, share=share)
            if mode != "active":
                return self._accompany(service, name, bundle, mode, share)
            self._dismiss(service, name, "")
            return self._activate(service, name, bundle)

    def rollback(self, name: str) -> Change:
        """Have the fallback serve again.

        Raises:
            AgentError: no such model, nothing to go back to, or that does not come up any more.
        """
        with self._changing(name) as service:
            record = self._shelf.records[name].rolled_back("a person's wish")
            return self._roll_back(service, record)

    def dismiss(self, name: str) -> None:
        """End the part of a shadow or of a split.

        Raises:
            AgentError: no such model.
        """
        with self._changing(name) as service:
            self._dismiss(service, name, "")

    # What the agent says.

    def noticed(self, kind: str, name: str) -> None:
        """An event of a model: a worker that was lost, a model that was given up."""
        if kind in LOSSES:
            self._work.put(lambda: self._lost(name))
        elif kind == "given-up":
            self._work.put(lambda: self._given_up(name))

    def serves(self, name: str, service: Serves) -> None:
        """A model came up: from now on it can be changed."""
        if name not in self._shelf.records:
            return  # nothing could be told of its bundle, so not even its name is known
        self._services[name] = service
        self._watch(name)
        self._work.put(lambda: self._return_guest(name))

    # Inside.

    def _activate(self, service: Serves, name: str, bundle: Bundle) -> Change:
        before = self._shelf.records[name].active
        try:
            taken = service.adopt(
                bundle,
                in_time=True,
                proved=lambda: self._shelf.commit(name, bundle.sha256),
                cancelled=self._ending.is_set,
            )
        except EdgemlError as error:
            self._not_taken(name, error)
            raise
        self._watch(name)
        manifest = bundle.manifest
        details: Details = {"version": manifest.version, "artifact": taken.artifact}
        if before is not None:
            details["before"] = before.version
        self._tell("activated", f"{manifest.version} serves, on probation", name, details)
        return Change(
            model=name,
            version=manifest.version,
            bundle=bundle.sha256,
            mode="active",
            artifact=taken.artifact,
            beside=taken.beside,
        )

    def _roll_back(self, service: Serves, record: Record) -> Change:
        """The record says what serves; have it do so. Written first: a power cut now is a start
        with the fallback."""
        name, release = record.name, record.active
        assert release is not None
        bundle = self._shelf.open(name, release)
        self._dismiss(service, name, "")
        self._shelf.write(record)
        try:
            taken = service.adopt(
                bundle, in_time=False, proved=lambda: None, cancelled=self._ending.is_set
            )
        except EdgemlError as error:
            self._unless_cut_off(name, error)
            self._tell("rollback-failed", str(error), name, {"version": release.version})
            raise
        self._watch(name)
        return Change(
            model=name,
            version=release.version,
            bundle=release.bundle,
            mode="active",
            artifact=taken.artifact,
            beside=taken.beside,
        )

    def _accompany(
        self, service: Serves, name: str, bundle: Bundle, mode: Beside, share: float
    ) -> Change:
        self._dismiss(service, name, "")

        def proved() -> None:
            record = self._shelf.records[name].proved()
            self._shelf.write(record)
            self._shelf.write(record.hosted())

        try:
            taken = self._invite(service, name, bundle, mode, share, proved)
        except EdgemlError as error:
            self._not_taken(name, error)
            raise
        version = bundle.manifest.version
        sentence = f"{version} takes part as a {mode}"
        details: Details = {"version": version, "artifact": taken.artifact, "share": share}
        self._watch(name)
        self._tell("guest", sentence, name, details)
        return Change(
            model=name, version=version, bundle=bundle.sha256, mode=mode, artifact=taken.artifact
        )

    def _invite(
        self,
        service: Serves,
        name: str,
        bundle: Bundle,
        mode: Beside,
        share: float,
        proved: Callable[[], None],
    ) -> Taken:
        def lost(reason: str) -> None:
            self._work.put(lambda: self._guest_lost(name, bundle.sha256, reason))

        return service.accompany(
            bundle,
            mode=mode,
            share=share,
            proved=proved,
            cancelled=self._ending.is_set,
            lost=lost,
        )

    def _not_taken(self, name: str, error: EdgemlError) -> None:
        """A candidate did not come up, and is refused for it."""
        self._unless_cut_off(name, error)
        self._shelf.refuse(name, str(error))

    def _unless_cut_off(self, name: str, error: EdgemlError) -> None:
        """What the end cuts off says nothing of a version, which may be tried again.

        Raises:
            AgentError: it was the end.
        """
        if self._ending.is_set():
            raise AgentError(
                f"The agent ended before the change of {name} was done",
                remedy="Ask for it again when the agent is back.",
            ) from error

    def _dismiss(self, service: Serves, name: str, reason: str) -> None:
        if self._shelf.records[name].guest is not None:
            self._shelf.write(self._shelf.records[name].dismissed(reason))
        service.dismiss()

    def _watch(self, name: str) -> None:
        """The healthy period begins; have the thread look how long it has to wait."""
        self._since[name] = time.monotonic()
        self._unsettled.add(name)
        self._work.put(lambda: None)

    @contextlib.contextmanager
    def _changing(self, name: str) -> Generator[Serves]:
        """The service to change, with the lock held."""
        if not self._shelf.lock.acquire(timeout=bounds.CHANGE_WAIT_S):
            raise AgentError(
                f"{name} cannot be changed: another change is under way",
                remedy="Try again when it is done.",
            )
        try:
            service = self._services.get(name)
            if service is None:
                have = ", ".join(self._services) or "none"
                raise AgentError(f"There is no model '{name}' here", expected=f"one of: {have}")
            try:
                yield service
            finally:
                self._sweep()
        finally:
            self._shelf.lock.release()

    def _sweep(self, *, settled: bool = False) -> None:
        """Versions that went leave nothing behind."""
        serving = {service.bundle for service in self._services.values()} - {""}
        self._shelf.sweep(serving=serving, settled=settled)

    # On the installer's own thread.

    def _run(self) -> None:
        while True:
            try:
                work = self._work.get(timeout=self._patience())
            except queue.Empty:
                work = self._confirm
            if self._ending.is_set() or work is None:
                return
            try:
                with self._shelf.lock:
                    work()
                    self._sweep()
            except EdgemlError as error:
                logs.warn("installer", reason=error)
            except Exception:  # noqa: BLE001 - the thread must outlive a fault of ours
                logs.fault("fault", thread="installer")

    def _unconfirmed(self) -> Iterator[str]:
        for name, record in list(self._shelf.records.items()):
            if name in self._services and (name in self._unsettled or record.to_confirm):
                yield name

    def _patience(self) -> float | None:
        dues = [self._since[name] + self._healthy_s for name in self._unconfirmed()]
        return max(0.0, min(dues) - time.monotonic()) if dues else None

    def _confirm(self) -> None:
        now = time.monotonic()
        for name in list(self._unconfirmed()):
            if self._since[name] + self._healthy_s > now:
                continue
            if not self._services[name].ready:
                self._since[name] = now
                continue
            record = self._shelf.records[name]
            if record.to_confirm:
                try:
                    self._shelf.write(record.confirm())
                except AgentError:
                    self._since[name] = now  # again after another period
                    raise
            self._unsettled.discard(name)
            if not self._unsettled:
                self._sweep(settled=True)
            if record.on_probation and record.active is not None:
                version = record.active.version
                logs.info("confirmed", model=name, version=version)
                self._tell("confirmed", f"{version} is healthy", name, {"version": version})

    def _lost(self, name: str) -> None:
        if name not in self._services:
            return
        self._watch(name)
        record = self._shelf.records[name]
        self._take(name, record, record.lost())

    def _given_up(self, name: str) -> None:
        record = self._shelf.records[name]
        if name in self._services and record.on_probation and record.fallback is not None:
            self._take(name, record, record.rolled_back("its workers were lost again and again"))

    def _take(self, name: str, before: Record, after: Record) -> None:
        if after.active != before.active:
            self._roll_back(self._services[name], after)
        elif after != before:
            self._shelf.write(after)

    def _return_guest(self, name: str) -> None:
        guest = self._shelf.records[name].guest
        if guest is None:
            return
        service = self._services[name]
        try:
            bundle = self._shelf.open(name, guest.release)
            self._invite(service, name, bundle, guest.mode, guest.share, lambda: None)
        except EdgemlError as error:
            self._unless_cut_off(name, error)
            self._guest_lost(name, guest.release.bundle, str(error))

    def _guest_lost(self, name: str, bundle: str, reason: str) -> None:
        guest = self._shelf.records[name].guest
        if guest is None or guest.release.bundle != bundle:
            return
        self._dismiss(self._services[name], name, reason)
        logs.warn("guest lost", model=name, version=guest.release.version, reason=reason)
        self._tell("guest-lost", reason, name, {"version": guest.release.version})
