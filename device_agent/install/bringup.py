"""From a checked bundle to a worker that has proved itself: choose, extract, load, compare.

Artifacts are tried in the order of :mod:`~edgeml.device_agent.install.selection` until one
reproduces the golden vectors; each that does not is listed with its reason.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from edgeml.bundle import Bundle, Manifest, Tensor
from edgeml.bundle.parity import compare, shortfall
from edgeml.device_agent.install.selection import Rejected, select
from edgeml.device_agent.serving.profiles import Profiles, measure
from edgeml.device_agent.serving.progress import Progress
from edgeml.device_agent.serving.runner import Runner, Starter, Variant
from edgeml.device_agent.worker.layout import Array, Layout, TensorSpec
from edgeml.device_agent.worker.parent import WorkerError
from edgeml.errors import AgentError
from edgeml.targets.host import can_run_here, host_facts
from edgeml.targets.registry import TARGETS

_TRIES = 2
"""Measurements before an artifact is refused for its time: the device may have been busy."""

_CLEARLY = 0.9
"""A step on the ladder must cost less than this share of the one above it."""


class Proved(NamedTuple):
    """The runner of an artifact that may serve.

    Attributes:
        runner: with its model loaded, and proved.
        ladder: its variant, and others that were not tried, each cheaper than the one before.
        rejected: artifacts that were tried or passed over before it.
    """

    runner: Runner
    ladder: tuple[Variant, ...]
    rejected: tuple[Rejected, ...]


def bring_up(
    bundle: Bundle,
    candidates: Sequence[Variant],
    rejected: list[Rejected],
    *,
    starter: Starter,
    profiles: Profiles,
    progress: Progress,
    before: Bundle | None,
    deadline_s: float | None,
    cancelled: Callable[[], bool],
) -> Proved:
    """Find an artifact that serves here.

    Args:
        bundle: of the candidates.
        candidates: see :func:`variants`.
        rejected: those that were passed over before.
        starter: of workers.
        profiles: of this device; an artifact that has none is measured.
        progress: is told of each.
        before: the version that serves now, whose artifacts tell how long this one's may take.
        deadline_s: refuse what does not meet it here; None for whatever it takes.
        cancelled: asked between artifacts; the agent may be told to end meanwhile.

    Raises:
        AgentError: none does; the message lists each with its reason.
    """
    manifest = bundle.manifest
    for index, variant in enumerate(candidates):
        if cancelled():
            break
        with progress.of(variant, expected_s=_expected_s(variant, before, profiles)) as loaded:
            try:
                runner = starter.load(variant)
            except WorkerError as error:
                rejected.append(Rejected(variant.artifact.id, str(error)))
                continue
            loaded()
            try:
                with starter.trying(runner):
                    timeout_s = starter.start_timeout_s
                    reason = qualify(runner, timeout_s, profiles, deadline_s=deadline_s)
            except WorkerError as error:
                reason = runner.watched.memory_breach() or str(error)
        if not reason:
            return Proved(runner, cheaper(candidates[index:]), tuple(rejected))
        starter.stop(runner)
        rejected.append(Rejected(variant.artifact.id, reason))
    reasons = "; ".join(f"{entry.artifact}: {entry.reason.rstrip('.')}" for entry in rejected)
    raise AgentError(
        f"No artifact of {manifest.name} {manifest.version} serves on this machine: {reasons}",
        expected="one whose runtime is installed and that reproduces the golden vectors",
        remedy="Install a runtime, or export the model for this machine: see `edgeml targets`.",
    )


def variants(
    bundle: Bundle,
    *,
    wanted: str,
    threads: int,
    limit_bytes: int | None,
    folder: Path,
    profiles: Profiles,
) -> tuple[list[Variant], list[Rejected]]:
    """The artifacts that may be tried here, best first, and those that may not.

    Args:
        bundle: open, its hashes checked.
        wanted: an artifact or a target, or empty for all.
        threads: of the runtime.
        limit_bytes: of each worker's memory; None for no limit.
        folder: to extract into.
        profiles: of this device.
    """
    layout = _layout(bundle.manifest)
    facts = host_facts()

    def refusal(target: str) -> str | None:
        if target not in TARGETS:
            return f"this edgeml knows no target {target}"
        found = can_run_here(target, facts)
        return str(found) if found else None

    selection = select(bundle.manifest, refusal, wanted=wanted)
    found = [
        Variant(
            bundle,
            artifact,
            folder=folder / artifact.id,
            layout=layout,
            threads=threads,
            limit_bytes=limit_bytes,
        )
        for artifact in selection.candidates
    ]
    for variant in found:
        variant.profile = profiles.load(bundle.sha256, variant.artifact.id)
    return found, list(selection.rejected)


def qualify(
    runner: Runner, timeout_s: float, profiles: Profiles, *, deadline_s: float | None
) -> str:
    """Whether an artifact may serve here: it does what the source model did, in time. Measures what
    it costs where that is not known.

    Returns:
        What is wrong with it, or nothing.

    Raises:
        WorkerError: the worker did not survive it.
        AgentError: the artifact was never compared with the source model.
    """
    missed = prove(runner, timeout_s)
    if missed:
        return f"it does not reproduce the golden vectors: {missed}"
    variant = runner.variant
    allowed_ms = float("inf") if deadline_s is None else deadline_s * 1000
    for _ in range(_TRIES):
        if variant.profile is not None and variant.profile.p99_ms <= allowed_ms:
            return ""
        golden = variant.bundle.golden()
        variant.profile = measure(runner, golden, timeout_s=timeout_s)
        profiles.save(variant.profile)
        if variant.profile.p99_ms <= allowed_ms:
            return ""
    assert variant.profile is not None
    return (
        f"its 99th percentile on this device is {variant.profile.p99_ms:.1f} ms, "
        f"the deadline is {allowed_ms:g} ms"
    )


def _expected_s(variant: Variant, before: Bundle | None, profiles: Profiles) -> float | None:
    """What it took to load an artifact the last time, or for the first time that of the version
    before: another version's engine is built anew, but much in the same time."""
    if variant.profile is not None:
        return variant.profile.load_ms / 1000
    known = before and profiles.load(before.sha256, variant.artifact.id)
    return known.first_load_ms / 1000 if known else None


def cheaper(candidates: Sequence[Variant]) -> tuple[Variant, ...]:
    """The first, and of the others those that cost less, the dearest first. By the median measured
    here, else by the exporter; where one was not measured, by the size of the files."""
    first, *others = candidates
    below = [variant for variant in others if _is_cheaper(variant, first)]
    rungs = [first]
    for variant in sorted(below, key=_cost, reverse=True):
        if _is_cheaper(variant, rungs[-1]):
            rungs.append(variant)
    return tuple(rungs)


def _is_cheaper(one: Variant, other: Variant) -> bool:
    if _p50_ms(one) is None or _p50_ms(other) is None:
        return one.artifact.bytes < other.artifact.bytes * _CLEARLY
    return (_p50_ms(one) or 0.0) < (_p50_ms(other) or 0.0) * _CLEARLY


def _cost(variant: Variant) -> tuple[float, int]:
    return _p50_ms(variant) or 0.0, variant.artifact.bytes


def _p50_ms(variant: Variant) -> float | None:
    if variant.profile is not None:
        return variant.profile.p50_ms
    return variant.artifact.measured.p50_ms if variant.artifact.measured is not None else None


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
