"""Adds the target ``meter`` to every Python process that has this folder on its PYTHONPATH.

Its runtime is of models that take what a sensor gives: see :mod:`meter_runtime`.
"""

from __future__ import annotations

from typing import Any

from edgeml.targets import registry

rows: Any = registry.TARGETS
rows["meter"] = registry.Target(
    name="meter",
    title="a runtime that measures",
    sources=frozenset(),
    precisions=("fp32",),
    compile="none",
    runtime="meter_runtime",
    packages=("numpy",),
    extra="none",
)
