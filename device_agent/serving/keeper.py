"""Sees to it that somebody serves: puts another worker in the place of one that is lost, whose
memory creeps up, or that is too dear for the device as it is now.

Every reason ends in the same change: prepare another runner, then :meth:`Lineup.put
<edgeml.device_agent.serving.lineup.Lineup.put>` it in its place between two requests. A thread of
its own does it, so that requests go on meanwhile; whoever installs another version takes a
:meth:`turn <Keeper.turn>`.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Generator, Sequence

from edgeml.device_agent import config as bounds
from edgeml.device_agent import logs
from edgeml.device_agent.serving.creep import Creep
from edgeml.device_agent.serving.intake import Intake
from edgeml.device_agent.serving.ladder import Ladder, Move, Reading
from edgeml.device_agent.serving.lineup import Lineup
from edgeml.device_agent.serving.losses import breach
from edgeml.device_agent.serving.policy import Policy, Sensors
from edgeml.device_agent.serving.profiles import Profiles, Upkeep
from edgeml.device_agent.serving.restarts import RestartPolicy
from edgeml.device_agent.serving.room import Room, peak_bytes
from edgeml.device_agent.serving.runner import Runner, Starter, Variant
from edgeml.device_agent.serving.standby import Standby
from edgeml.device_agent.worker.parent import WorkerDiedError, WorkerError
from edgeml.errors import AgentError

Details = dict[str, str | int | float]
Tell = Callable[[str, str, Details], None]
"""Kind of event, sentence, details."""


class Keeper:
    """Args:
    name: of the model, for the log.
    intake: of the model.
    lineup: of the model.
    starter: of its workers.
    room: for one worker more.
    profiles: of this device.
    policy: what it may do.
    first: brings up a runner of an artifact that never served.
    tell: of what happened.
    serves: told of each runner that was put in place.
    given_up: called when the model is.
    machine: what the ladder goes by.
    """

    def __init__(
        self,
        name: Callable[[], str],
        *,
        intake: Intake,
        lineup: Lineup,
        starter: Starter,
        room: Room,
        profiles: Profiles,
        policy: Policy,
        first: Callable[[Variant], Runner],
        tell: Tell,
        serves: Callable[[Runner], None],
        given_up: Callable[[Exception], None],
        machine: Sensors,
    ) -> None:
        self._name = name
        self._intake = intake
        self._lineup = lineup
        self._starter = starter
        self._room = room
        self._may = policy
        self._first = first
        self._tell = tell
        self._serves = serves
        self._given_up = given_up
        self._machine = machine
        self._bell = threading.Event()
        self._ending = False
        self._lock = threading.RLock()
        self._turns = 0
        self._counting = threading.Lock()
        self._restarts = self._new_restarts()
        self._lost: tuple[Runner, WorkerError] | None = None
        self._creep: Creep | None = None
        self._ladder: Ladder | None = None
        self._look_again = 0.0
        self._told = (0, 0)
        self._upkeep = Upkeep(profiles, now=time.monotonic())
        self.rungs: tuple[Variant, ...] = ()
        """Artifacts of the version that serves, each cheaper than the one before."""
        self.step = 0
        """Which of them serves."""
        self.standby = Standby(starter, room, wanted=policy.standby)
        """A warm worker of what serves."""
        self.restarts = 0
        """Workers that were lost and replaced, since the start."""

    # From any thread.

    def wake(self) -> None:
        """There may be something to do."""
        self._bell.set()

    def end(self) -> None:
        """Make no more changes."""
        self._ending = True
        self._bell.set()

    def lost(self, runner: Runner, error: WorkerError) -> None:
        """The worker in place is gone, said by who was using it."""
        ready_in_s = 0.0 if self.standby.runner is not None else runner.variant.start_ms / 1000
        if self._intake.unload(runner, _REPLACED, ready_in_s=ready_in_s):
            self._lost = (runner, error)
            self._bell.set()

    @contextlib.contextmanager
    def turn(self) -> Generator[None]:
        """Change what serves; nobody else does meanwhile. A worker that keeps dying is not waited
        for: :meth:`restore` what served if nothing else does in the end."""
        with self._counting:
            self._turns += 1
        self._bell.set()
        with self._lock:
            with self._counting:
                self._turns -= 1
            try:
                yield
            finally:
                self._bell.set()  # a worker may have died in between

    # In one's turn.

    def makes_room(self, need_bytes: int) -> bool:
        """Whether another worker fits beside the one that serves; a standby goes first."""
        if self._room.fits(need_bytes):
            return True
        if self.standby.runner is None:
            return False
        self.standby.drop()
        return self._room.fits(need_bytes)

    def unload(self, reason: str) -> None:
        """End what serves, once it has finished what it had begun; what can wait waits."""
        runner = self._intake.runner
        self._bury()
        self.standby.drop()
        if runner is not None:
            self._intake.unload(runner, reason, ready_in_s=runner.variant.start_ms / 1000)
            self._intake.release(runner)
            self._starter.stop(runner)

    def restore(self) -> None:
        """Serve again what served last, if nothing does."""
        variant = self._lineup.variant
        if self._intake.runner is None and variant is not None:
            self._replace(variant, "its successor did not come up")

    def begin(self, runner: Runner, rungs: Sequence[Variant]) -> None:
        """A version serves from the next request on; what its predecessor did to its workers does
        not count.

        Args:
            runner: of the first rung.
            rungs: its artifacts, each cheaper than the one before.
        """
        self._bury()
        self.standby.drop()
        self._restarts = self._new_restarts()
        self.rungs, self.step = tuple(rungs), 0
        limits = self._may.ladder
        now = time.monotonic()
        self._ladder = Ladder(limits, now=now) if limits is not None and len(rungs) > 1 else None
        self._put(runner)

    def _bury(self) -> None:
        """See to what is left of a worker that was lost, since something else takes its place."""
        lost, self._lost = self._lost, None
        if lost is not None:
            self._intake.release(lost[0])
            self._starter.stop(lost[0])

    # On the keeper's own thread.

    def run(self) -> None:
        """Keep the model serving until :meth:`end`."""
        while not self._ending:
            self._bell.wait(None if self._intake.runner is None else bounds.KEEP_S)
            self._bell.clear()
            with self._lock:
                if not self._ending and not self._turns:
                    self._look(time.monotonic())
        with self._lock:
            self.standby.drop()
            self._upkeep.keep(
                self._intake.runner, self._lineup.served_and_strained[0], now=time.monotonic()
            )

    def _look(self, now: float) -> None:
        runner = self._intake.runner
        if runner is not None and runner.watched.dead and not self._intake.uses(runner):
            self.lost(runner, WorkerDiedError(f"{runner.worker.obituary()}, while idle"))
        if self._lost is not None:
            self._recover(*self._lost)
            return
        if runner is None or now < self._look_again:
            return
        self._look_again = now + bounds.KEEP_S
        self.standby.look(now)
        resident = runner.worker.resident_bytes()
        creep = self._creep
        if resident is not None and creep is not None and creep.is_due(resident, now=now):
            self._renew(runner, resident, wait=not creep.is_pressing(resident))
            return
        move = self._consult(now)
        if move is not None:
            self._move(runner, move)
        elif self.standby.is_due(now):
            self.standby.call(runner.variant, name=self._name())
        self._upkeep.look(runner, self._lineup.served_and_strained[0], now=now)

    # A worker that is lost.

    def _recover(self, runner: Runner, error: WorkerError) -> None:
        self._lost = None
        self._intake.release(runner)  # the model's thread may still be reading from it
        self._starter.stop(runner)
        kind, message = breach(error, runner)
        logs.warn(kind, model=self._name(), reason=message)
        self._tell(kind, message, {"recent": self._restarts.recent + 1})
        self._replace(runner.variant, message)

    def _replace(self, variant: Variant, message: str) -> None:
        """Have another worker of the variant serve, unless the end or another version comes."""
        while True:
            delay = self._restarts.died(time.monotonic())
            if delay is None:
                self._give_up(message)
                return
            standby = self.standby.take()
            if standby is not None and not standby.watched.dead and not delay:
                self._took_over(standby, warm=True)
                return
            if standby is not None:
                self._starter.stop(standby)
            self._intake.suspend(_REPLACED, ready_in_s=delay + variant.start_ms / 1000)
            if self._pause(delay):
                return
            try:
                runner = self._starter.start(variant)
            except WorkerError as error:
                message = str(error)
                logs.warn("restart failed", model=self._name(), reason=message)
                continue
            self._took_over(runner, warm=False)
            return

    def _took_over(self, runner: Runner, *, warm: bool) -> None:
        self._put(runner)
        self.restarts += 1
        details: Details = {"start_ms": round(runner.start_ms, 1), "standby": int(warm)}
        logs.info("replaced", model=self._name(), pid=runner.worker.pid, **details)
        artifact = runner.variant.artifact.id
        self._tell("replaced", f"Another worker of {artifact} took over", details)

    def _give_up(self, message: str) -> None:
        self.standby.drop()
        self._given_up(
            AgentError(
                f"{self._may.restarts + 1} workers of {self._name()} were lost within "
                f"{bounds.RESTART_SPAN_S:g} s, the last: {message.rstrip('.')}",
                remedy="Check its budgets against `edgeml bench`, then start the agent again.",
            )
        )

    def _pause(self, seconds: float) -> bool:
        """Wait, at most until the end begins or another version comes; returns whether it did."""
        until = time.monotonic() + seconds
        while not (self._ending or self._turns) and (left := until - time.monotonic()) > 0:
            self._bell.wait(left)
            self._bell.clear()
        return self._ending or self._turns > 0

    # One that creeps.

    def _renew(self, runner: Runner, resident: int, *, wait: bool) -> None:
        variant, warm = runner.variant, self.standby.take()
        try:
            if warm is None or warm.watched.dead:
                warm = None
                if not self._clear_way(variant, wait=wait):
                    return
            self._put(warm or self._starter.start(variant))
        except WorkerError as error:
            logs.warn("not renewed", model=self._name(), reason=error)
            self._look_again = time.monotonic() + bounds.STANDBY_REST_S
            self.restore()
            return
        details: Details = {
            "resident_mb": round(resident / 1e6, 1),
            "limit_mb": round((runner.watched.limit_bytes or 0) / 1e6, 1),
            "start_ms": round(variant.start_ms, 1),
        }
        message = (
            f"A worker of {variant.artifact.id} had crept up to {details['resident_mb']} MB of "
            f"{details['limit_mb']} and was replaced"
        )
        logs.info("renewed", model=self._name(), **details)
        self._tell("memory-creep", message, details)

    # The ladder.

    def _consult(self, now: float) -> Move | None:
        if self._ladder is None:
            return None
        counts = self._lineup.served_and_strained
        served, strained = (new - old for new, old in zip(counts, self._told, strict=True))
        self._told = counts
        reading = Reading(served, strained, self._machine.pressure(), self._machine.celsius())
        return self._ladder.update(
            reading, now=now, lower=self.step + 1 < len(self.rungs), upper=self.step > 0
        )

    def _move(self, runner: Runner, move: Move) -> None:
        assert self._ladder is not None
        before = runner.variant
        variant = self.rungs[self.step + move.by]
        try:
            self._clear_way(variant)
            begin = self._starter.start(variant) if variant.proof else self._first(variant)
        except (AgentError, OSError) as error:
            logs.warn("no step", model=self._name(), artifact=variant.artifact.id, reason=error)
            self.rungs = tuple(rung for rung in self.rungs if rung is not variant)
            self.step = self.rungs.index(before)
            self._ladder.moved(move, now=time.monotonic())
            self.restore()
            return
        self.standby.drop()
        self._put(begin)
        self.step += move.by
        self._ladder.moved(move, now=time.monotonic())
        details: Details = {
            "from": before.artifact.id,
            "to": variant.artifact.id,
            "step": self.step,
            "why": move.kind,
            "start_ms": round(variant.start_ms, 1),
        }
        kind = "degraded" if move.by > 0 else "restored"
        message = f"{variant.artifact.id} serves in place of {before.artifact.id}: {move.reason}"
        logs.info(kind, model=self._name(), **details)
        self._tell(kind, message, details)

    # Common to all.

    def _clear_way(self, variant: Variant, *, wait: bool = False) -> bool:
        """Make room for a runner of ``variant``: beside what serves if both fit, else in its place.

        Args:
            variant: that is to serve.
            wait: where both do not fit, only when nothing runs and nothing waits.

        Returns:
            Whether there is room.
        """
        if self.makes_room(peak_bytes(variant)):
            return True
        if wait and not self._intake.idle:
            return False
        self.unload("another worker takes over")
        return True

    def _put(self, runner: Runner) -> None:
        self._lineup.put(runner)
        now = time.monotonic()
        self._creep = Creep(
            runner.watched.limit_bytes,
            runner.worker.resident_bytes() or 0,
            now=now,
            rest_s=self._may.creep_rest_s,
        )
        self._told = self._lineup.served_and_strained
        self._upkeep.begin(self._told[0], now=now)
        self._serves(runner)

    def _new_restarts(self) -> RestartPolicy:
        return RestartPolicy(
            limit=self._may.restarts,
            span_s=bounds.RESTART_SPAN_S,
            base_s=bounds.RESTART_BASE_S,
            cap_s=bounds.RESTART_CAP_S,
        )


_REPLACED = "the worker is being replaced"
