"""One model: its queue, its workers, its windows, and the two threads that drive them.

The model's thread runs one request after another on whichever runner is in place; the keeper's
(:mod:`~edgeml.device_agent.serving.keeper`) brings runners up and replaces them. Callers only queue
requests and wait; whoever installs another version calls :meth:`Service.adopt`.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal

import msgspec

from edgeml.bundle import Bundle, Manifest
from edgeml.device_agent import config as bounds
from edgeml.device_agent import logs
from edgeml.device_agent.config import ModelConfig
from edgeml.device_agent.install.bringup import Proved
from edgeml.device_agent.install.lifecycle import Beside
from edgeml.device_agent.install.selection import Rejected
from edgeml.device_agent.install.versions import Fixed, Versions
from edgeml.device_agent.limits.watch import Watch
from edgeml.device_agent.serving.admission import Shed
from edgeml.device_agent.serving.candidates import Candidates
from edgeml.device_agent.serving.execution import Execution
from edgeml.device_agent.serving.guests import Guests
from edgeml.device_agent.serving.intake import Intake
from edgeml.device_agent.serving.keeper import Keeper, Policy, Sensors
from edgeml.device_agent.serving.ladder import Thresholds
from edgeml.device_agent.serving.lineup import Lineup
from edgeml.device_agent.serving.pairs import Disagreement
from edgeml.device_agent.serving.profiles import Profiles
from edgeml.device_agent.serving.room import Room
from edgeml.device_agent.serving.runner import Runner, Starter
from edgeml.device_agent.serving.snapshot import ModelSnapshot
from edgeml.device_agent.serving.tickets import Ticket
from edgeml.device_agent.worker.layout import Array
from edgeml.errors import AgentError, EdgemlError
from edgeml.telemetry import ModelState, Window, check_name

Phase = Literal["starting", "verified", "proved", "active", "failed"]
Details = dict[str, str | int | float]


class Hooks(msgspec.Struct, frozen=True):
    """What a service tells the agent. Called from the service's threads."""

    event: Callable[[str, str, str, Details], None]
    """Kind, sentence, model, details."""
    changed: Callable[[], None]
    """The reported state is another one, or a window was closed."""


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


