"""From a checked bundle to a worker that has proved itself: choose, extract, load, compare.

Artifacts are tried in the order of :mod:`~edgeml.device_agent.install.selection` until one
reproduces the golden vectors; each that does not is listed with its reason.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np

from edgeml.bundle import Artifact, Bundle, Manifest, Parity, Tensor
from edgeml.bundle.parity import compare, shortfall
from edgeml.device_agent.install.selection import Rejected, select
from edgeml.device_agent.limits.watch import Watch, Watched
from edgeml.device_agent.worker.layout import Array, Layout, TensorSpec
from edgeml.device_agent.worker.parent import Worker, WorkerError
from edgeml.device_agent.worker.wire import WorkerSpec
from edgeml.errors import AgentError
from edgeml.targets.registry import TARGETS, can_run_here, host_facts


class Starter:
    """How workers of one model are started, the first and those that replace it.

    Args:
        log: the worker's own output.
        start_timeout_s: to load the model; also bounds each golden vector.
        limit_bytes: of the resident set, or None. It holds while the model loads, too.
        watch: looks after it.
        gone: called by the watch when the worker is no more.
    """

    def __init__(
        self,
        *,
        log: Path,
        start_timeout_s: float,
        limit_bytes: int | None,
        watch: Watch,
        gone: Callable[[], None],
    ) -> None:
        self.start_timeout_s = start_timeout_s
        self._log = log
        self._limit_bytes = limit_bytes
        self._watch = watch
        self._gone = gone
        self._current: Worker | None = None
        self._aborted = False

    def start(self, spec: WorkerSpec) -> Watched:
        """A worker with its model loaded, under watch.

        Raises:
            WorkerError: it does not come up.
        """
        worker = Worker(spec, log=self._log)
        self._current = worker
        if self._aborted:
            worker.kill()
        watched = self._watch.add(worker, limit_bytes=self._limit_bytes, gone=self._gone)
        try:
            worker.wait_ready(self.start_timeout_s)
        except WorkerError as error:
            self.stop(watched)
            memory = exceeded(watched)
            if memory:
                raise WorkerError(memory) from error
            raise
        return watched

    def stop(self, watched: Watched) -> None:
        """Kill a worker and wait for its end."""
        self._watch.remove(watched)
        watched.worker.close()

    def abort(self) -> None:
        """Kill the latest worker and those to come, from any thread: nobody waits for them."""
        self._aborted = True
        if self._current is not None:
            self._current.kill()


class Serving(msgspec.Struct, frozen=True, kw_only=True):
    """An artifact that may serve, and its worker.

    Attributes:
        artifact: which one.
        spec: to start another worker of it.
        watched: the worker.
        proof: how near it came to the golden vectors.
        service_times: seconds of each golden vector but the first.
        warmup: inputs to run once on a new worker.
        rejected: artifacts that were tried or passed over before it.
    """

    artifact: Artifact
    spec: WorkerSpec
    watched: Watched
    proof: Parity
    service_times: tuple[float, ...]
    warmup: dict[str, Array]
    rejected: tuple[Rejected, ...]


def bring_up(
    bundle: Bundle,
    *,
    wanted: str,
    threads: int,
    folder: Path,
    starter: Starter,
    cancelled: Callable[[], bool],
) -> Serving:
    """Find an artifact that serves here.

    Args:
        bundle: open, its hashes checked.
        wanted: an artifact or a target, or empty for the best.
        threads: of the runtime.
        folder: to extract into.
        starter: of workers.
        cancelled: asked between artifacts; the agent may be told to end meanwhile.

    Raises:
        AgentError: none does; the message lists each with its reason.
        UsageError: the bundle holds nothing that is called ``wanted``.
    """
    manifest = bundle.manifest
    layout = _layout(manifest)
    facts = host_facts()

    def refusal(target: str) -> str | None:
        if target not in TARGETS:
            return f"this edgeml knows no target {target}"
        found = can_run_here(target, facts)
        return str(found) if found else None

    selection = select(manifest, refusal, wanted=wanted)
    rejected = list(selection.rejected)
    for artifact in selection.candidates:
        if cancelled():
            break
        spec = WorkerSpec(
            target=artifact.target,
            entry=str(bundle.extract(artifact, folder / artifact.id)),
            threads=threads,
            options=dict(artifact.requires.options),
            inputs=artifact.inputs,
            outputs=artifact.outputs,
            layout=layout,
        )
        try:
            watched = starter.start(spec)
        except WorkerError as error:
            rejected.append(Rejected(artifact.id, str(error)))
            continue
        try:
            proof, times = _prove(bundle, artifact, watched.worker, starter.start_timeout_s)
            warmup = {name: array[:1] for name, array in bundle.golden().inputs.items()}
            missed = shortfall(proof, golden=True)
            reason = missed and f"it does not reproduce the golden vectors: {missed}"
        except WorkerError as error:
            proof, times, warmup = None, (), {}
            reason = exceeded(watched) or str(error)
        if proof is not None and not reason:
            return Serving(
                artifact=artifact,
                spec=spec,
                watched=watched,
                proof=proof,
                service_times=times,
                warmup=warmup,
                rejected=tuple(rejected),
            )
        starter.stop(watched)
        rejected.append(Rejected(artifact.id, reason))
    reasons = "; ".join(f"{entry.artifact}: {entry.reason.rstrip('.')}" for entry in rejected)
    raise AgentError(
        f"No artifact of {manifest.name} {manifest.version} serves on this machine: {reasons}",
        expected="one whose runtime is installed and that reproduces the golden vectors",
        remedy="Install a runtime, or export the model for this machine: see `edgeml targets`.",
    )


def exceeded(watched: Watched) -> str:
    """A sentence where the worker was killed for its memory, or nothing."""
    if not watched.exceeded_bytes or watched.limit_bytes is None:
        return ""
    return (
        f"its worker had {watched.exceeded_bytes / 1e6:.0f} MB resident, "
        f"{watched.limit_bytes / 1e6:.0f} MB are allowed"
    )


def _prove(
    bundle: Bundle, artifact: Artifact, worker: Worker, timeout_s: float
) -> tuple[Parity, tuple[float, ...]]:
    """Whether an artifact, on this very machine, still does what the source model did: a model
    that is wrong in silence is worse than none."""
    if artifact.parity is None:
        raise AgentError(
            f"{artifact.id} of {bundle.manifest.name} was never compared with the source model: "
            f"{artifact.not_checked}",
            expected="an artifact that the export proved",
        )
    golden = bundle.golden()
    found: dict[str, list[Array]] = {name: [] for name in golden.outputs}
    times: list[float] = []
    for index in range(len(golden)):
        feeds = {name: array[index : index + 1] for name, array in golden.inputs.items()}
        begin = time.monotonic()
        results = worker.run(feeds, timeout_s=timeout_s)
        times.append(time.monotonic() - begin)
        for name, rows in found.items():
            rows.append(results[name])
    proof = compare(
        golden.outputs,
        {name: np.concatenate(rows) for name, rows in found.items()},
        {tensor.name for tensor in bundle.manifest.outputs if tensor.meaning == "scores"},
        artifact.parity.tolerance,
    )
    return proof, tuple(times[1:])  # the first one warms caches


def _layout(manifest: Manifest) -> Layout:
    def fixed(tensors: tuple[Tensor, ...]) -> tuple[TensorSpec, ...]:
        for tensor in tensors:
            if any(axis < 1 for axis in tensor.shape):
                raise AgentError(
                    f"'{tensor.name}' of {manifest.name} has the open shape {list(tensor.shape)}",
                    expected="a fixed size on every axis: its memory is set aside at the start",
                    remedy="Export the model with fixed shapes.",
                )
        return tuple(TensorSpec(t.name, t.shape, t.dtype) for t in tensors)

    return Layout(fixed(manifest.inputs), fixed(manifest.outputs))
