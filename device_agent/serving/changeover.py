"""Puts a version in the place of another one, between two requests, or beside it.

From any thread but the service's own, but for the first, which the keeper's thread brings up.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from edgeml.bundle import Bundle, Manifest
from edgeml.device_agent import logs
from edgeml.device_agent.install.bringup import Proved
from edgeml.device_agent.install.lifecycle import Beside
from edgeml.device_agent.install.selection import Rejected
from edgeml.device_agent.install.versions import Versions
from edgeml.device_agent.serving.candidates import Candidates
from edgeml.device_agent.serving.guests import Guests
from edgeml.device_agent.serving.intake import Intake
from edgeml.device_agent.serving.keeper import Keeper
from edgeml.device_agent.serving.lineup import Lineup
from edgeml.device_agent.serving.profiles import Profiles
from edgeml.device_agent.serving.runner import Starter
from edgeml.device_agent.serving.standing import Standing
from edgeml.errors import AgentError, EdgemlError
from edgeml.telemetry import check_name


class Adopted(msgspec.Struct, frozen=True, kw_only=True):
    """Another bundle serves now.

    Attributes:
        version: of the model.
        bundle: SHA-256.
        artifact: that serves.
        rejected: those that were passed over.
        beside: whether it came up beside its predecessor, which served on until then.
        start_ms: what the worker took until it could serve.
    """

    version: str
    bundle: str
    artifact: str
    rejected: tuple[Rejected, ...]
    beside: bool
    start_ms: float


class Changeover:
    """Of one model.

    Args:
        standing: of the model.
        versions: which bundle is to serve.
        candidates: brings a bundle's best artifact up.
        profiles: of this device.
        starter: of workers.
        intake: of the model.
        lineup: who serves.
        guests: who takes part beside that.
        keeper: lets others change what serves.
    """

    def __init__(
        self,
        standing: Standing,
        versions: Versions,
        *,
        candidates: Candidates,
        profiles: Profiles,
        starter: Starter,
        intake: Intake,
        lineup: Lineup,
        guests: Guests,
        keeper: Keeper,
    ) -> None:
        self._standing = standing
        self._versions = versions
        self._candidates = candidates
        self._profiles = profiles
        self._starter = starter
        self._intake = intake
        self._lineup = lineup
        self._guests = guests
        self._keeper = keeper

    @property
    def ready(self) -> bool:
        """Whether a version serves now."""
        return self._standing.state.phase == "active" and self._intake.runner is not None

    @property
    def bundle(self) -> str:
        """SHA-256 of what serves, or did; empty before."""
        variant = self._lineup.variant
        return variant.bundle.sha256 if variant is not None else ""

    def adopt(
        self,
        bundle: Bundle,
        *,
        in_time: bool = True,
        proved: Callable[[], None] = lambda: None,
        cancelled: Callable[[], bool] = lambda: False,
    ) -> Adopted:
        """Serve another bundle of the same model: bring its best artifact up, prove it, and put it
        in the place of what serves now, between two requests. From any thread but the service's.

        Args:
            bundle: every hash checked.
            in_time: refuse what does not meet the deadline; what served yesterday is not refused
                for a device that is busy.
            proved: called when it may serve, and before it does; what it raises ends the attempt.
            cancelled: asked meanwhile.

        Raises:
            AgentError: it does not come up, or is of another model; what served serves on.
        """
        self._check(bundle)
        found = self._candidates.find(bundle)
        beside = self._keeper.makes_room(found.need_bytes)
        upcoming: Proved | None = None
        if beside:
            upcoming = self._candidates.bring_up(bundle, found, cancelled, in_time=in_time)
        with self._keeper.turn():
            try:
                if upcoming is None:
                    self._keeper.unload(f"version {bundle.manifest.version} is being loaded")
                    upcoming = self._candidates.bring_up(bundle, found, cancelled, in_time=in_time)
                self._commit(upcoming, proved, cancelled)
            except BaseException:
                self._keeper.restore()
                raise
            self._take_over(upcoming)
        return _adopted(upcoming, beside=beside)

    def renew(self) -> Adopted:
        """Put a fresh worker in the place of what serves, its cost on this device measured anew;
        the version stays. As :meth:`adopt`.

        Raises:
            AgentError: nothing serves, or it does not come up again.
        """
        variant = self._lineup.variant
        if variant is None:
            raise AgentError(f"{self._standing.name} does not serve")
        self._profiles.forget(variant.bundle)
        return self.adopt(variant.bundle, in_time=False)

    def accompany(
        self,
        bundle: Bundle,
        *,
        mode: Beside,
        share: float,
        proved: Callable[[], None] = lambda: None,
        cancelled: Callable[[], bool] = lambda: False,
        lost: Callable[[str], None],
    ) -> Adopted:
        """Have another bundle of the same model take part beside the one that serves: as a shadow,
        or for a share of the requests. From any thread but the service's.

        Args:
            bundle: every hash checked.
            mode: what it is there for.
            share: of the requests, for a split.
            proved: called when it may take part, and before it does; what it raises ends it.
            cancelled: asked meanwhile.
            lost: called with the reason when its worker is gone; it takes part no more then.

        Raises:
            AgentError: it does not come up beside the active one, or takes other inputs.
        """
        self._check(bundle)
        version, found = bundle.manifest.version, self._candidates.find(bundle)
        active = self._lineup.variant
        if active is None or any(entry.layout != active.layout for entry in found.variants):
            raise AgentError(
                f"{version} has other inputs or outputs than what serves",
                expected="the same ones, where it is to take part beside it",
            )
        if not self._keeper.makes_room(found.need_bytes):
            raise AgentError(f"There is no memory for {version} beside what serves")
        upcoming = self._candidates.bring_up(bundle, found, cancelled, in_time=True)
        self._commit(upcoming, proved, cancelled)
        self._guests.welcome(upcoming.runner, mode=mode, share=share, lost=lost)
        return _adopted(upcoming, beside=True)

    def dismiss(self) -> None:
        """End the part of a guest; nothing where there is none."""
        self._guests.dismiss()

    def come_up(self) -> None:
        """Have the best bundle there is serve, as the agent starts. On the keeper's thread.

        Raises:
            EdgemlError: none does.
        """
        problem: EdgemlError | None = None
        for bundle in self._versions.choices():
            problem = self._attempt(bundle)
            if problem is None:
                return
        if problem is not None:
            raise problem

    def _attempt(self, bundle: Bundle) -> EdgemlError | None:
        try:
            self._start_with(bundle)
        except EdgemlError as error:
            if not self._intake.ending:
                self._versions.refused(bundle, error)
            return error
        return None

    def _start_with(self, bundle: Bundle) -> None:
        manifest = bundle.manifest
        _check_names(manifest)
        self._standing.goes_by(manifest)
        self._standing.report(
            "verified", name=manifest.name, version=manifest.version, bundle=bundle.sha256
        )
        in_time = self._versions.on_trial(bundle)
        candidates = self._candidates.find(bundle)
        found = self._candidates.bring_up(bundle, candidates, lambda: False, in_time=in_time)
        self._standing.report(
            "proved",
            artifact=found.runner.variant.artifact.id,
            memory_limit=found.runner.watched.memory_limit,
        )
        try:
            self._versions.proved(bundle)
        except BaseException:
            self._starter.stop(found.runner)
            raise
        with self._keeper.turn():
            self._take_over(found)

    def _check(self, bundle: Bundle) -> None:
        manifest = bundle.manifest
        if self._standing.known and manifest.name != self._standing.name:
            raise AgentError(
                f"The bundle holds the model '{manifest.name}'", expected=f"'{self._standing.name}'"
            )
        _check_names(manifest)

    def _commit(
        self, found: Proved, proved: Callable[[], None], cancelled: Callable[[], bool]
    ) -> None:
        """Last moment to say no to a runner that may serve."""
        ended = cancelled() or self._intake.ending
        try:
            if not ended:
                proved()
        except BaseException:
            self._starter.stop(found.runner)
            raise
        if ended:
            self._starter.stop(found.runner)
            raise AgentError("The agent ended before the version could take over")

    def _take_over(self, found: Proved) -> None:
        """From the next request on, this one serves. In the keeper's turn."""
        runner, variant = found.runner, found.runner.variant
        manifest = variant.bundle.manifest
        self._standing.goes_by(manifest)
        self._standing.deadline_s = self._candidates.deadline_s(variant.bundle)
        self._keeper.begin(runner, found.ladder)
        limit = runner.watched.limit_bytes
        logs.info(
            "serving",
            model=manifest.name,
            version=manifest.version,
            artifact=variant.artifact.id,
            cosine=f"{variant.proof.cosine:.6f}" if variant.proof else "unknown",
            deadline_ms=f"{self._standing.deadline_s * 1000:g}",
            memory_mb=f"{limit / 1e6:g}" if limit else "none",
        )


def _adopted(found: Proved, *, beside: bool) -> Adopted:
    runner = found.runner
    bundle = runner.variant.bundle
    return Adopted(
        version=bundle.manifest.version,
        bundle=bundle.sha256,
        artifact=runner.variant.artifact.id,
        rejected=found.rejected,
        beside=beside,
        start_ms=runner.start_ms,
    )


def _check_names(manifest: Manifest) -> None:
    """They become parts of topics and messages."""
    names = {"model": manifest.name, "version": manifest.version}
    names |= {f"artifact {entry.id!r}": entry.id for entry in manifest.artifacts}
    for what, name in names.items():
        check_name(name, what)
