"""Latency and memory of an artifact: in a fresh process that holds nothing but the target's light
runtime, on one core, while nothing else of the export runs.

A core that is shared, or whose clock changes, can be half as fast for seconds on end. So artifacts
that are to be compared take turns of some milliseconds each, and a slow spell falls on all of them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import msgspec

from edgeml.bundle.manifest import Measurement
from edgeml.data import Samples
from edgeml.errors import DoesNotRunError, EdgemlError
from edgeml.exporter.candidates import Candidate
from edgeml.exporter.child import Child
from edgeml.exporter.children import Children
from edgeml.npz import save_npz
from edgeml.targets.compiling import CompileResult
from edgeml.targets.host import can_run_here
from edgeml.targets.measuring import MeasureJob, Meter, measure_here, pin
from edgeml.targets.registry import target as row_of
from edgeml.targets.runtime import opener

SAMPLES = 64
"""Real samples that a measurement runs through, over and over."""

MOST_BYTES = 4_000_000
"""Of all of them: they count as memory of the process. One is taken however large it is."""


TURNS = 20
"""Of each artifact that is compared with another one."""

MOST_TOGETHER = 500_000_000
"""Bytes of the artifacts that are held in memory at once to take turns."""

MOST_WAITING = 8
"""Processes that wait for a measurement: 45 MB each with LiteRT, 55 with ONNX Runtime, 60 with
OpenVINO, of which half is files that they share."""

_HEAVY = frozenset({"executorch"})
"""Targets whose runtime is too much to wait with: ExecuTorch's is torch, of 390 MB."""


class Bench:
    """Processes for measurements, one an artifact, which can be started while others still convert.

    They have imported what a measurement needs, with the target's runtime, each on the one core
    that it stays on, and sleep until it is their turn.
    """

    def __init__(self, children: Children) -> None:
        self._children = children
        self._stack = ExitStack()
        # A child lives no longer than the thread that started it.
        self._starting = ThreadPoolExecutor(1)
        self._waiting: list[tuple[str, Future[Child]]] = []

    def close(self) -> None:
        """End what is left of them."""
        self._starting.submit(self._stack.close)
        self._starting.shutdown()

    def expect(self, candidate: Candidate) -> None:
        """Start a process for an artifact that will be measured."""
        if not not_measurable(candidate.target) and len(self._waiting) < MOST_WAITING:
            self._start(candidate.target)

    def _start(self, target: str) -> None:
        self._waiting.append((target, self._starting.submit(self._started, target)))

    def _started(self, target: str) -> Child:
        child = self._stack.enter_context(self._children.child())
        child.call("edgeml.exporter.measure:stand_by", target, str, step="A measurement")
        return child

    def settle(self) -> None:
        """Wait until all of them sleep."""
        for _, future in self._waiting:
            future.result()

    def take(self, target: str) -> Child:
        """A process that has measured nothing yet and has imported nothing but the target's
        runtime. It is ended with the bench, or by the caller."""
        if target not in (name for name, _ in self._waiting):
            self._start(target)
        first = next(each for each in self._waiting if each[0] == target)
        self._waiting.remove(first)
        return first[1].result()


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
    save_npz(path, few)
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
        DoesNotRunError: it cannot be opened or run here, or its process died.
    """
    why = not_measurable(candidate.target)
    if why:
        return None, why
    child = bench.take(candidate.target)
    try:
        return child.call(
            "edgeml.exporter.measure:measure_alone",
            _job(candidate, made, samples),
            Measurement,
            step=f"The measurement of {candidate}",
        ), ""
    except EdgemlError as error:
        raise DoesNotRunError(error.found, expected=error.expected, remedy=error.remedy) from error
    finally:
        child.close()


def together(made: Mapping[Candidate, CompileResult]) -> bool:
    """Whether artifacts of one target are measured in turns: several, that fit into memory
    together."""
    return len(made) > 1 and fit_together(made)


def fit_together(made: Mapping[Candidate, CompileResult]) -> bool:
    """Whether artifacts can be measured here, and be held in memory at once."""
    size = sum(file.stat().st_size for result in made.values() for file in result.files)
    measurable = not any(not_measurable(each.target) for each in made)
    return measurable and size <= MOST_TOGETHER


def measure_in_turns(
    made: Mapping[Candidate, CompileResult], samples: Path, bench: Bench
) -> dict[Candidate, Measurement]:
    """Measure artifacts that will be compared, each in a fresh process, in turns; every other round
    goes backwards. Takes as long as one after the other does.

    Args:
        made: those of one target that can be measured.
        samples: of :func:`samples_for`.
        bench: has the processes.

    Raises:
        EdgemlError: as :func:`measure` does.
    """
    with ExitStack() as stack:
        taking: list[tuple[Candidate, Child]] = []
        for candidate, result in made.items():
            child = bench.take(candidate.target)
            stack.callback(child.close)
            job = InTurns(_job(candidate, result, samples), TURNS)
            step = f"The measurement of {candidate}"
            child.call("edgeml.exporter.measure:load", job, int, step=step)
            taking.append((candidate, child))
        for turn in range(TURNS):
            for candidate, child in taking if turn % 2 == 0 else reversed(taking):
                step = f"The measurement of {candidate}"
                child.call("edgeml.exporter.measure:take_turn", None, float, step=step)
        return {
            candidate: child.call(
                "edgeml.exporter.measure:measured",
                None,
                Measurement,
                step=f"The measurement of {candidate}",
            )
            for candidate, child in taking
        }


def _job(candidate: Candidate, made: CompileResult, samples: Path) -> MeasureJob:
    return MeasureJob(
        target=candidate.target,
        entry=made.files[0],
        inputs=made.inputs,
        outputs=made.outputs,
        samples=samples,
        options=made.options,
    )


class InTurns(msgspec.Struct, frozen=True):
    """A measurement that others take turns with, as it goes to a child."""

    job: MeasureJob
    turns: int


_meters: list[Meter] = []
"""In the child: of the artifact that it holds."""


def load(asked: InTurns) -> int:
    """In the child: open the artifact."""
    _meters.append(Meter(asked.job, turns=asked.turns))
    return 0


def take_turn(nothing: None) -> float:  # noqa: ARG001 - every call has a payload
    """In the child."""
    return _meters[-1].run()


def measured(nothing: None) -> Measurement:  # noqa: ARG001 - every call has a payload
    """In the child: of all turns."""
    return _meters[-1].result()


def stand_by(target: str) -> str:
    """In the child: import what artifacts of a target need, beside this module's imports."""
    pin(1)
    if target not in _HEAVY:
        with contextlib.suppress(EdgemlError, ImportError):  # it fails again with the artifact
            opener(target)
    return target


def measure_alone(job: MeasureJob) -> Measurement:
    """In the child."""
    return measure_here(job)
