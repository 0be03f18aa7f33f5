"""A comparison in words. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from edgeml.collector.drift.effects import root_mean_square, shares
from edgeml.statistics import Grid

if TYPE_CHECKING:
    from edgeml.drift_report.result import DriftResult

Cells = NDArray[np.int64]

SHOWN = 4
"""Columns that a summary names."""
BEYOND = 0.02
"""Of the rows beyond an end of the grid, with which their mean is only bounded."""
NEW = 2
"""New categories that a sentence names."""
NEW_SHARE = 0.001
"""Of the rows, that a new category must surely have to be named."""


def change(
    grid: Grid,
    labels: tuple[str, ...],
    data: Cells,
    baseline: Cells,
    new: Mapping[str, int] = MappingProxyType({}),
) -> str:
    """What differs most, in a few words; empty counts have words of their own.

    Args:
        grid: of both.
        labels: of the cells; empty for numbers.
        data: counts [cells].
        baseline: counts [cells].
        new: categories that are among the others, and how often each came, the most frequent first.
    """
    if not data.sum() or not baseline.sum():
        return "no rows"
    if labels:
        return ", ".join([_category(labels, data, baseline), *_new(new, int(data.sum()))])
    parts: list[str] = []
    here, before = shares(data), shares(baseline)
    invalid = np.setdiff1d(grid.unordered, [grid.missing])
    for name, cells in (("missing", [grid.missing]), ("not finite", invalid)):
        now, was = float(here[cells].sum()), float(before[cells].sum())
        if abs(now - was) >= 0.001:
            parts.append(f"{name} {_percent(was)} → {_percent(now)}")
    on_line = data[grid.ordered], baseline[grid.ordered]
    if on_line[0].sum() and on_line[1].sum():
        parts.append(_line(grid, *on_line))
    return ", ".join(filter(None, parts)) or "the same"


def _line(grid: Grid, data: Cells, baseline: Cells) -> str:
    centres = grid.centres()
    (mean, spread), (mean_before, spread_before) = (
        _moments(centres, cells) for cells in (data, baseline)
    )
    shift = (mean - mean_before) / max(spread_before, grid.step)
    shown = mean_before, mean
    if grid.log:  # of octaves
        shown = 2**mean_before, 2**mean
    bound = _bound(shares(data)[grid.ordered.argsort()[[0, grid.bins + 1]]].tolist())
    words: list[str] = []
    if abs(shift) >= 0.01:
        words.append(f"mean {shown[0]:.4g} → {bound}{shown[1]:.4g} ({bound}{shift:+.2f} sd)")
    if spread_before > 0 and not 0.95 <= spread / spread_before <= 1.05:
        words.append(f"spread × {spread / spread_before:.2f}")
    top = int(np.argmax(shares(data) - shares(baseline)))
    here, before = float(shares(data)[top]), float(shares(baseline)[top])
    if here - before > 0.03 and here > 1.5 * before:
        words.append(f"{_where(grid, top)} {_percent(before)} → {_percent(here)}")
    return ", ".join(words)


def _where(grid: Grid, at: int) -> str:
    """Of the cells on the line; how far out lies what is beyond its ends, counts do not tell."""
    match int(grid.ordered[at]):
        case 0:
            return f"below {grid.low:.4g}"
        case cell if cell == grid.bins + 1:
            return f"above {grid.high:.4g}"
        case _:
            return f"near {position(grid, float(grid.centres()[at])):.4g}"


def _bound(beyond: list[float]) -> str:
    """What a mean is said to be, given the shares below the line and above it, which it takes to
    lie at its ends."""
    below, above = (share > BEYOND for share in beyond)
    return "about " if below and above else "below " if below else "above " if above else ""


def position(grid: Grid, centre: float) -> float:
    """The number at a place on the grid's line."""
    return float(2.0**centre) if grid.log else centre


def _moments(centres: NDArray[np.float64], cells: Cells) -> tuple[float, float]:
    weights = shares(cells)
    mean = float(weights @ centres)
    return mean, root_mean_square(centres - mean, weights)


def _category(labels: tuple[str, ...], data: Cells, baseline: Cells) -> str:
    here, before = shares(data).tolist(), shares(baseline).tolist()
    order = sorted(range(len(labels)), key=lambda cell: -abs(here[cell] - before[cell]))[:2]
    changes = [
        f"{_short(labels[cell])} {_percent(before[cell])} → {_percent(here[cell])}"
        for cell in order
        if here[cell] != before[cell]
    ]
    return ", ".join(changes) or "the same shares"


def _new(new: Mapping[str, int], rows: int) -> list[str]:
    known = [(name, times / rows) for name, times in new.items() if times >= NEW_SHARE * rows]
    named = [f"{_short(name)} {_percent(share)}" for name, share in known[:NEW]]
    return ["new " + " and ".join(named)] if named else []


def _short(label: str) -> str:
    """A category's name, cut; one that would read as a share is quoted."""
    cut = label if len(label) <= 30 else label[:29] + "…"
    return cut if any(map(str.isalpha, cut)) else f"‘{cut}’"


def _percent(share: float) -> str:
    return f"{100 * share:.2g} %" if share < 0.0995 else f"{100 * share:.0f} %"


def title(result: DriftResult) -> str:
    """The report's heading."""
    if result.drift:
        return "Drift"
    # "No drift" over a table of which every line says "too few rows" would be a lie.
    told = any(column.verdict != "unclear" for column in result.columns)
    return "No drift" if told else "Nothing to compare" if not result.columns else "Too few rows"


def summary(result: DriftResult) -> str:
    """The one sentence or two that stand on top."""
    by_verdict = {
        verdict: [column for column in result.columns if column.verdict == verdict]
        for verdict in ("drift", "small", "unclear")
    }
    count = len(result.columns)
    parts: list[str] = []
    broken = [finding for finding in result.findings if finding.breaks]
    if broken:
        parts.append("; ".join(f"{finding.column} {finding.text}" for finding in broken[:SHOWN]))
    if drifting := by_verdict["drift"]:
        named = "; ".join(f"{one.name}: {one.sentence}" for one in drifting[:SHOWN])
        more = f"; and {len(drifting) - SHOWN} more" if len(drifting) > SHOWN else ""
        parts.append(f"{_number(len(drifting), count)} drift{'s' * (count == 1)}. {named}{more}")
    elif told := count - len(by_verdict["unclear"]):
        parts.append(
            f"no drift of {result.min_effect:g} bits or more was found in "
            f"{told} statistic{'s' * (told != 1)}"
        )
    elif count:
        parts.append(f"a drift of {result.min_effect:g} bits could not have been seen")
    else:
        parts.append("there was nothing to compare")
    if small := by_verdict["small"]:
        parts.append(f"{len(small)} changed by less than that, with evidence")
    if unclear := by_verdict["unclear"]:
        has = "have" if len(unclear) > 1 else "has"
        parts.append(f"{_number(len(unclear), count)} {has} too few independent rows to tell")
    named = parts[:1] if broken else []  # begins with a column's name, which stays as it is
    return ". ".join([*named, *(part[0].upper() + part[1:] for part in parts[len(named) :])]) + "."


def _number(some: int, of: int) -> str:
    return f"{some} of {of} statistics" if of != 1 else "The only statistic"
