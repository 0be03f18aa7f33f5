"""``edgeml agent deploy``, ``rollback`` and ``dismiss``: versions of a running agent's models."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from edgeml.bundle import open_bundle
from edgeml.cli.shared import write_json
from edgeml.decoding import from_plain
from edgeml.device_agent.install.installer import Change
from edgeml.errors import UsageError

if TYPE_CHECKING:
    from edgeml.device_agent.local.client import Client

PATIENCE_S = 3600.0
"""To prove an artifact on a device, where TensorRT may build its engine."""


def deploy(client: Client, bundle: Path, *, model: str, shadow: bool, split: float) -> Change:
    """Install a bundle.

    Args:
        client: of the agent.
        bundle: its path, as the agent sees it, too.
        model: its name; that of the bundle where it is empty.
        shadow: beside what serves, on copies of requests.
        split: beside what serves, for this share of the requests; 0 for neither.

    Raises:
        UsageError: shadow and split at once.
        BundleError: it is no bundle.
        CallError: the agent refused it; what served serves on.
    """
    if shadow and split:
        raise UsageError("Both --shadow and --split were given", expected="one of them")
    name = model or open_bundle(bundle).manifest.name
    document: dict[str, Any] = {"bundle": str(bundle.absolute())}
    if shadow:
        document["mode"] = "shadow"
    if split:
        document |= {"mode": "split", "share": split}
    return from_plain(client.post(f"/edgeml/v1/models/{name}/versions", document), Change)


def rollback(client: Client, model: str) -> Change:
    """Go back.

    Raises:
        CallError: there is nothing to go back to.
    """
    return from_plain(client.post(f"/edgeml/v1/models/{model}/rollback", {}), Change)


def dismiss(client: Client, model: str) -> None:
    """End the part of a shadow or a split; nothing where there is none.

    Raises:
        CallError: there is no such model, or another change is under way.
    """
    client.post(f"/edgeml/v1/models/{model}/dismiss", {})


def show(change: Change, *, as_json: bool) -> None:
    """Say what it came to."""
    if as_json:
        write_json(change)
        return
    role = {
        "active": "serves",
        "shadow": "is a shadow of what serves",
        "split": "serves its share",
    }[change.mode]
    typer.echo(f"{change.model} {change.version} {role}, with {change.artifact}.")
    if not change.beside:
        typer.echo("There was no room for both, so the model did not serve in between.")
