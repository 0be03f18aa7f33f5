"""One model's open window: counts what goes through, and closes it when it is due.

Whoever served a request records it, and computes when enough has come together, after the answer
has gone out and while the next request may run: the lock that guards what was gathered is free
meanwhile. On a single sample NumPy's calls cost more than their work, hence the gathering.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence

import numpy as np

from edgeml.device_agent import logs
from edgeml.device_agent.serving.admission import Outcome
from edgeml.device_agent.serving.windows import WindowClock
from edgeml.device_agent.worker.layout import Array
from edgeml.statistics import Baseline, Observer, pack
from edgeml.telemetry import Window

GATHER_ROWS = 32
GATHER_BYTES = 1024 * 1024
"""What is gathered before statistics are computed, whichever comes first. Seven frames of a camera
at 224x224 cost two thirds of what they cost one by one; more only take memory."""

Gathered = list[tuple[Mapping[str, Array], Mapping[str, Array]]]


class Recorder:
    """Args:
    baseline: which statistics there are; None where the bundle has none.
    clock: of the windows.
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
        boot: str,
        model: str,
        version: str,
        bundle: str,
        artifact: str,
    ) -> None:
        self._observer = Observer(baseline) if baseline else None
        self._baseline = baseline.hash if baseline else ""
        self._clock = clock
        self._lock = threading.Lock()
        self._computing = threading.Lock()
        """Guards the observer; taken before the other one."""
        self._rows = 0
        self._gathered: Gathered = []
        self._gathered_bytes = 0
        self._names = (boot, model, version, bundle, artifact)

    def served(self, inputs: Mapping[str, Array], outputs: Mapping[str, Array]) -> bool:
        """A request was served: count it, and what went in and out.

        Returns:
            Whether it is time to :meth:`compute`.
        """
        with self._lock:
            self._clock.record("served")
            self._rows += 1
            if self._observer is None:
                return False
            self._gathered.append((inputs, outputs))
            for array in inputs.values():
                self._gathered_bytes += array.nbytes
            rows, nbytes = len(self._gathered), self._gathered_bytes
        return rows >= GATHER_ROWS or nbytes >= GATHER_BYTES

    def compute(self) -> None:
        """Statistics of what was gathered so far."""
        with self._computing:
            with self._lock:
                gathered = self._take()
            if self._observer is not None:
                self._observe(self._observer, gathered)

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
        statistics: list[bytes] = []
        with self._computing:
            with self._lock:
                closed = self._clock.close(now=now, wall_ms=wall_ms)
                rows, self._rows = self._rows, 0
                gathered = self._take()
            if self._observer is not None and closed is not None:
                self._observe(self._observer, gathered)
                statistics = [pack(counts) for counts in self._observer.take().values()]
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

    def _take(self) -> Gathered:
        gathered, self._gathered, self._gathered_bytes = self._gathered, [], 0
        return gathered

    def _observe(self, observer: Observer, gathered: Gathered) -> None:
        """A fault in statistics must not end what they only look at."""
        if not gathered:
            return
        try:
            # NaN and infinity are for the statistics to count, not for NumPy to warn of.
            with np.errstate(all="ignore"):
                inputs = _joined([inputs for inputs, _ in gathered])
                observer.observe(inputs, _joined([outputs for _, outputs in gathered]))
        except Exception:  # noqa: BLE001 - whatever a strange sample makes NumPy do
            logs.LOG.exception("statistics fault", extra={"fields": {"rows": len(gathered)}})


def _joined(rows: Sequence[Mapping[str, Array]]) -> dict[str, Array]:
    return {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}
