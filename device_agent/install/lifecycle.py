"""What becomes of a version on a device, step by step. Pure: no file, no clock, no process.

    fetched → verified → proved → active → confirmed
                            │        └──→ rolled back: the fallback is active again
                            └──→ guest: beside the active one, as a shadow or for a share

A :class:`Record` is all that must outlive a power cut. Each step returns another record; a step
that may not follow raises. The rules, which tests/device_agent/test_lifecycle.py states as laws:

- Once a version was active, one is, for ever. A candidate never serves before it was proved.
- An active version is on probation until it is confirmed. On probation it may lose
  :data:`LOSSES` workers and be started :data:`STARTS` times; one more, and the fallback is active.
- The fallback is the last confirmed version; where there never was one, the version before.
- What was rolled back or refused is not taken from the configuration again, only by a person.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from edgeml.errors import AgentError

Beside = Literal["shadow", "split"]
Mode = Literal["active", "shadow", "split"]
Step = Literal["fetched", "verified", "proved"]

STARTS = 3
"""Starts of the agent with a version that is not confirmed yet, or a guest: two power cuts while a
version is new are bad luck, and the fourth start is a boot loop."""

LOSSES = 3
"""Workers that a version on probation may lose. One may be the kernel's or a person's doing."""

REFUSED_KEPT = 16
"""Refused bundles that are remembered with their reason."""


class Release(msgspec.Struct, frozen=True, kw_only=True):
    """A version of a model, as one bundle.

    Attributes:
        version: of the model.
        bundle: SHA-256; the store has it under this name.
        confirmed: it served for a healthy period.
    """

    version: str
    bundle: str
    confirmed: bool = False


class Candidate(msgspec.Struct, frozen=True, kw_only=True):
    """A version on its way.

    Attributes:
        release: which one.
        mode: what it is to become.
        share: of the requests, for ``split``.
        step: how far it came.
        starts: of the agent while it was on its way.
    """

    release: Release
    mode: Mode = "active"
    share: float = 0.0
    step: Step = "fetched"
    starts: int = 0


class Guest(msgspec.Struct, frozen=True, kw_only=True):
    """A version beside the active one.

    Attributes:
        release: which one.
        mode: what it is there for.
        share: of the requests, for ``split``.
        starts: of the agent since a healthy period went by with it.
    """

    release: Release
    mode: Beside
    share: float
    starts: int = 0


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """One model's versions on this device.

    Attributes:
        name: of the model.
        source: the bundle's path in the configuration.
        offered: SHA-256 of what was last taken or refused from there.
        active: what serves, or is to; None before the first version.
        fallback: what takes its place if it fails.
        candidate: on its way; nothing of it is in use.
        guest: beside the active one.
        starts: of the agent since the active version is on probation.
        losses: of its workers, likewise.
        refused: SHA-256 → why; the latest.
    """

    name: str
    source: str = ""
    offered: str = ""
    active: Release | None = None
    fallback: Release | None = None
    candidate: Candidate | None = None
    guest: Guest | None = None
    starts: int = 0
    losses: int = 0
    refused: dict[str, str] = {}

    # A candidate's way.

    def fetched(self, release: Release, *, mode: Mode, share: float = 0.0) -> Record:
        """Its bundle is in the store. What was on its way before is forgotten."""
        if mode != "active" and self.active is None:
            raise _illegal(self, f"{release.version} cannot be a {mode}: no version is active")
        refused = {sha: why for sha, why in self.refused.items() if sha != release.bundle}
        candidate = Candidate(release=release, mode=mode, share=share)
        return _with(self, candidate=candidate, refused=refused)

    def verified(self) -> Record:
        """Every hash of its bundle is right."""
        return self._advanced("fetched", "verified")

    def proved(self) -> Record:
        """It reproduces the golden vectors on this device, within its budgets."""
        return self._advanced("verified", "proved")

    def refuse(self, reason: str) -> Record:
        """It is not taken: it was damaged, not proved, or there was no room for it."""
        candidate = self._candidate()
        return _with(self, candidate=None, refused=self._refusing(candidate.release, reason))

    def activated(self) -> Record:
        """It serves from now on, on probation."""
        candidate = self._ready("active")
        release = candidate.release
        former = self.active
        if former is not None and former.bundle == release.bundle:
            return _with(self, candidate=None)
        return _with(
            self,
            active=release,
            fallback=former if former is None or former.confirmed else self.fallback or former,
            candidate=None,
            guest=None,
            starts=0,
            losses=0,
        )

    def hosted(self) -> Record:
        """It takes part beside the active version."""
        candidate = self._ready("shadow", "split")
        mode = "shadow" if candidate.mode == "shadow" else "split"
        guest = Guest(release=candidate.release, mode=mode, share=candidate.share)
        return _with(self, guest=guest, candidate=None)

    def dismissed(self, reason: str = "") -> Record:
        """The guest takes part no more; with a reason, it is refused."""
        if self.guest is None or not reason:
            return _with(self, guest=None)
        return _with(self, guest=None, refused=self._refusing(self.guest.release, reason))

    # The active version's way.

    @property
    def on_probation(self) -> bool:
        """Whether the active version is yet to be confirmed."""
        return self.active is not None and not self.active.confirmed

    @property
    def to_confirm(self) -> bool:
        """Whether a healthy period changes anything."""
        return self.on_probation or bool(self.guest and self.guest.starts)

    def confirm(self) -> Record:
        """The active version served for a healthy period, and the guest did no harm."""
        replace = msgspec.structs.replace
        return _with(
            self,
            active=replace(self._active(), confirmed=True),
            guest=replace(self.guest, starts=0) if self.guest else None,
            starts=0,
            losses=0,
        )

    def lost(self) -> Record:
        """The active version lost a worker. One too many on probation rolls it back."""
        if not self.on_probation:
            return self
        if self.losses >= LOSSES and self.fallback is not None:
            return self.rolled_back(f"it lost {self.losses + 1} workers on probation")
        return _with(self, losses=self.losses + 1)

    def started(self) -> Record:
        """The agent starts. One start too many with a new version rolls it back or refuses it;
        a candidate of a person's is forgotten: nobody waits for it any more."""
        record = self
        candidate = record.candidate
        if candidate is not None and candidate.release.bundle != record.offered:
            record = _with(record, candidate=None)
        elif candidate is not None and candidate.starts >= STARTS:
            record = record.refuse(f"the agent was started {STARTS} times while it came up")
        elif candidate is not None:
            counted = msgspec.structs.replace(candidate, starts=candidate.starts + 1)
            record = _with(record, candidate=counted)
        guest = record.guest
        if guest is not None and guest.starts >= STARTS:
            record = record.dismissed(f"the agent was started {STARTS} times beside it")
        elif guest is not None:
            guest = msgspec.structs.replace(guest, starts=guest.starts + 1)
            record = _with(record, guest=guest)
        if not record.on_probation:
            return record
        if record.starts >= STARTS and record.fallback is not None:
            return record.rolled_back(f"the agent was started {STARTS} times on its probation")
        return _with(record, starts=record.starts + 1)

    def rolled_back(self, reason: str) -> Record:
        """The fallback is active again."""
        active = self._active()
        if self.fallback is None:
            raise _illegal(
                self, f"{active.version} cannot be rolled back: no version was before it"
            )
        return _with(
            self,
            active=self.fallback,
            fallback=None,
            guest=None,
            starts=0,
            losses=0,
            refused=self._refusing(active, reason),
        )

    @property
    def needed(self) -> frozenset[str]:
        """Bundles that the store must keep."""
        held = (self.active, self.fallback, self.candidate, self.guest)
        releases = (e.release if isinstance(e, Candidate | Guest) else e for e in held)
        return frozenset(release.bundle for release in releases if release is not None)

    def _advanced(self, before: Step, after: Step) -> Record:
        candidate = self._candidate()
        if candidate.step != before:
            raise _illegal(
                self,
                f"{candidate.release.version} is {candidate.step} and cannot become {after}",
                expected=before,
            )
        return _with(self, candidate=msgspec.structs.replace(candidate, step=after))

    def _ready(self, *modes: Mode) -> Candidate:
        candidate = self._candidate()
        if candidate.step != "proved" or candidate.mode not in modes:
            raise _illegal(
                self,
                f"{candidate.release.version} is {candidate.step}, for {candidate.mode}",
                expected=f"proved, for {' or '.join(modes)}",
            )
        return candidate

    def _candidate(self) -> Candidate:
        if self.candidate is None:
            raise _illegal(self, "no version is on its way")
        return self.candidate

    def _active(self) -> Release:
        if self.active is None:
            raise _illegal(self, "no version is active")
        return self.active

    def _refusing(self, release: Release, reason: str) -> dict[str, str]:
        others = {sha: why for sha, why in self.refused.items() if sha != release.bundle}
        latest = list(others.items())[-(REFUSED_KEPT - 1) :]
        return {**dict(latest), release.bundle: reason[:1000]}


def _with(record: Record, **changes: object) -> Record:
    return msgspec.structs.replace(record, **changes)


def _illegal(record: Record, found: str, *, expected: str = "") -> AgentError:
    return AgentError(f"{record.name}: {found}", expected=expected)
