"""The exporter, whose children are copies from the tests' nursery (:mod:`nursery`) where they would
begin with the import of a framework. Run in place of ``-m edgeml.exporter``.

All else is the exporter's own. What an export does by itself is tested where one is begun from the
command line or from Python, in test_export_faults, and by the first export of test_export_roads.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import runpy
import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edgeml.exporter import children
from edgeml.exporter.child import Child
from edgeml.exporter.compile import _IMPORTS, _QUANTIZERS, FRAMEWORKS
from edgeml.exporter.origin import Copy

# A user's code finds none of what stands beside this.
sys.path.insert(0, str(Path(__file__).parent))
nursery = importlib.import_module("nursery")
del sys.path[0]

PREPARE = "edgeml.exporter.origin:prepare"
CONVERT = "edgeml.exporter.compile:convert"

PLACE = Path(os.environ[nursery.VARIABLE])


class Foreseen:
    """In place of an :class:`edgeml.exporter.origin.Origin`: the nursery imports the modules."""

    def __init__(self, child: Child, modules: Sequence[str]) -> None:
        self.modules = tuple(modules)
        child.close()

    def close(self) -> None:
        """Nothing to end."""


class Nursed(Child):
    """A child that is copied from the nursery at its first call that is more than an import."""

    def __init__(self, *arguments: Any, origin: Foreseen | None, **others: Any) -> None:
        super().__init__(*arguments, **others)
        self._modules = list(origin.modules) if origin else []
        self._at_work = False

    def call(self, function: str, payload: Any, result: Any, *, step: str) -> Any:
        if not self._at_work:
            if function == PREPARE:
                self._first(payload.name)
                return payload.name
            if function == CONVERT:
                self._first(*_IMPORTS.get((payload.target, payload.job.source_kind), ()))
                self._first(*_QUANTIZERS.get(payload.target, ()))
            self._at_work = True
            if self._modules:
                self.close()  # it may have been started ahead, and has imported nothing
        return super().call(function, payload, result, step=step)

    def _first(self, *modules: str) -> None:
        self._modules += [name for name in modules if name not in self._modules]

    def _begun(self) -> Any:
        if not self._modules:
            return super()._begun()
        asker = nursery.connection(PLACE)
        calls, answers = os.pipe(), os.pipe()
        asked = {
            "modules": self._modules,
            "environment": self._environment,
            "folder": str(Path.cwd()),
        }
        try:
            with self._log.open("ab") as log:
                pid = nursery.ask(asker, asked, calls[0], answers[1], log.fileno())
        finally:
            os.close(calls[0])
            os.close(answers[1])
        return Copy(Asked(asker), pid, calls[1], answers[0]), answers[0]


class Asked:
    """Whoever a copy was asked from, who alone knows how it ended."""

    def __init__(self, asker: socket.socket) -> None:
        self._asker = asker

    def status(self, pid: int) -> int:
        with self._asker as asker:
            return nursery.ask(asker, {"ended": pid})


class Children(children.Children):
    """An export's children, of which the model's reader begins with its framework too."""

    def child(self, framework: str = "") -> contextlib.AbstractContextManager[Child]:
        if framework:
            self.foresee(framework, FRAMEWORKS[framework])
        return super().child(framework)


if __name__ == "__main__":
    children.Child = Nursed
    children.Origin = Foreseen
    children.Children = Children
    runpy.run_module("edgeml.exporter", run_name="__main__")
