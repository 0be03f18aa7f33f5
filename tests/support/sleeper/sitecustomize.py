"""Adds the target ``sleeper`` to every Python process that has this folder on its PYTHONPATH.

Its runtime is a tiny model that misbehaves on demand: see :mod:`sleeper_runtime`.
"""

from __future__ import annotations

from typing import Any

from edgeml.targets import registry

rows: Any = registry.TARGETS
rows["sleeper"] = registry.Target(
    name="sleeper",
    title="a runtime that misbehaves",
    sources=frozenset(),
    precisions=("fp32",),
    compile="none",
    runtime="sleeper_runtime",
    packages=("numpy",),
    extra="none",
)
