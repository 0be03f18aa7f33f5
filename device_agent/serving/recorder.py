"""One model's open window: counts what goes through, and closes it when it is due.

Whoever served a request records it. What is looked at is gathered into batches, since on a single
sample NumPy's calls cost more than their work, and a full batch is computed on a thread of its own.
Statistics have an allowance of processor time: while it is used up, requests are counted and not
looked at, and then a whole batch is again. So which samples are looked at depends on time alone.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from edgeml.device_agent import logs
from edgeml.device_agent.serving.admission import Outcome
from edgeml.device_agent.serving.allowance import Allowance
from edgeml.device_agent.serving.windows import WindowClock
from edgeml.device_agent.worker.layout import Array
from edgeml.device_agent.worker.turns import give_way
from edgeml.telemetry import Window

if TYPE_CHECKING:
    from edgeml.statistics import Baseline

GATHER_ROWS = 32
GATHER_BYTES = 4 * 1024 * 1024
"""What is gathered before statistics are computed, whichever comes first. A batch costs a
millisecond whatever is in it, after a rest in which inferences have had the caches: of a camera at
224x224 a frame takes 450 µs in threes, 250 in sevens, 150 in batches of 27, and little less in
larger ones. So much memory of freed frames the agent keeps anyway
(:data:`~edgeml.device_agent.config.HEAP_ENVIRONMENT`)."""

WAITING = 2
"""Batches that may wait to be computed. With so many whoever serves the next request computes them
first: no memory without end."""

Tensors = Mapping[str, Array]

_aside = ThreadPoolExecutor(1, thread_name_prefix="statistics", initializer=give_way)
"""Computes for all models, and lets whoever wakes have its core first. What it takes of the
interpreter, requests wait for in turns of :data:`~edgeml.device_agent.config.SWITCH_S`, and not for
a batch as a whole."""


class Batch(msgspec.Struct):
    """Samples that came one after another; ``gap``: not right after those looked at before."""

    gap: bool = False
    rows: list[tuple[Tensors, Tensors]] = []
    nbytes: int = 0
    charged_s: float = 0.0
    """Of processor time, before it is computed."""

    @property
    def full(self) -> bool:
        """Whether it is worth computing."""
        return len(self.rows) >= GATHER_ROWS or self.nbytes >= GATHER_BYTES


class Recorder:
    """Args:
    baseline: which statistics there are; None where the bundle has none.
    clock: of the windows.
    share: of one core's time that statistics may take.
    boot: of this run.
    model: name of the model.
    version: of the model.
    bundle: SHA-256 of the bundle.
    artifact: id of the artifact that serves.
    """

    def __init__(
        self,
        *,
        baseline: Baseline | None,
        clock: WindowClock,
        share: float,
        boot: str,
        model: str,
        version: str,
        bundle: str,
        artifact: str,
    ) -> None:
        # With the first model: an agent without one does not need two megabytes of statistics.
        from edgeml.statistics import Observer

        self._observer = Observer(baseline) if baseline else None
        self._baseline = baseline.hash if baseline else ""
        self._clock = clock
        self._allowance = Allowance(share, now=time.monotonic())
        self._lock = threading.Lock()
        self._computing = threading.Lock()
        """Guards the observer; taken before the other one."""
        self._batch = Batch()
        self._full: list[Batch] = []
        self._cost_s = 0.0
        """Of a sample, in the latest batch. Each is charged with it until its own is known, or the
        next batch would be begun on what this one will have used up."""
        self._names = (boot, model, version, bundle, artifact)

    @property
    def looks(self) -> bool:
        """Whether inputs that are served now would be looked at, and so have to be kept."""
        return self._looks(time.monotonic())

    @property
    def behind(self) -> bool:
        """Whether requests come faster than they are computed: :meth:`compute` before the next."""
        return len(self._full) >= WAITING

    def served(self, inputs: Tensors | None, outputs: Tensors) -> bool:
        """A request was served: count it, and what went in and out.

        Args:
            inputs: [1, …] by name; None where they were not kept.
            outputs: likewise.

        Returns:
            Whether it is looked at.
        """
        now = time.monotonic()
        with self._lock:
            self._clock.record("served")
            if self._observer is None:
                return False
            batch = self._batch
            if inputs is None or not self._looks(now):
                batch.gap = True
                return False
            batch.rows.append((inputs, outputs))
            batch.nbytes += sum(array.nbytes for array in inputs.values())
            batch.charged_s += self._cost_s
            self._allowance.spend(self._cost_s, now=now)
            if not batch.full:
                return True
            self._full.append(batch)
            self._batch = Batch()
        _aside.submit(self.compute)
        return True

    def compute(self) -> None:
        """Statistics of the batches that are full."""
        with self._computing:
            with self._lock:
                batches, self._full = self._full, []
            self._observe(batches)

    def missed(self, outcome: Outcome, count: int = 1) -> None:
        """Requests ended without a result."""
        with self._lock:
            self._clock.record(outcome, count)

    @property
    def due(self) -> float:
        """When the open window ends, monotonic seconds."""
        with self._lock:
            return self._clock.due

    def close(self, *, now: float, wall_ms: int) -> Window | None:
        """End the window; None where no request came. The outbox gives it its number."""
        from edgeml.statistics import pack

        statistics: list[bytes] = []
        rows = 0
        with self._computing:
            with self._lock:
                closed = self._clock.close(now=now, wall_ms=wall_ms)
                batches = [*self._full, self._batch]
                self._full, self._batch = [], Batch(gap=not self._batch.rows and self._batch.gap)
            if self._observer is not None and closed is not None:
                self._observe(batches)
                rows = self._observer.rows
                taken, grids = self._observer.take(), self._observer.grids
                statistics = [pack(counts, grids[name]) for name, counts in taken.items()]
        if closed is None:
            return None
        boot, model, version, bundle, artifact = self._names
        return Window(
            boot=boot,
            sequence=1,
            oldest=1,
            model=model,
            version=version,
            bundle=bundle,
            artifact=artifact,
            start_ms=closed.start_ms,
            duration_ms=closed.duration_ms,
            rows=rows,
            outcomes=closed.outcomes,
            baseline=self._baseline,
            statistics=statistics,
        )

    def _looks(self, now: float) -> bool:
        """A batch that was begun is filled: its samples follow each other, and its cost is shared
        by as many as there can be."""
        return bool(self._batch.rows) or self._allowance.allows(now=now)

    def _observe(self, batches: Sequence[Batch]) -> None:
        began_s = time.thread_time()
        for batch in batches:
            if batch.rows:
                self._observe_one(batch)
        took_s = time.thread_time() - began_s
        charged_s = sum(batch.charged_s for batch in batches)
        rows = sum(len(batch.rows) for batch in batches)
        with self._lock:
            if rows:
                self._cost_s = took_s / rows
            self._allowance.spend(took_s - charged_s, now=time.monotonic())

    def _observe_one(self, batch: Batch) -> None:
        """A fault in statistics must not end what they only look at."""
        assert self._observer is not None
        try:
            # NaN and infinity are for the statistics to count, not for NumPy to warn of.
            with np.errstate(all="ignore"):
                self._observer.observe(
                    _joined([inputs for inputs, _ in batch.rows]),
                    _joined([outputs for _, outputs in batch.rows]),
                    gap=batch.gap,
                )
        except Exception:  # noqa: BLE001 - whatever a strange sample makes NumPy do
            logs.fault("statistics fault", model=self._names[1], rows=len(batch.rows))


def _joined(rows: Sequence[Tensors]) -> dict[str, Array]:
    return {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}
