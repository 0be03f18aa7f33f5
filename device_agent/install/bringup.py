"""From a checked bundle to a worker that has proved itself: choose, extract, load, compare.

Artifacts are tried in the order of :mod:`~edgeml.device_agent.install.selection` until one
reproduces the golden vectors; each that does not is listed with its reason.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from edgeml.bundle import Bundle, Manifest, Tensor
from edgeml.bundle.parity import compare, shortfall
from edgeml.device_agent.install.selection import Rejected, select
from edgeml.device_agent.serving.runner import Runner, Starter, Variant
from edgeml.device_agent.worker.layout import Array, Layout, TensorSpec
from edgeml.device_agent.worker.parent import WorkerError
from edgeml.errors import AgentError
from edgeml.targets.registry import TARGETS, can_run_here, host_facts


class Proved(NamedTuple):
    """The runner of an artifact that may serve.

    Attributes:
        runner: with its model loaded, and proved.
        ladder: its variant, and those that come after it, best first, not tried yet.
        rejected: artifacts that were tried or passed over before it.
    """

    runner: Runner
    ladder: tuple[Variant, ...]
    rejected: tuple[Rejected, ...]


def bring_up(
    bundle: Bundle,
    *,
    wanted: str,
    threads: int,
    folder: Path,
    starter: Starter,
    cancelled: Callable[[], bool],
) -> Proved:
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
    candidates, rejected = variants(bundle, wanted=wanted, threads=threads, folder=folder)
    for index, variant in enumerate(candidates):
        if cancelled():
            break
        try:
            runner = starter.load(variant)
        except WorkerError as error:
            rejected.append(Rejected(variant.artifact.id, str(error)))
            continue
        try:
            missed = prove(runner, starter.start_timeout_s)
            reason = missed and f"it does not reproduce the golden vectors: {missed}"
        except WorkerError as error:
            reason = runner.watched.memory_breach() or str(error)
        if not reason:
            return Proved(runner, tuple(candidates[index:]), tuple(rejected))
        starter.stop(runner)
        rejected.append(Rejected(variant.artifact.id, reason))
    reasons = "; ".join(f"{entry.artifact}: {entry.reason.rstrip('.')}" for entry in rejected)
    raise AgentError(
        f"No artifact of {manifest.name} {manifest.version} serves on this machine: {reasons}",
        expected="one whose runtime is installed and that reproduces the golden vectors",
        remedy="Install a runtime, or export the model for this machine: see `edgeml targets`.",
    )


def variants(
    bundle: Bundle, *, wanted: str, threads: int, folder: Path
) -> tuple[list[Variant], list[Rejected]]:
    """The artifacts that may be tried here, best first, and those that may not."""
    layout = _layout(bundle.manifest)
    facts = host_facts()

    def refusal(target: str) -> str | None:
        if target not in TARGETS:
            return f"this edgeml knows no target {target}"
        found = can_run_here(target, facts)
        return str(found) if found else None

    selection = select(bundle.manifest, refusal, wanted=wanted)
    found = [
        Variant(bundle, artifact, folder=folder / artifact.id, layout=layout, threads=threads)
        for artifact in selection.candidates
    ]
    return found, list(selection.rejected)


def prove(runner: Runner, timeout_s: float) -> str:
    """Whether an artifact, on this very machine, still does what the source model did: a model
    that is wrong in silence is worse than none.

    Returns:
        What it missed, or nothing.

    Raises:
        WorkerError: the worker did not survive it.
        AgentError: the artifact was never compared with the source model.
    """
    variant = runner.variant
    bundle, artifact = variant.bundle, variant.artifact
    if artifact.parity is None:
        raise AgentError(
            f"{artifact.id} of {bundle.manifest.name} was never compared with the source model: "
            f"{artifact.not_checked}",
            expected="an artifact that the export proved",
        )
    golden = bundle.golden()
    found: dict[str, list[Array]] = {name: [] for name in golden.outputs}
    for index in range(len(golden)):
        feeds = {name: array[index : index + 1] for name, array in golden.inputs.items()}
        begin = time.monotonic()
        results = runner.worker.run(feeds, timeout_s=timeout_s)
        if index:  # the first one warms caches
            variant.latency.add(time.monotonic() - begin)
        for name, rows in found.items():
            rows.append(results[name])
    variant.proof = compare(
        golden.outputs,
        {name: np.concatenate(rows) for name, rows in found.items()},
        {tensor.name for tensor in bundle.manifest.outputs if tensor.meaning == "scores"},
        artifact.parity.tolerance,
    )
    return shortfall(variant.proof, golden=True) or ""


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
