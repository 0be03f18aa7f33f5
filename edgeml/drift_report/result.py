"""What a comparison comes to: ``edgeml drift --json`` prints it, ``edgeml.drift`` returns it."""

from __future__ import annotations

from typing import Literal

import msgspec

from edgeml.collector.drift.compare import Comparison
from edgeml.drift_report.statistic import Kind

Verdict = Literal["drift", "small", "none", "unclear"]
"""``drift``: evidence, and an effect of at least the least that matters. ``small``: evidence of a
smaller one. ``none``: no evidence, and an effect that matters would have been seen. ``unclear``: no
evidence, from too few independent rows to have seen one."""

FindingKind = Literal["missing column", "extra column", "type", "mixed", "skipped", "order", "rows"]


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """Something about the tables that no statistic tells."""

    column: str
    kind: FindingKind
    text: str
    breaks: bool = False
    """Whether it alone makes the tables differ: a column that is gone, or is of another type."""


class Moment(msgspec.Struct, frozen=True, kw_only=True):
    """A window of time of one statistic."""

    start_ms: int
    n: int
    effect: float
    """Excess Jensen-Shannon divergence from the baseline, in bits."""
    w1: float | None
    """In standard deviations of the baseline; None for categories."""


class Bars(msgspec.Struct, frozen=True, kw_only=True):
    """A histogram of both sides, as shares."""

    labels: tuple[str, ...]
    """Of each bar: a category, or the low end of a bin."""
    baseline: tuple[float, ...]
    data: tuple[float, ...]
    ordered: int
    """The first so many bars lie on a line; the others are categories, or missing and invalid."""


class ColumnDrift(msgspec.Struct, frozen=True, kw_only=True):
    """One statistic of one column."""

    name: str
    column: str
    kind: Kind
    verdict: Verdict
    adjusted_p: float
    """The comparison's p-value, adjusted for all statistics (Benjamini, Yekutieli, 2001)."""
    sentence: str
    comparison: Comparison
    bars: Bars
    over_time: tuple[Moment, ...] = ()


class DriftResult(msgspec.Struct, frozen=True, kw_only=True):
    """The comparison of two tables."""

    baseline: str
    data: str
    baseline_rows: int
    data_rows: int
    alpha: float
    min_effect: float
    independent: bool
    """Whether rows were taken to be independent, whatever their order shows."""
    drift: bool
    """Whether any column drifts, is gone, or is of another type."""
    summary: str
    columns: tuple[ColumnDrift, ...]
    """Drifting ones first, each verdict by falling effect."""
    findings: tuple[Finding, ...]
    window_ms: int | None = None
    """Length of the windows of :attr:`ColumnDrift.over_time`."""
    schema: int = 1
