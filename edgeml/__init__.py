"""edgeml: trained models within budget on a fleet of devices, and word when their world drifts.

This package is the import namespace and the public face. It owns the three contracts that cross a
machine boundary (:mod:`edgeml.bundle`, :mod:`edgeml.statistics`, :mod:`edgeml.telemetry`) and the
command line; the parts behind them are :mod:`edgeml.exporter`, :mod:`edgeml.targets`,
:mod:`edgeml.device_agent` and :mod:`edgeml.collector`.

From Python, :func:`export` makes a bundle, :func:`exporting` does so event by event, and
:class:`Session` runs one; :func:`drift` compares two tables; :class:`Client` calls the agent of
this device, and raises :class:`CallError`. Each is imported when it is first asked for.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edgeml.api.drifting import drift
    from edgeml.api.exporting import export, exporting
    from edgeml.api.result import ExportResult
    from edgeml.api.session import Session
    from edgeml.device_agent.local.call_error import CallError
    from edgeml.device_agent.local.client import Client
    from edgeml.errors import EdgemlError

__all__ = [
    "CallError",
    "Client",
    "EdgemlError",
    "ExportResult",
    "Session",
    "__version__",
    "drift",
    "export",
    "exporting",
]

__version__ = "0.1.0"

_LAZY = {
    "CallError": "edgeml.device_agent.local.call_error",
    "Client": "edgeml.device_agent.local.client",
    "EdgemlError": "edgeml.errors",
    "ExportResult": "edgeml.api.result",
    "Session": "edgeml.api.session",
    "drift": "edgeml.api.drifting",
    "export": "edgeml.api.exporting",
    "exporting": "edgeml.api.exporting",
}


def __getattr__(name: str) -> Any:
    module = _LAZY.get(name)
    if module is None:
        raise AttributeError(f"module 'edgeml' has no attribute {name!r}")
    return getattr(import_module(module), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_LAZY])
