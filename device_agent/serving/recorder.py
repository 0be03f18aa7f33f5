"""One model's open window: counts what goes through, and closes it when it is due.

The model's own thread records, another one closes; a lock keeps them apart. Small samples are
gathered and their statistics computed together: on a single one, NumPy's calls cost more than their
work.
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
GATHER_BYTES = 256 * 1024
"""What is gathered before statistics are computed, whichever comes first: a large frame is worth
a computation of its own, and would only take memory."""


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
        self._rows = 0
        self._gathered: list[tuple[Mapping[str, Array], Mapping[str, Array]]] = []
        self._gathered_bytes = 0
        self._names = (boot, model, version, bundle, artifact)

    def served(self, inputs: Mapping[str, Array], outputs: Mapping[str, Array]) -> None:
        """A request was served: count it, and what went in and out."""
        with self._lock:
            self._clock.record("served")
            self._rows += 1
            if self._observer is None:
                return
            self._gathered.append((inputs, outputs))
            self._gathered_bytes += sum(array.nbytes for array in inputs.values())
            if len(self._gathered) >= GATHER_ROWS or self._gathered_bytes >= GATHER_BYTES:
                self._compute(self._observer)

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
        with self._lock:
            closed = self._clock.close(now=now, wall_ms=wall_ms)
            rows, self._rows = self._rows, 0
            statistics: list[bytes] = []
            if self._observer is not None and closed is not None:
                self._compute(self._observer)
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

    def _compute(self, observer: Observer) -> None:
        """Statistics of what was gathered. A fault in them must not end what they only look at."""
        gathered, self._gathered, self._gathered_bytes = self._gathered, [], 0
        if not gathered:
            return
        try:
            inputs = _joined([inputs for inputs, _ in gathered])
            observer.observe(inputs, _joined([outputs for _, outputs in gathered]))
        except Exception:  # noqa: BLE001 - whatever a strange sample makes NumPy do
            logs.LOG.exception("statistics fault", extra={"fields": {"rows": len(gathered)}})


def _joined(rows: Sequence[Mapping[str, Array]]) -> dict[str, Array]:
    return {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}
