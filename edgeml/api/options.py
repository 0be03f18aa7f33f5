"""The options of an export, as types: what a checker and an editor know of ``edgeml.export(…)``."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypedDict


class Options(TypedDict, total=False):
    """What :func:`edgeml.exporting` takes beside model and targets, and says more of."""

    calibration: Any
    evaluate: Any
    examples: Any
    output: str | os.PathLike[str]
    name: str
    version: str
    precision: str
    max_accuracy_drop: float | str | None
    max_latency: float | str | None
    max_memory: float | str | None
    max_size: int | str | None
    metric: str
    confidence: float
    tolerances: Mapping[str, Mapping[str, float]] | None
    deadline_ms: float | None
    memory_mb: float | None
    preprocess: str | os.PathLike[str]
    shapes: Mapping[str, Sequence[int]] | None
    statistics: Mapping[str, str] | None
    python: str | os.PathLike[str]
    trust: bool
    report: str | os.PathLike[str]
    minimize: str | os.PathLike[str]
    seed: int
    cache: bool
    say: Callable[[str], None] | None
