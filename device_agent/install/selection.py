"""Which artifacts of a bundle to try on this machine, best first. Pure.

Facts come in as an argument: the registry's refusal for each target that cannot run here.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from edgeml.bundle.manifest import Artifact, Manifest
from edgeml.errors import BundleError, UsageError


class Rejected(msgspec.Struct, frozen=True):
    """An artifact that was not tried, or failed, and why."""

    artifact: str
    reason: str


class Selection(msgspec.Struct, frozen=True):
    """Artifacts worth a try, best first, and those that are not."""

    candidates: tuple[Artifact, ...]
    rejected: tuple[Rejected, ...]


def select(
    manifest: Manifest, refusal: Callable[[str], str | None], *, wanted: str = ""
) -> Selection:
    """Rank a bundle's artifacts.

    Chosen before not chosen, measured before not measured, and then by the exporter's p50; the
    memory budget is a reason to go later, since the peak was measured on another machine. The
    manifest's order decides what is left.

    Args:
        manifest: of the bundle.
        refusal: why a target cannot run here, or None where it can.
        wanted: an artifact's id, or a target: only that is tried.

    Raises:
        UsageError: the bundle holds nothing that is called ``wanted``.
    """
    artifacts = manifest.artifacts
    if wanted:
        artifacts = _named(manifest, wanted)
    candidates: list[Artifact] = []
    rejected: list[Rejected] = []
    for artifact in artifacts:
        reason = refusal(artifact.target)
        if reason is None:
            candidates.append(artifact)
        else:
            rejected.append(Rejected(artifact.id, reason))
    limit = manifest.budgets.memory_mb
    candidates.sort(key=lambda artifact: _rank(artifact, limit))
    return Selection(tuple(candidates), tuple(rejected))


def _named(manifest: Manifest, wanted: str) -> tuple[Artifact, ...]:
    exact = tuple(artifact for artifact in manifest.artifacts if artifact.id == wanted)
    of_target = tuple(artifact for artifact in manifest.artifacts if artifact.target == wanted)
    if exact or of_target:
        return exact or of_target
    try:
        manifest.artifact(wanted)
    except BundleError as error:
        raise UsageError(error.found, expected=error.expected, remedy=error.remedy) from error
    return ()


def _rank(artifact: Artifact, limit_mb: float | None) -> tuple[bool, bool, bool, float]:
    measured = artifact.measured
    too_large = bool(limit_mb and measured and measured.peak_rss_mb > limit_mb)
    return (
        too_large,
        not artifact.chosen,
        measured is None,
        measured.p50_ms if measured else 0.0,
    )
