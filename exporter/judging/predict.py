"""What an artifact makes of samples: in a child with nothing but the target's light runtime.

The session stays open between calls, so that a check can go on from where it stopped.
"""

from __future__ import annotations

import importlib
from pathlib import Path

import msgspec

from edgeml.columns import rows, writers
from edgeml.targets.registry import target as row_of
from edgeml.targets.runtime import NamedSession, open_session


class PredictJob(msgspec.Struct, frozen=True, kw_only=True):
    """An artifact and the samples to run through it."""

    target: str
    """Whose runtime is to run it."""
    entry: Path
    inputs: dict[str, str]
    outputs: dict[str, str]
    options: dict[str, str]
    names: tuple[str, ...]
    """Of the source's inputs, in the order of ``samples``."""
    samples: tuple[Path, ...]
    """An ``.npy`` an input."""
    results: tuple[Path, ...]
    """Where to write an ``.npy`` an output, in the order of ``outputs``."""
    rows: tuple[int, ...] | None = None
    """Which samples, in this order; None for all."""


_open: dict[Path, NamedSession] = {}
"""At most one."""


def stand_by(target: str) -> str:
    """In the child: import what a target's artifacts need, but for the runtime itself."""
    importlib.import_module(row_of(target).runtime)
    return target


def predict(job: PredictJob) -> int:
    """In the child: run the samples one by one and write what comes out; returns how many."""
    session = _session(job)
    with writers(job.results) as results:
        into = dict(zip(job.outputs, results, strict=True))
        for sample in rows(job.samples, job.rows):
            for name, array in session.run(dict(zip(job.names, sample, strict=True))).items():
                into[name].append(array)
    return results[0].count


def _session(job: PredictJob) -> NamedSession:
    if job.entry not in _open:
        while _open:
            _open.popitem()[1].close()
        session = open_session(job.target, job.entry, options=job.options)
        _open[job.entry] = NamedSession(session, job.inputs, job.outputs)
    return _open[job.entry]
