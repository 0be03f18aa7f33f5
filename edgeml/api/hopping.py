"""An export's events, wherever its converters are: here, or in the toolchain ``export``."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from edgeml.exporter.events import AnyEvent

Say = Callable[[str], None]


def stream_export(
    request: msgspec.Struct, *, say: Say, progress: Say
) -> Generator[AnyEvent, None, None]:
    """Run an export, and yield its events as they come.

    Closing the generator ends the export, with all its processes.

    Args:
        request: an :class:`~edgeml.exporter.request.ExportRequest`, or another one that
            ``edgeml.exporter`` takes.
        say: told what the user should read while a toolchain is installed.
        progress: told what the installation is at.

    Raises:
        ToolchainError: there is no toolchain and it cannot be made, or the export died.
    """
    from edgeml.exporter.events import Done, Failure, decode_event
    from edgeml.toolchain import hop
    from edgeml.toolchain.spec import toolchain

    with hop.interpreter(toolchain("export"), say=say, progress=progress) as python:
        yield from hop.stream(
            python,
            "edgeml.exporter",
            msgspec.json.encode(request),
            decode=decode_event,
            final=(Done, Failure),
        )
