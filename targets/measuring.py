"""Latency and memory of an artifact, measured in a process that does nothing else.

:func:`measure` starts ``python -m edgeml.targets.measuring``, which opens the artifact, runs it on
real samples and answers with one JSON document. A process of its own, since a resident set that has
once held something else says nothing. Light: it runs on devices too.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import msgspec
import numpy as np

from edgeml import errors, machine
from edgeml.bundle.manifest import Measurement
from edgeml.decoding import from_json
from edgeml.errors import EdgemlError, ToolchainError
from edgeml.processes import describe_exit, dying_with, ending_with_us
from edgeml.targets.runtime import NamedSession, opener

WARM_UP = 10
"""Runs before the clock counts: caches fill, lazy kernels are built."""

WARM_AGAIN = 2
"""Likewise, where others have run in between."""

MIN_RUNS = 100
"""Fewer say nothing about a 99th percentile."""

MAX_RUNS = 1000
"""More change nothing: ten of them are beyond the 99th percentile."""

MIN_SECONDS = 1.0
"""Between :data:`MIN_RUNS` and :data:`MAX_RUNS`, runs go on until this much time was measured."""


class MeasureJob(msgspec.Struct, frozen=True, kw_only=True):
    """What to measure.

    Attributes:
        target: the target.
        entry: the artifact's first file.
        inputs: source name to runtime name.
        outputs: likewise.
        samples: an ``.npz`` with an array [n, ...] an input, under the source's names.
        options: the artifact's session options.
        threads: of the runtime.
    """

    target: str
    entry: Path
    inputs: dict[str, str]
    outputs: dict[str, str]
    samples: Path
    options: dict[str, str] = {}
    threads: int = 1


class _Failed(msgspec.Struct, frozen=True, kw_only=True, tag="failed"):
    error: str
    found: str
    expected: str
    remedy: str


class _Measured(msgspec.Struct, frozen=True, kw_only=True, tag="measured"):
    measurement: Measurement


def measure(job: MeasureJob) -> Measurement:
    """Measure an artifact in a fresh process of this interpreter.

    Raises:
        RefusedError: the target cannot run here.
        SourceError: the artifact cannot be opened.
        ToolchainError: the process died.
    """
    process = subprocess.Popen(
        [sys.executable, *(["-P"] if sys.version_info >= (3, 11) else []), "-m", __name__],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
        preexec_fn=dying_with(os.getpid()),
    )
    with ending_with_us(process):
        answer, chatter = process.communicate(msgspec.json.encode(job, enc_hook=str))
    try:
        outcome = from_json(answer, _Measured | _Failed)
    except msgspec.DecodeError:
        last = chatter.decode(errors="replace").strip().splitlines()[-2:]
        raise ToolchainError(
            f"Measuring {job.target} ended with {describe_exit(process.returncode)}: "
            f"{' | '.join(last) or 'it printed nothing'}",
        ) from None
    if isinstance(outcome, _Failed):
        kind = getattr(errors, outcome.error, EdgemlError)
        raise kind(outcome.found, expected=outcome.expected, remedy=outcome.remedy)
    return outcome.measurement


def measure_here(job: MeasureJob) -> Measurement:
    """Measure in this process, on as many cores as there are threads.

    Its peak memory counts whatever this process ever held, and it stays on those cores.
    """
    with Meter(job) as meter:
        meter.run()
        return meter.result()


class Meter:
    """A measurement in this process, all at once or in turns with others' in theirs. A context
    manager.

    The load time is that of opening the artifact, from its file to a session that can run, on as
    many cores as there are threads; the runtime library is imported by then, since that takes as
    long for every artifact of the target. It is in all figures of memory.

    Args:
        job: what to measure.
        turns: how many there will be.

    Raises:
        EdgemlError: the artifact cannot be opened or run.
    """

    def __init__(self, job: MeasureJob, *, turns: int = 1) -> None:
        self._job = job
        self._cores = pin(job.threads)
        with np.load(job.samples, allow_pickle=False) as arrays:
            samples = {name: arrays[name] for name in job.inputs}
        count = len(next(iter(samples.values())))
        opened = opener(job.target)
        began = time.perf_counter()
        session = opened(job.entry, threads=job.threads, options=job.options)
        self._named = NamedSession(session, job.inputs, job.outputs)
        self._load_ms = (time.perf_counter() - began) * 1000
        self._loading = peak_rss_bytes()
        self._feeds = [_row(samples, index) for index in range(min(count, MAX_RUNS))]
        self._turns = turns
        self._taken: list[float] = []
        self._medians: list[float] = []

    def __enter__(self) -> Meter:
        return self

    def __exit__(self, *_: object) -> None:
        self._named.close()

    def run(self) -> float:
        """Take a turn; returns the median of its runs, in ms."""
        for index in range(WARM_AGAIN if self._medians else WARM_UP):
            self._named.run(self._feeds[index % len(self._feeds)])
        taken: list[float] = []
        least, most, seconds = (each / self._turns for each in (MIN_RUNS, MAX_RUNS, MIN_SECONDS))
        began = time.perf_counter()
        while len(taken) < most and (len(taken) < least or time.perf_counter() - began < seconds):
            feed = self._feeds[(len(self._taken) + len(taken)) % len(self._feeds)]
            start = time.perf_counter_ns()
            self._named.run(feed)
            taken.append((time.perf_counter_ns() - start) / 1e6)
        self._taken += taken
        self._medians.append(round(float(np.median(taken)), 4))
        return self._medians[-1]

    def result(self) -> Measurement:
        """What was measured in all turns."""
        steady = rss_bytes()
        return Measurement(
            machine=machine.processor(),
            isa=machine.isa(),
            threads=self._job.threads,
            samples=len(self._taken),
            load_ms=round(self._load_ms, 3),
            p50_ms=round(float(np.percentile(self._taken, 50)), 4),
            p99_ms=round(float(np.percentile(self._taken, 99)), 4),
            peak_rss_mb=round(peak_rss_bytes() / 1e6, 1),
            loading_rss_mb=round(self._loading / 1e6, 1),
            steady_rss_mb=round(steady / 1e6, 1) if steady else None,
            cores=self._cores,
            turns_ms=tuple(self._medians) if self._turns > 1 else (),
        )


def pin(threads: int) -> int | None:
    """Bind this process to so many cores, or to all where there are fewer: a thread is a thread.

    Returns:
        How many they are; None where the system has no such call, or forbids it.
    """
    try:
        # The last ones: interrupts and the system's own work prefer the first.
        cores = sorted(os.sched_getaffinity(0))[-max(1, threads) :]
        os.sched_setaffinity(0, cores)
    except (AttributeError, OSError):
        return None
    return len(cores)


def rss_bytes() -> int:
    """The resident set of this process now, in bytes; 0 where the system does not tell."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:")) * 1024
    except (OSError, StopIteration):
        return 0


def peak_rss_bytes() -> int:
    """The largest resident set that this process has had, in bytes.

    Not ``getrusage``: its figure lives through ``exec`` and so begins with the parent's.
    """
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) * 1024
    except (OSError, StopIteration):
        import resource

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024


def _row(samples: Mapping[str, np.ndarray], index: int) -> dict[str, np.ndarray]:
    return {name: np.ascontiguousarray(array[index : index + 1]) for name, array in samples.items()}


def _main() -> None:
    answer = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # runtimes print; the answer must stand alone
    job = from_json(sys.stdin.buffer.read(), MeasureJob, hook=_path)
    try:
        outcome = _Measured(measurement=measure_here(job))
    except EdgemlError as error:
        outcome = _Failed(
            error=type(error).__name__,
            found=error.found,
            expected=error.expected,
            remedy=error.remedy,
        )
    with answer:
        answer.write(msgspec.json.encode(outcome))


def _path(_: type, value: object) -> Path:
    return Path(str(value))


if __name__ == "__main__":
    _main()