class Service:
    """A model on its way to serving, serving, or failed.

    Args:
        config: of the model.
        boot: of this run.
        artifacts: folder to extract into.
        logs_folder: for the workers' own output.
        profiles: folder for what artifacts cost here.
        watch: looks after workers.
        room: for one worker more.
        hooks: whom to tell.
        versions: which bundle is to serve; the configuration's where it is not given.
        machine: what the ladder goes by.
    """

    def __init__(
        self,
        config: ModelConfig,
        *,
        boot: str,
        artifacts: Path,
        logs_folder: Path,
        profiles: Path,
        watch: Watch,
        room: Room,
        hooks: Hooks,
        versions: Versions | None = None,
        machine: Sensors | None = None,
    ) -> None:
        self._config = config
        self._versions: Versions = versions or Fixed(config.bundle)
        self._hooks = hooks
        self._profiles = Profiles(profiles)
        stem = re.sub(r"[^A-Za-z0-9._-]", "-", config.bundle.stem)[:64] or "model"
        self._state = ModelState(
            name=stem, version="unknown", bundle="", artifact="", phase="starting"
        )
        self._manifest: Manifest | None = None
        self._deadline_s = bounds.DEADLINE_MS / 1000
        self._starter = Starter(
            log=logs_folder / f"{stem}.log",
            start_timeout_s=config.start_timeout_s,
            watch=watch,
            gone=self._gone,
        )
        self._intake = Intake(capacity=config.queue, probe_s=bounds.PROBE_S, missed=self._shed)
        self._lineup = Lineup(
            self._intake,
            self._starter,
            boot=boot,
            window_s=config.window_s,
            closed=hooks.changed,
        )
        self._guests = Guests(
            self._intake,
            self._lineup,
            self._starter,
            timeout_s=config.start_timeout_s,
            report=self._report_pairs,
        )
        self._candidates = Candidates(
            config,
            artifacts=artifacts,
            profiles=self._profiles,
            starter=self._starter,
            ending=lambda: self._intake.ending,
        )
        self._keeper = Keeper(
            lambda: self._state.name,
            intake=self._intake,
            lineup=self._lineup,
            starter=self._starter,
            room=room,
            profiles=self._profiles,
            policy=_policy(config),
            qualify=self._candidates.qualify,
            tell=self._tell,
            serves=self._serves,
            given_up=self._fail,
            machine=machine or Sensors(),
        )
        self._execution = Execution(
            self._intake,
            self._lineup,
            self._guests,
            lost=self._keeper.lost,
            grace_s=config.grace_ms / 1000,
        )
        drive = self._execution.run
        self._threads = (
            threading.Thread(target=self._guarded, args=(self._keep,), name="keeper", daemon=True),
            threading.Thread(target=self._guarded, args=(drive,), name="model", daemon=True),
        )
        self.settled = threading.Event()
        """Set when the model serves for the first time, or has failed to."""

    def start(self) -> None:
        """Begin to bring the model up, on its own threads."""
        for thread in self._threads:
            thread.start()

    @property
    def state(self) -> ModelState:
        """For the reported state."""
        return self._state

    @property
    def ready(self) -> bool:
        """Whether a request would be looked at now."""
        return self._state.phase == "active" and self._intake.runner is not None

    @property
    def manifest(self) -> Manifest:
        """Of the bundle that serves.

        Raises:
            AgentError: the bundle could not be opened.
        """
        if self._manifest is None:
            raise AgentError(f"{self._state.name} has no readable bundle")
        return self._manifest

    @property
    def idle(self) -> bool:
        """Nothing runs and nothing waits."""
        return self._intake.idle

    def submit(
        self,
        inputs: Mapping[str, Array],
        *,
        stream: str = "",
        deadline_s: float | None = None,
        done: Callable[[Ticket], None] | None = None,
    ) -> Ticket:
        """Offer a request.

        Args:
            inputs: as :func:`edgeml.device_agent.serving.requests.feed` makes them.
            stream: of whose waiting requests only the newest is kept; empty for none.
            deadline_s: from now; the model's own where it is later, or not given.
            done: called once when it has ended, on whichever thread ends it.
        """
        within = self._deadline_s if deadline_s is None else min(deadline_s, self._deadline_s)
        return self._intake.submit(inputs, deadline_s=within, stream=stream, done=done)

    def unfit(self) -> None:
        """Count a request that did not fit the model's inputs."""
        self._lineup.missed("failed")

    def windows(self, *, now: float, wall_ms: int) -> list[Window]:
        """Windows that have ended, the open one among them; none in which no request came."""
        return self._lineup.windows(now=now, wall_ms=wall_ms)

    @property
    def window_due(self) -> float:
        """When there is something in :meth:`windows`, monotonic seconds."""
        return self._lineup.window_due

    def snapshot(self) -> ModelSnapshot:
        """Everything that can be told of it now. From any thread."""
        runner, variant, state = self._intake.runner, self._lineup.variant, self._state
        resident = runner.worker.resident_bytes() if runner is not None else None
        limit = variant.limit_bytes if variant is not None else None
        return ModelSnapshot(
            name=state.name,
            version=state.version,
            bundle=state.bundle,
            artifact=state.artifact,
            phase=state.phase,
            memory_limit=state.memory_limit,
            outcomes=self._lineup.outcomes,
            latency=self._lineup.latency,
            waiting=self._intake.waiting,
            running=self._intake.running,
            restarts=self._keeper.restarts,
            last_start_ms=variant.start_ms if variant is not None else None,
            resident_mb=resident / 1e6 if resident is not None else None,
            limit_mb=limit / 1e6 if limit is not None else None,
            variants=tuple(rung.artifact.id for rung in self._keeper.rungs),
            step=self._keeper.step,
            standby=self._keeper.standby is not None,
            profile=variant.profile if variant is not None else None,
            guest=self._guests.describe(),
        )

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
            raise AgentError(f"{self._state.name} does not serve")
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

    def stop(self, drain_s: float) -> None:
        """Take nothing more, let what waits finish within ``drain_s``, end workers and threads."""
        self._intake.end(drain_s)
        self._keeper.end()
        self._starter.abort()  # what loads now, nobody will use
        for thread in self._threads:
            if thread.ident is not None:
                thread.join()
        self.dismiss()
        runner = self._intake.runner
        self._intake.refuse("the model does not serve any more")
        if runner is not None:
            self._starter.stop(runner)

    # On the keeper's thread.

    def _keep(self) -> None:
        try:
            self._come_up()
        except EdgemlError as error:
            self._fail(error)
        finally:
            self._settle()
        self._keeper.run()

    def _come_up(self) -> None:
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
        self._manifest = manifest
        self._report("verified", name=manifest.name, version=manifest.version, bundle=bundle.sha256)
        in_time = self._versions.on_trial(bundle)
        candidates = self._candidates.find(bundle)
        found = self._candidates.bring_up(bundle, candidates, lambda: False, in_time=in_time)
        self._report(
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

    def _settle(self) -> None:
        self.settled.set()
        self._hooks.changed()

    # On any.

    def _check(self, bundle: Bundle) -> None:
        manifest = bundle.manifest
        if self._manifest is not None and manifest.name != self._state.name:
            raise AgentError(
                f"The bundle holds the model '{manifest.name}'", expected=f"'{self._state.name}'"
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
        self._manifest = manifest
        self._deadline_s = self._candidates.deadline_s(variant.bundle)
        self._keeper.begin(runner, found.ladder)
        limit = runner.watched.limit_bytes
        logs.info(
            "serving",
            model=manifest.name,
            version=manifest.version,
            artifact=variant.artifact.id,
            cosine=f"{variant.proof.cosine:.6f}" if variant.proof else "unknown",
            deadline_ms=f"{self._deadline_s * 1000:g}",
            memory_mb=f"{limit / 1e6:g}" if limit else "none",
        )

    def _serves(self, runner: Runner) -> None:
        bundle, artifact = runner.variant.bundle, runner.variant.artifact
        self._report(
            "active",
            version=bundle.manifest.version,
            bundle=bundle.sha256,
            artifact=artifact.id,
            memory_limit=runner.watched.memory_limit,
        )

    def _guarded(self, work: Callable[[], None]) -> None:
        try:
            work()
        except Exception as error:  # noqa: BLE001 - a fault of ours must not leave callers waiting
            logs.LOG.exception("fault", extra={"fields": {"model": self._state.name}})
            self._fail(error)

    def _fail(self, error: Exception) -> None:
        if self._intake.ending:
            return
        kind = "refused" if self._lineup.variant is None else "given-up"
        logs.warn(kind, model=self._state.name, reason=str(error))
        self._intake.refuse("the model does not serve any more")
        self._report("failed", error=str(error)[:4000])
        self._tell(kind, str(error)[:4000], {})

    def _report(self, phase: Phase, **changes: str) -> None:
        changes.setdefault("error", "")
        self._state = msgspec.structs.replace(self._state, phase=phase, **changes)
        self._hooks.changed()

    def _tell(self, kind: str, message: str, details: Details) -> None:
        self._hooks.event(kind, message, self._state.name, details)

    def _shed(self, entry: Shed) -> None:
        self._lineup.missed("shed", strained=entry.strained)

    def _gone(self) -> None:
        """A worker has ended; called from the watch."""
        self._guests.look()
        self._keeper.wake()

    def _report_pairs(self, found: Disagreement) -> None:
        version = self._state.version
        self._tell(
            "disagreement",
            f"The shadow and {version} disagree on {found.differing} of {found.pairs} inputs, "
            f"{found.low:.2%} to {found.high:.2%} of them at 95 % confidence",
            msgspec.to_builtins(found),
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


def _policy(config: ModelConfig) -> Policy:
    thresholds = Thresholds(
        span_s=config.ladder_s,
        quiet_s=config.quiet_s,
        celsius=config.hot_c,
        celsius_low=config.hot_c - 10,
    )
    return Policy(
        restarts=config.restarts,
        standby=config.standby,
        ladder=thresholds if config.ladder and not config.target else None,
    )


def _check_names(manifest: Manifest) -> None:
    """They become parts of topics and messages."""
    names = {"model": manifest.name, "version": manifest.version}
    names |= {f"artifact {entry.id!r}": entry.id for entry in manifest.artifacts}
    for what, name in names.items():
        check_name(name, what)
