"""The toolchains that conversions go through on their way, beside the one that this runs in.

They are made on first use, with their progress among the export's events, and held while it runs.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Mapping, Sequence
from pathlib import Path

from edgeml.errors import ToolchainError
from edgeml.exporter.events import Event, Note, Progress, Stage
from edgeml.targets.registry import SourceKind, target
from edgeml.toolchain import install, store
from edgeml.toolchain.spec import toolchain


@contextlib.contextmanager
def bridges(
    targets: Sequence[str], kind: SourceKind, emit: Callable[[Event], None]
) -> Generator[Mapping[str, Path]]:
    """Give each target's interpreter, of those whose conversion goes through another toolchain.

    Args:
        targets: to be converted for.
        kind: of the source.
        emit: told what is being installed, what pip is at, and why one cannot be installed: it is
            left out then.
    """
    needed = {name: target(name).bridges.get(kind, "") for name in targets}
    found: dict[str, Path] = {}
    with contextlib.ExitStack() as stack:
        for name in dict.fromkeys(filter(None, needed.values())):
            spec = toolchain(name)
            if store.find(spec).state != "installed":
                emit(Stage(name="toolchain", title=f"Installing the toolchain {name}"))
            ready = install.ready(
                spec,
                say=lambda text: emit(Note(text=text)),
                progress=lambda text: emit(Progress(text=text)),
            )
            try:
                found[name] = stack.enter_context(ready)
            except ToolchainError as error:
                # The other targets need it not; the one that does says that it is not there.
                emit(Note(text=str(error)))
        yield {each: found[name] for each, name in needed.items() if name in found}
