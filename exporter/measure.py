"""Latency and memory of an artifact: in a fresh process that holds nothing but the target's light
runtime, on one core, while nothing else of the export runs.
"""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from edgeml.bundle.manifest import Measurement
from edgeml.data import Samples
from edgeml.exporter.candidates import Candidate
from edgeml.exporter.child import Child
from edgeml.exporter.children import Children
from edgeml.targets.compiling import CompileResult
from edgeml.targets.host import can_run_here
from edgeml.targets.measuring import MeasureJob, measure_here
from edgeml.targets.registry import target as row_of

SAMPLES = 64
"""Real samples that a measurement runs through, over and over."""

MOST_BYTES = 4_000_000
"""Of all of them: they count as memory of the process. One is taken however large it is."""


MOST_WAITING = 8
"""Processes that wait for a measurement: some 30 MB each."""


class Bench:
    """Processes for measurements, one an artifact, which can be started while others still convert.

    They have imported what every measurement needs and sleep until it is their turn; the runtime
    comes with the artifact, so that its time and memory count.
    """

    def __init__(self, children: Children) -> None:
        self._children = children
        self._stack = ExitStack()
        # A child lives no longer than the thread that started it.
        self._starting = ThreadPoolExecutor(1)
        self._waiting: list[Future[Child]] = []

    def close(self) -> None:
        """End what is left of them."""
        self._starting.submit(self._stack.close)
        self._starting.shutdown()

    def expect(self, candidate: Candidate) -> None:
        """Start a process for an artifact that will be measured."""
        if not not_measurable(candidate.target) and len(self._waiting) < MOST_WAITING:
            self._waiting.append(self._starting.submit(self._start))

    def _start(self) -> Child:
        child = self._stack.enter_context(self._children.child())
        child.call("edgeml.exporter.measure:stand_by", None, int, step="A measurement")
        return child

    def settle(self) -> None:
        """Wait until all of them sleep."""
        for future in self._waiting:
            future.result()

    def take(self) -> Child:
        """A process that has measured nothing yet. It is ended with the bench, or by the caller."""
        if not self._waiting:
            self._waiting.append(self._starting.submit(self._start))
        return self._waiting.pop(0).result()


NO_GPU = (
    "an export computes on the CPU alone, where the artifact's answers are checked; `edgeml bench "
    "BUNDLE` measures it on a machine with the GPU, and an agent proves it there on installing it"
)
"""Why what needs a GPU is not measured, whether there is one or not: an export's children see none,
and its toolchain has the runtime for the CPU."""


def not_measurable(target: str) -> str:
    """Why a target's artifacts cannot be measured here; empty where they can."""
    if row_of(target).needs_nvidia:
        return NO_GPU
    refusal = can_run_here(target)
    return refusal.reason if refusal else ""


def samples_for(samples: Samples, path: Path) -> Path:
    """Write the samples that measurements use."""
    size = sum(array.nbytes for array in samples.inputs.values()) // max(1, len(samples))
    count = max(1, min(SAMPLES, MOST_BYTES // max(1, size)))
    few = {name: array[:count] for name, array in samples.inputs.items()}
    np.savez(path, allow_pickle=False, **few)
    return path


def measure(
    candidate: Candidate, made: CompileResult, samples: Path, bench: Bench
) -> tuple[Measurement | None, str]:
    """Measure an artifact in a fresh process: the figures, or why there are none.

    Args:
        candidate: which one.
        made: it.
        samples: of :func:`samples_for`.
        bench: has the process.

    Raises:
        EdgemlError: it cannot be opened or run here, or its process died.
    """
    why = not_measurable(candidate.target)
    if why:
        return None, why
    job = MeasureJob(
        target=candidate.target,
        entry=made.files[0],
        inputs=made.inputs,
        outputs=made.outputs,
        samples=samples,
        options=made.options,
    )
    child = bench.take()
    try:
        return child.call(
            "edgeml.exporter.measure:measure_alone",
            job,
            Measurement,
            step=f"The measurement of {candidate}",
        ), ""
    finally:
        child.close()


def stand_by(nothing: None) -> int:  # noqa: ARG001 - every call has a payload
    """In the child: this module's imports are all that there is to do."""
    return 0


def measure_alone(job: MeasureJob) -> Measurement:
    """In the child."""
    return measure_here(job)
