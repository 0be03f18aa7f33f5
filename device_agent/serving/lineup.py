"""Who serves a model, and what the windows and totals say of it.

Puts one runner in the place of another between two requests. A window belongs to one variant: it is
closed when another one takes over, so that the collector never sees two of them in one.
"""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping

from edgeml.device_agent.serving.admission import OUTCOMES, Outcome
from edgeml.device_agent.serving.intake import Intake
from edgeml.device_agent.serving.recorder import Recorder
from edgeml.device_agent.serving.runner import Runner, Starter, Variant
from edgeml.device_agent.serving.snapshot import LatencyHistogram
from edgeml.device_agent.serving.tickets import Ticket
from edgeml.device_agent.serving.windows import WindowClock
from edgeml.device_agent.worker.layout import Array
from edgeml.telemetry import Window


class Lineup:
    """Args:
    intake: of the model.
    starter: stops who is replaced.
    boot: of this run.
    window_s: length of a window.
    statistics_share: of one core's time.
    closed: called when a window was closed before its time.
    turned_back: requests since the last call that programs saw would be shed, and did not make.
    """

    def __init__(
        self,
        intake: Intake,
        starter: Starter,
        *,
        boot: str,
        window_s: float,
        statistics_share: float,
        closed: Callable[[], None],
        turned_back: Callable[[], int],
    ) -> None:
        self._intake = intake
        self._starter = starter
        self._boot = boot
        self._window_s = window_s
        self._statistics_share = statistics_share
        self._told = closed
        self._turned_back = turned_back
        self._lock = threading.Lock()
        self._variant: Variant | None = None
        self._guest: Variant | None = None
        self._closed: deque[Window] = deque()
        self._outcomes: Counter[Outcome] = Counter()
        self._strained = 0
        self._looked_at = 0
        self._overruns = 0
        self._latency = LatencyHistogram()

    @property
    def variant(self) -> Variant | None:
        """What serves, or did last."""
        return self._variant

    def put(self, runner: Runner) -> None:
        """Have ``runner`` serve from the next request on; who did is at rest and gone after it."""
        variant, before = runner.variant, self._variant
        drop = ""
        if variant is not before:
            self.gather()  # they turned back from the former
            variant.recorder = self._make_recorder(variant)
            if before is not None and before.layout != variant.layout:
                drop = "another version takes over, and it takes other inputs"
        with self._lock:
            self._variant = variant
        runner.worker.serves()
        former = self._intake.put(runner, drop=drop)
        if former is not None:
            self._intake.release(former)
            self._starter.stop(former)
        if before is not None and before is not variant:
            self._close(before)

    def host(self, variant: Variant | None) -> None:
        """Keep windows of a guest's variant as well; those of the former guest are closed, unless
        it serves now."""
        if variant is not None:
            variant.recorder = self._make_recorder(variant)
        with self._lock:
            former, self._guest = self._guest, variant
        if former is not None:
            self._close(former)

    def looks(self, runner: Runner) -> bool:
        """Whether what ``runner`` serves now would be looked at, and so has to be kept."""
        recorder = runner.variant.recorder
        return recorder is not None and recorder.looks

    def behind(self, runner: Runner) -> Recorder | None:
        """Who has to compute statistics before ``runner`` begins another request."""
        recorder = runner.variant.recorder
        return recorder if recorder is not None and recorder.behind else None

    def served(
        self, runner: Runner, ticket: Ticket, outputs: Mapping[str, Array], *, kept: bool
    ) -> None:
        """A request has its result.

        Args:
            runner: who served it.
            ticket: of it.
            outputs: by name.
            kept: whether the ticket still has its inputs.
        """
        recorder = runner.variant.recorder
        seen = recorder is not None and recorder.served(ticket.inputs if kept else None, outputs)
        with self._lock:
            self._outcomes["served"] += 1
            self._looked_at += seen
            self._latency.add((time.monotonic() - ticket.arrived) * 1000)

    def missed(
        self,
        outcome: Outcome,
        runner: Runner | None = None,
        *,
        strained: bool = False,
        count: int = 1,
    ) -> None:
        """Requests ended without a result.

        Args:
            outcome: of each.
            runner: who had begun them; None where nobody had.
            strained: a faster model would have served them.
            count: of them.
        """
        with self._lock:
            self._outcomes[outcome] += count
            self._strained += count * strained
            variant = runner.variant if runner is not None else self._variant
            if variant is not None and variant.recorder is not None:
                variant.recorder.missed(outcome, count)

    def overran(self, count: int) -> None:
        """An input lost something before it was a request."""
        with self._lock:
            self._overruns += count

    @property
    def overruns(self) -> int:
        """How often that was, since the start."""
        return self._overruns

    def gather(self) -> None:
        """Count those that turned back: before anything is told of what was counted."""
        if count := self._turned_back():
            self.missed("shed", strained=True, count=count)

    @property
    def outcomes(self) -> dict[str, int]:
        """Requests by what became of them, since the start."""
        self.gather()
        with self._lock:
            return {name: self._outcomes[name] for name in OUTCOMES}

    @property
    def looked_at(self) -> int:
        """Requests since the start whose inputs and outputs the statistics looked at."""
        with self._lock:
            return self._looked_at

    @property
    def served_and_strained(self) -> tuple[int, int]:
        """Requests since the start that were served, and that a faster model would have served."""
        self.gather()
        with self._lock:
            return self._outcomes["served"], self._strained

    @property
    def latency(self) -> LatencyHistogram:
        """From arrival to answer, since the start."""
        with self._lock:
            return self._latency.copy()

    @property
    def window_due(self) -> float:
        """When something is to be had from :meth:`windows`, monotonic seconds."""
        if self._closed:
            return 0.0
        return min((recorder.due for recorder in self._recorders()), default=float("inf"))

    def windows(self, *, now: float, wall_ms: int) -> list[Window]:
        """End the open window; those in which no request came are left out."""
        self.gather()
        found: list[Window] = []
        while self._closed:
            found.append(self._closed.popleft())
        ended = (recorder.close(now=now, wall_ms=wall_ms) for recorder in self._recorders())
        return found + [window for window in ended if window is not None]

    def _recorders(self) -> list[Recorder]:
        with self._lock:
            variants = [v for v in (self._variant, self._guest) if v is not None]
            return [v.recorder for v in variants if v.recorder is not None]

    def _close(self, variant: Variant) -> None:
        with self._lock:  # whoever counts something finds the recorder open, or none
            recorder, variant.recorder = variant.recorder, None
        if recorder is None:
            return
        window = recorder.close(now=time.monotonic(), wall_ms=time.time_ns() // 10**6)
        if window is not None:
            self._closed.append(window)
            self._told()

    def _make_recorder(self, variant: Variant) -> Recorder:
        manifest = variant.bundle.manifest
        return Recorder(
            baseline=variant.bundle.baseline(),
            clock=WindowClock(
                self._window_s, now=time.monotonic(), wall_ms=time.time_ns() // 10**6
            ),
            share=self._statistics_share,
            boot=self._boot,
            model=manifest.name,
            version=manifest.version,
            bundle=variant.bundle.sha256,
            artifact=variant.artifact.id,
        )
