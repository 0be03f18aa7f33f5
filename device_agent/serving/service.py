"""One model: its queue, its workers, its windows, and the two threads that drive them.

The model's thread runs one request after another on whichever runner is in place; the keeper's
(:mod:`~edgeml.device_agent.serving.keeper`) brings runners up and replaces them. Callers only queue
requests and wait; whoever installs another version does so by
:class:`~edgeml.device_agent.serving.changeover.Changeover`.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from edgeml.bundle import Bundle, Manifest
from edgeml.device_agent import config as bounds
from edgeml.device_agent import logs
from edgeml.device_agent.config import ModelConfig
from edgeml.device_agent.install.versions import Fixed, Versions
from edgeml.device_agent.limits.watch import Watch
from edgeml.device_agent.serving.admission import Shed
from edgeml.device_agent.serving.candidates import Candidates
from edgeml.device_agent.serving.changeover import Changeover
from edgeml.device_agent.serving.door import Door
from edgeml.device_agent.serving.doorkeeper import Doorkeeper
from edgeml.device_agent.serving.execution import Execution
from edgeml.device_agent.serving.guests import Guests
from edgeml.device_agent.serving.intake import Intake
from edgeml.device_agent.serving.keeper import Keeper
from edgeml.device_agent.serving.lineup import Lineup
from edgeml.device_agent.serving.policy import Sensors, policy_of
from edgeml.device_agent.serving.profiles import Profiles
from edgeml.device_agent.serving.room import Room
from edgeml.device_agent.serving.runner import Runner, Starter
from edgeml.device_agent.serving.snapshot import ModelSnapshot
from edgeml.device_agent.serving.standing import Hooks, Standing
from edgeml.device_agent.serving.tickets import Ticket
from edgeml.device_agent.worker.layout import Array
from edgeml.errors import EdgemlError
from edgeml.telemetry import ModelState, Window


class Service:
    """A model on its way to serving, serving, or failed.

    Args:
        config: of the model.
        boot: of this run.
        artifacts: folder to extract into.
        logs_folder: for the workers' own output.
        profiles: folder for what artifacts cost here.
        engines: folder for what TensorRT builds; None for the user's cache folder.
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
        engines: Path | None = None,
        watch: Watch,
        room: Room,
        hooks: Hooks,
        versions: Versions | None = None,
        machine: Sensors | None = None,
    ) -> None:
        self._config = config
        self._asked = hooks.asked
        kept = Profiles(profiles)
        stem = re.sub(r"[^A-Za-z0-9._-]", "-", config.bundle.stem)[:64] or "model"
        self._standing = Standing(stem, hooks)
        self._starter = Starter(
            log=logs_folder / f"{stem}.log",
            engines=engines,
            start_timeout_s=config.start_timeout_s,
            watch=watch,
            gone=self._gone,
        )
        self.door = Door()
        """Shows programs what the intake would tell them."""
        self._intake = Intake(
            capacity=config.queue,
            probe_s=bounds.PROBE_S,
            missed=self._shed,
            door=self.door,
            allowed_s=lambda: self._standing.deadline_s,
        )
        self._lineup = Lineup(
            self._intake,
            self._starter,
            boot=boot,
            window_s=config.window_s,
            statistics_share=config.statistics_share,
            closed=hooks.changed,
            turned_back=self.door.turned_back,
        )
        self.doorkeeper = Doorkeeper(self.door, self._intake, self._lineup, asked=hooks.asked)
        self._guests = Guests(
            self._intake,
            self._lineup,
            self._starter,
            timeout_s=config.start_timeout_s,
            report=self._standing.disagree,
        )
        candidates = Candidates(
            config,
            artifacts=artifacts,
            profiles=kept,
            starter=self._starter,
            progress=self._standing.progress,
            before=self._serving_bundle,
            ending=lambda: self._intake.ending,
        )
        self._keeper = Keeper(
            lambda: self._standing.name,
            intake=self._intake,
            lineup=self._lineup,
            starter=self._starter,
            room=room,
            profiles=kept,
            policy=policy_of(config),
            first=candidates.first,
            tell=self._standing.tell,
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
        self.changes = Changeover(
            self._standing,
            versions or Fixed(config.bundle),
            candidates=candidates,
            profiles=kept,
            starter=self._starter,
            intake=self._intake,
            lineup=self._lineup,
            guests=self._guests,
            keeper=self._keeper,
        )
        """Puts other versions in its place, or beside it."""
        drive = self._execution.run
        self._threads = (
            threading.Thread(target=self._guarded, args=(self._keep,), name="keeper", daemon=True),
            threading.Thread(target=self._guarded, args=(drive,), name="model", daemon=True),
        )
        self._drain_s = 0.0
        self.settled = threading.Event()
        """Set when the model serves for the first time, or has failed to."""

    def start(self) -> None:
        """Begin to bring the model up, on its own threads."""
        for thread in self._threads:
            thread.start()

    @property
    def name(self) -> str:
        """Of the model."""
        return self._standing.name

    @property
    def state(self) -> ModelState:
        """For the reported state."""
        return self._standing.state

    @property
    def building(self) -> bool:
        """Whether an artifact is on its way to serve."""
        return self._standing.progress.building is not None

    @property
    def ready(self) -> bool:
        """Whether a request would be looked at now."""
        return self.changes.ready

    @property
    def manifest(self) -> Manifest:
        """Of the bundle that serves.

        Raises:
            AgentError: the bundle could not be opened.
        """
        return self._standing.manifest

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
        recurs: bool = False,
        done: Callable[[Ticket], None] | None = None,
    ) -> Ticket:
        """Offer a request.

        Args:
            inputs: as :func:`edgeml.device_agent.serving.requests.feed` makes them.
            stream: of whose waiting requests only the newest is kept; empty for none.
            deadline_s: from now; the model's own where it is later, or not given.
            recurs: see :class:`~edgeml.device_agent.serving.tickets.Ticket`.
            done: called once when it has ended, on whichever thread ends it.
        """
        now, due = self._arrived(deadline_s)
        ticket = Ticket(inputs, arrived=now, deadline=due, stream=stream, recurs=recurs, done=done)
        self._intake.submit(ticket)
        return ticket

    def call(
        self,
        inputs: Mapping[str, Array],
        *,
        stream: str = "",
        borrowed: bool = False,
        passed: bool = False,
        done: Callable[[Ticket], None] | None = None,
    ) -> Ticket:
        """Offer a request and, where nothing is before it, run it on this thread.

        Args:
            inputs: as for :meth:`submit`.
            stream: likewise.
            borrowed: they lie in memory that others may write to; they are copied when it begins.
            passed: see :class:`~edgeml.device_agent.serving.tickets.Ticket`.
            done: as for :meth:`submit`; before anything is counted, so that an answer goes out
                first.
        """
        now, due = self._arrived(None)
        ticket = Ticket(
            inputs,
            arrived=now,
            deadline=due,
            stream=stream,
            borrowed=borrowed,
            passed=passed,
            done=done,
        )
        self._execution.call(ticket)
        return ticket

    def _arrived(self, deadline_s: float | None) -> tuple[float, float]:
        """A request has: the monotonic second, and that by which its answer is due."""
        allowed = self._standing.deadline_s
        now = time.monotonic()
        self._asked(now)
        return now, now + (allowed if deadline_s is None else min(deadline_s, allowed))

    def unfit(self) -> None:
        """Count a request that did not fit the model's inputs."""
        self._lineup.missed("failed")

    def overran(self, count: int) -> None:
        """Count gaps in what a sensor gives: nobody read it in time."""
        self._lineup.overran(count)

    def windows(self, *, now: float, wall_ms: int) -> list[Window]:
        """Windows that have ended, the open one among them; none in which no request came."""
        return self._lineup.windows(now=now, wall_ms=wall_ms)

    @property
    def window_due(self) -> float:
        """When there is something in :meth:`windows`, monotonic seconds."""
        return self._lineup.window_due

    def snapshot(self) -> ModelSnapshot:
        """Everything that can be told of it now. From any thread."""
        runner, variant, state = self._intake.runner, self._lineup.variant, self.state
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
            looked_at=self._lineup.looked_at,
            overruns=self._lineup.overruns,
            latency=self._lineup.latency,
            waiting=self._intake.waiting,
            running=self._intake.running,
            restarts=self._keeper.restarts,
            last_start_ms=variant.start_ms if variant is not None else None,
            resident_mb=resident / 1e6 if resident is not None else None,
            limit_mb=limit / 1e6 if limit is not None else None,
            variants=tuple(rung.artifact.id for rung in self._keeper.rungs),
            step=self._keeper.step,
            standby=self._keeper.standby.runner is not None,
            profile=variant.profile if variant is not None else None,
            guest=self._guests.describe(),
            building=state.building,
        )

    def end(self, drain_s: float) -> None:
        """Take nothing more; what runs and waits may finish within ``drain_s``. Returns at once."""
        self._drain_s = drain_s
        self._intake.end(drain_s)
        self._keeper.end()
        self._starter.abort()  # what loads now, nobody will use

    def stop(self) -> None:
        """After :meth:`end`: wait for what may finish, then end workers and threads."""
        overdue = self._intake.overdue()
        if overdue is not None:  # its deadline may be hours away
            reason = f"not done {self._drain_s:g} s after the end"
            logs.warn("broken off", model=self.name, reason=reason)
            overdue.worker.kill()
        for thread in self._threads:
            if thread.ident is not None:
                thread.join()
        self._guests.dismiss()
        runner = self._intake.runner
        self._intake.refuse("the model does not serve any more")
        if runner is not None:
            self._intake.release(runner)  # a caller's thread may still be at it
            self._starter.stop(runner)

    # On the keeper's thread.

    def _keep(self) -> None:
        try:
            self.changes.come_up()
        except EdgemlError as error:
            self._fail(error)
        except Exception as error:  # noqa: BLE001 - told before anybody hears that it has settled
            self._fault(error)
        finally:
            self._settle()
        self._keeper.run()

    def _settle(self) -> None:
        self.settled.set()
        self._standing.changed()

    # On any.

    def _serving_bundle(self) -> Bundle | None:
        variant = self._lineup.variant
        return variant.bundle if variant is not None else None

    def _serves(self, runner: Runner) -> None:
        bundle, artifact = runner.variant.bundle, runner.variant.artifact
        self._standing.report(
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
            self._fault(error)

    def _fault(self, error: Exception) -> None:
        """From where it is handled: the log has the trace."""
        logs.fault("fault", model=self._standing.name)
        self._fail(error)

    def _fail(self, error: Exception) -> None:
        if self._intake.ending:
            return
        kind = "refused" if self._lineup.variant is None else "given-up"
        logs.error(kind, model=self._standing.name, reason=error)
        self._intake.refuse("the model does not serve any more")
        self._standing.report("failed", error=str(error)[:4000])
        self._standing.tell(kind, str(error)[:4000], {})

    def _shed(self, entry: Shed) -> None:
        self._lineup.missed("shed", strained=entry.strained)

    def _gone(self) -> None:
        """A worker has ended; called from the watch."""
        self._guests.look()
        self._keeper.wake()
