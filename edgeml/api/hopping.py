"""An export's events, wherever its converters are: here, or in the toolchain ``export``."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Generator
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from edgeml.exporter.events import AnyEvent

Say = Callable[[str], None]


def stream_export(
    request: msgspec.Struct, *, say: Say, progress: Say
) -> Generator[AnyEvent, None, None]:
    """Run an export, and yield its events as they come.

    Closing the generator ends the export, with all its processes. Its temporary files go, too, also
    where it had to be killed and could not tidy up.

    Args:
        request: an :class:`~edgeml.exporter.request.ExportRequest`, or another one that
            ``edgeml.exporter`` takes.
        say: told what the user should read while a toolchain is installed.
        progress: told what the installation is at.

    Raises:
        UsageError: a budget or a limit that nothing could keep to.
        ToolchainError: there is no toolchain and it cannot be made, or the export died.
    """
    from edgeml.exporter.events import Done, Failure, decode_event
    from edgeml.exporter.folders import remove_leftovers
    from edgeml.exporter.request import ExportRequest, check_amounts
    from edgeml.toolchain import hop
    from edgeml.toolchain.spec import toolchain

    if isinstance(request, ExportRequest):
        check_amounts(request)
    with hop.interpreter(toolchain("export"), say=say, progress=progress) as python:
        try:
            yield from hop.stream(
                python,
                "edgeml.exporter",
                msgspec.json.encode(request),
                decode=decode_event,
                final=(Done, Failure),
            )
        finally:
            remove_leftovers()


def unread(program: Path, version: str, *, say: Say) -> str:
    """Why the converters' torch does not read a ``.pt2`` that another one wrote; empty: it does.

    Args:
        program: the file.
        version: of the torch that wrote it. Its like reads it, and is not asked.
        say: told what the user should read while a toolchain is installed.

    Raises:
        ToolchainError: there is no toolchain and it cannot be made.
    """
    from edgeml.toolchain import hop, store
    from edgeml.toolchain.spec import toolchain

    spec = toolchain("export")
    if store.serves_in_place(spec):
        return ""
    with hop.interpreter(spec, say=say, progress=lambda _: None) as python:
        if _plain(version) == _torch_of(python):
            return ""
        asked = [str(python), "-P", "-m", "edgeml.exporter.sources.readable", str(program)]
        found = subprocess.run(asked, capture_output=True, text=True, check=False)
    if found.returncode:
        return (found.stderr.strip().splitlines() or ["its reader died"])[-1][:300]
    return found.stdout


def _torch_of(python: Path) -> str:
    """The version of the torch beside an interpreter, by its metadata; empty: there is none."""
    folders = [str(path) for path in python.parent.parent.glob("lib/python*/site-packages")]
    found = next(iter(metadata.distributions(name="torch", path=folders)), None)
    return _plain(found.version) if found is not None else ""


def _plain(version: str) -> str:
    """Without what tells builds apart (``+cpu``)."""
    return version.partition("+")[0]
