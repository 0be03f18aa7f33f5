"""Which artifacts of a bundle can run here, by the same rules as the agent."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from edgeml.bundle import Artifact, Bundle
from edgeml.device_agent.install.selection import select
from edgeml.errors import RefusedError
from edgeml.targets.host import can_run_here, host_facts
from edgeml.targets.runtime import NamedSession, open_session


def runnable(bundle: Bundle, wanted: str | None) -> tuple[list[Artifact], dict[str, str]]:
    """The artifacts that can run here, best first, and of the others why they cannot.

    Args:
        bundle: the bundle.
        wanted: a target or an artifact's id (``tflite-int8``): only that; None: all.

    Raises:
        UsageError: the bundle has nothing of that name.
        RefusedError: nothing that is wanted can run here.
    """
    facts = host_facts()

    def refusal(target: str) -> str | None:
        found = can_run_here(target, facts)
        return None if found is None else str(found)

    selection = select(bundle.manifest, refusal, wanted=wanted or "")
    refused = {each.artifact: each.reason for each in selection.rejected}
    if not selection.candidates:
        reasons = " ".join(f"{name}: {reason}" for name, reason in refused.items())
        raise RefusedError(f"Nothing in {bundle.path.name} can run here. {reasons}")
    return list(selection.candidates), refused


@contextmanager
def opened(bundle: Bundle, artifact: Artifact, *, threads: int = 1) -> Generator[NamedSession]:
    """Open an artifact under the source model's names, for as long as the block runs."""
    with TemporaryDirectory(prefix="edgeml-") as folder:
        entry = bundle.extract(artifact, Path(folder))
        session = open_session(
            artifact.target, entry, threads=threads, options=artifact.requires.options
        )
        with NamedSession(session, artifact.inputs, artifact.outputs) as named:
            yield named
