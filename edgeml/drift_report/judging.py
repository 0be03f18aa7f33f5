"""Counts of two tables become a verdict a column. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgeml.collector.drift.compare import Comparison, benjamini_yekutieli, compare
from edgeml.collector.drift.effects import effects
from edgeml.drift_report.counting import Tally
from edgeml.drift_report.result import (
    Bars,
    ColumnDrift,
    DriftResult,
    Finding,
    Moment,
    Verdict,
)
from edgeml.drift_report.statistic import Kind
from edgeml.drift_report.wording import change, position, summary
from edgeml.statistics import Grid

Cells = NDArray[np.int64]

ORDER: tuple[Verdict, ...] = ("drift", "small", "unclear", "none")
NOT_FINITE = ("NaN", "-Inf", "+Inf", "missing")
"""The cells of a numeric grid behind all others."""
WORTH_HALF = 0.5
"""Share of the rows that independent ones must be worth for dependence not to be spoken of."""


class Pair(NamedTuple):
    """The counts of one statistic on both sides."""

    name: str
    column: str
    kind: Kind
    grid: Grid
    labels: tuple[str, ...]
    """Of the cells; empty for numbers."""
    baseline: Cells
    baseline_stretches: Cells | None
    """None where the baseline's rows are independent: the samples of a bundle."""
    data: Tally
    new: Mapping[str, int]
    """Categories of the data that the baseline surely does not have, and how often each came, the
    most frequent first."""


class Terms(NamedTuple):
    """By which a column is judged."""

    alpha: float
    min_effect: float
    independent: bool
    window_ms: int | None = None


class Tables(NamedTuple):
    """What is compared."""

    baseline: str
    data: str
    baseline_rows: int
    data_rows: int


def judge(
    pairs: Sequence[Pair], findings: Sequence[Finding], *, tables: Tables, terms: Terms
) -> DriftResult:
    """Compare every pair and say what the tables come to."""
    compared = [_compare(pair, terms) for pair in pairs]
    adjusted = benjamini_yekutieli([comparison.p for comparison in compared])
    columns = sorted(
        (
            _column(pair, comparison, p, terms)
            for pair, comparison, p in zip(pairs, compared, adjusted, strict=True)
        ),
        key=lambda column: (ORDER.index(column.verdict), -column.comparison.effect),
    )
    noted = [*findings, *_dependence(compared)]
    drift = any(c.verdict == "drift" for c in columns) or any(f.breaks for f in noted)
    result = DriftResult(
        baseline=tables.baseline,
        data=tables.data,
        baseline_rows=tables.baseline_rows,
        data_rows=tables.data_rows,
        alpha=terms.alpha,
        min_effect=terms.min_effect,
        independent=terms.independent,
        drift=drift,
        summary="",
        columns=tuple(columns),
        findings=tuple(noted),
        window_ms=terms.window_ms,
    )
    return msgspec.structs.replace(result, summary=summary(result))


def _compare(pair: Pair, terms: Terms) -> Comparison:
    return compare(
        pair.grid,
        pair.data.stretches.total,
        pair.baseline,
        window_stretches=None if terms.independent else pair.data.stretches.complete,
        baseline_stretches=None if terms.independent else pair.baseline_stretches,
    )


def _column(pair: Pair, comparison: Comparison, adjusted: float, terms: Terms) -> ColumnDrift:
    if adjusted <= terms.alpha:
        verdict: Verdict = "drift" if comparison.effect >= terms.min_effect else "small"
    else:
        verdict = "unclear" if comparison.detectable > terms.min_effect else "none"
    total = pair.data.stretches.total
    return ColumnDrift(
        name=pair.name,
        column=pair.column,
        kind=pair.kind,
        verdict=verdict,
        adjusted_p=adjusted,
        sentence=change(pair.grid, pair.labels, total, pair.baseline, pair.new),
        comparison=comparison,
        bars=_bars(pair, total),
        over_time=_moments(pair, terms),
    )


def _moments(pair: Pair, terms: Terms) -> tuple[Moment, ...]:
    if terms.window_ms is None:
        return ()
    found: list[Moment] = []
    for number, cells in sorted(pair.data.windows.items()):
        size = effects(pair.grid, cells, pair.baseline)
        found.append(
            Moment(
                start_ms=number * terms.window_ms,
                n=int(cells.sum()),
                effect=size.excess_js,
                w1=size.w1,
            )
        )
    return tuple(found)


def _bars(pair: Pair, data: Cells) -> Bars:
    line, apart = pair.grid.ordered, pair.grid.unordered
    order = np.concatenate([line, apart])
    both = data + pair.baseline
    if pair.labels:
        kept = order
        labels = pair.labels
    else:
        # Cells apart from the line are shown where something is in them.
        kept = np.concatenate([line, apart[both[apart] > 0]])
        places = [f"{position(pair.grid, place):.4g}" for place in pair.grid.centres().tolist()]
        names = dict(zip(range(pair.grid.nan, pair.grid.cells), NOT_FINITE, strict=True))
        labels = (*places, *(names[cell] for cell in kept[line.size :].tolist()))
    sides = [side[kept] / max(int(side.sum()), 1) for side in (pair.baseline, data)]
    return Bars(
        labels=tuple(labels[: kept.size]),
        baseline=tuple(float(round(share, 6)) for share in sides[0].tolist()),
        data=tuple(float(round(share, 6)) for share in sides[1].tolist()),
        ordered=int(line.size),
    )


def _dependence(compared: Sequence[Comparison]) -> list[Finding]:
    """Words on rows that depend on each other, and what they are worth."""
    low = [c for c in compared if c.n and c.effective_n < WORTH_HALF * c.n]
    if not low:
        return []
    least, most = (round(f(c.effective_n for c in low)) for f in (min, max))
    worth = f"{least:,}" if least == most else f"{least:,} to {most:,}"
    return [
        Finding(
            column="",
            kind="order",
            text=f"Rows resemble their neighbours in {len(low)} of {len(compared)} statistics: "
            f"{low[0].n:,} rows are worth {worth} independent ones there, and were tested as so "
            "many. If the rows are in no order of time, shuffle them, or say --independent.",
        )
    ]
