"""Latency and memory of an artifact: in a fresh process that holds nothing but the target's light
runtime, on one core, while nothing else of the export runs.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from edgeml.bundle.manifest import Measurement
from edgeml.data import Samples
from edgeml.exporter.candidates import Candidate
from edgeml.exporter.plan import Workshop
from edgeml.targets.compiling import CompileResult
from edgeml.targets.measuring import MeasureJob, measure_here
from edgeml.targets.registry import can_run_here

SAMPLES = 64
"""Real samples that a measurement runs through, over and over."""

MOST_BYTES = 4_000_000
"""Of all of them: they count as memory of the process. One is taken however large it is."""


def not_measurable(target: str) -> str:
    """Why a target's artifacts cannot be measured here; empty where they can."""
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
    candidate: Candidate, made: CompileResult, samples: Path, shop: Workshop
) -> tuple[Measurement | None, str]:
    """Measure an artifact in a new child: the figures, or why there are none.

    Args:
        candidate: which one.
        made: it.
        samples: of :func:`samples_for`.
        shop: where to work.

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
    with shop.children.child() as child:
        return child.call(
            "edgeml.exporter.measure:measure_alone",
            job,
            Measurement,
            step=f"The measurement of {candidate}",
        ), ""


def measure_alone(job: MeasureJob) -> Measurement:
    """In the child."""
    return measure_here(job)
