"""Two sets of counts compared for a person: effects, evidence, and what could have been seen.

Off line there are two samples and no windows before them, so here a test of rows decides; what rows
that depend on each other are worth is estimated first (:mod:`edgeml.collector.drift.dependence`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgeml.collector.drift.chi2 import chi_square, detectable_effect
from edgeml.collector.drift.combined import Part, cauchy_combination, combined_test
from edgeml.collector.drift.effects import SMOOTHING, effects, js_bias
from edgeml.statistics import Grid

Cells = NDArray[np.int64]
Floats = NDArray[np.float64]
Measure = Literal["js", "w1", "ks", "psi", "chi2"]

DRAWS = 499
"""Of the null distribution of the measures that have no known one: p-values from 0.002 on."""
SEEN_BY_MEAN = 2.80
"""z(.975) + z(.8): standard errors of a mean that a test of level .05 finds with power .8."""
SEEN_BEYOND = 0.842
"""z(.8): standard deviations beyond its 5 % point that a statistic has to be for power .8."""

OF_VALUES: tuple[Part, ...] = ("location", "scale", "tails", "shape")
OF_CELLS: tuple[Part, ...] = ("shape", "missing", "not finite")
"""Parts that look at all of the cells."""

SEEN_ROWS = 3
"""Expected where there were none before: then there are two four times in five, and two are enough
to be seen beside a long baseline."""


class Measured(msgspec.Struct, frozen=True, kw_only=True):
    """One measure of a difference."""

    statistic: float
    effect: float
    p: float
    detectable: float
    """The smallest effect that these numbers of rows show with power .8 at level .05."""


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """How the rows of a window differ from the baseline's."""

    n: int
    """Rows of the window."""
    m: int
    """Rows of the baseline."""
    effective_n: float
    """Independent rows that those of the window are worth by their values; :attr:`n` where they are
    independent."""
    effective_m: float
    effect: float
    """Jensen-Shannon divergence in bits, less what so few rows show by chance; 0 to 1."""
    detectable: float
    """The smallest such effect that these numbers of rows show with power .8 at level .05."""
    p: float
    """Of the combined test (:mod:`edgeml.collector.drift.combined`)."""
    parts: dict[Part, float]
    """Its parts' p-values."""
    measures: dict[Measure, Measured]
    """W1 and KS are missing for categories. Effects: JS and PSI as they are, W1 in standard
    deviations of the baseline, KS the largest gap of the cumulated shares, χ² as Cohen's w."""


def compare(
    grid: Grid,
    window: Cells,
    baseline: Cells,
    *,
    window_stretches: Cells | None = None,
    baseline_stretches: Cells | None = None,
) -> Comparison:
    """Compare two count vectors on ``grid``.

    Args:
        grid: of both.
        window: int64 [cells].
        baseline: int64 [cells].
        window_stretches: the same in consecutive stretches of equally many rows, int64 [k, cells];
            None where the rows are taken to be independent.
        baseline_stretches: as for the window.
    """
    test = combined_test(
        grid,
        window,
        baseline,
        window_stretches=window_stretches,
        baseline_stretches=baseline_stretches,
    )
    of_rows = float(test.n), float(test.m)
    n, m = (max(rows, 1.0) for rows in test.effective.get("shape", of_rows))
    found = effects(grid, window, baseline)
    chi2 = chi_square(grid, window, baseline)
    # Of the values, and of the one share of what has none, which may be worth other rows.
    absent = [test.effective[part] for part in OF_CELLS[1:] if part in test.effective]
    of_absent = [detectable_effect(1, *rows) for rows in absent]
    seen = min(max(detectable_effect(chi2.dof, n, m), *of_absent, 0.0), 1.0)  # Cohen's w
    # For small differences χ²/N, JS and PSI are one quadratic form: JS = w²/4 nats, PSI = 2w².
    seen_js = seen**2 / (4 * float(np.log(2)))
    n_line, m_line = (max(rows, 1.0) for rows in test.effective.get("location", of_rows))
    root = float(np.sqrt(1 / n_line + 1 / m_line))
    pooled = window + baseline
    of_cells = _fewest(test.effective, OF_CELLS, of_rows)
    null = {rows: _null(grid, pooled, rows=rows) for rows in {of_cells, (n_line, m_line)}}
    seen_ks = _seen_by_ks(null[n_line, m_line].get("ks", np.ones(1)), pooled[grid.ordered], root)
    seen_ks = min(max(seen_ks, SEEN_ROWS / min(n_line, m_line)), 1.0)
    table: dict[Measure, tuple[float | None, float, tuple[float, float]]] = {
        "js": (found.js, seen_js, of_cells),
        "psi": (found.psi, 2 * seen**2, of_cells),
        "w1": (found.w1, SEEN_BY_MEAN * root, (n_line, m_line)),
        "ks": (found.ks, seen_ks, (n_line, m_line)),
    }
    observed = _measure(grid, window[None], baseline[None])
    measures: dict[Measure, Measured] = {}
    for name, (effect, least, rows) in table.items():
        if effect is not None:
            beyond = int(np.sum(null[rows][name] >= observed[name][0] - 1e-12))
            p = (1 + beyond) / (DRAWS + 1)
            measures[name] = Measured(statistic=effect, effect=effect, p=p, detectable=least)
    measures["chi2"] = Measured(
        statistic=chi2.statistic,
        effect=chi2.effect,
        p=_of_cells(test.parts),
        detectable=seen,
    )
    of_values = _fewest(test.effective, OF_VALUES, of_rows)
    used = int(np.count_nonzero((window > 0) | (baseline > 0)))
    chance = js_bias(used, max(round(n), 1), max(round(m), 1))
    return Comparison(
        n=test.n,
        m=test.m,
        effective_n=min(of_values[0], of_rows[0]),
        effective_m=min(of_values[1], of_rows[1]),
        effect=max(found.js - chance, 0.0) if test.n and test.m else 0.0,
        detectable=seen_js,
        p=test.p,
        parts=test.parts,
        measures=measures,
    )


def _fewest(
    effective: Mapping[Part, tuple[float, float]],
    parts: Sequence[Part],
    of_rows: tuple[float, float],
) -> tuple[float, float]:
    """Independent rows of both sides that these parts are worth, at least 1 and at most all."""
    worth = [effective[part] for part in parts if part in effective]
    n, m = (max(min(rows), 1.0) for rows in zip(of_rows, *worth, strict=True))
    return n, m


def _of_cells(parts: Mapping[Part, float]) -> float:
    """That the shares of the cells changed in any way, those without a value among them."""
    taken: list[Part] = [part for part in OF_CELLS if part in parts]
    return cauchy_combination([parts[part] for part in taken], [1.0] * len(taken))


def benjamini_yekutieli(p_values: Sequence[float]) -> list[float]:
    """Adjusted p-values: those at most α are a list with at most a share α of false ones.

    Under any dependence between the p-values (Benjamini, Yekutieli, 2001), which the columns of a
    table need: they depend on each other in ways that nobody knows.
    """
    count = len(p_values)
    if not count:
        return []
    p = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(p)
    harmonic = float(np.sum(1 / np.arange(1, count + 1)))
    stepped = p[order] * count * harmonic / np.arange(1, count + 1)
    adjusted = np.empty(count)
    adjusted[order] = np.minimum(np.minimum.accumulate(stepped[::-1])[::-1], 1.0)
    return adjusted.tolist()


def _seen_by_ks(null: Floats, pooled: Cells, root: float) -> float:
    """The smallest gap in one place that KS shows with power .8, on these very cells: few of them
    have a lower 5 % point than a continuous line has (1.358 ``root``), and a share that is far from
    a half varies less.

    Args:
        null: the measure where nothing changed, [draws].
        pooled: counts of the ordered cells of both sides.
        root: √(1/n + 1/m).
    """
    below = np.cumsum(pooled) / max(int(pooled.sum()), 1)
    deviation = float(np.sqrt((below * (1 - below)).max(initial=0.0))) * root
    return float(np.quantile(null, 0.95)) + SEEN_BEYOND * deviation


def _null(grid: Grid, pooled: Cells, *, rows: tuple[float, float]) -> dict[Measure, Floats]:
    """The measures of :data:`DRAWS` pairs of samples, both from the pooled distribution."""
    generator = np.random.default_rng(0)  # the same comparison gives the same p-values
    shares = pooled / max(int(pooled.sum()), 1)
    if not pooled.any():
        return _measure(grid, np.zeros((DRAWS, pooled.size)), np.zeros((DRAWS, pooled.size)))
    a, b = (generator.multinomial(max(round(n), 1), shares, size=DRAWS) for n in rows)
    return _measure(grid, a, b)


def _measure(
    grid: Grid, window: NDArray[np.number], baseline: NDArray[np.number]
) -> dict[Measure, Floats]:
    """The measures of many pairs at once: counts [pairs, cells] to float64 [pairs]."""
    p, q = _shares(window), _shares(baseline)
    middle = (p + q) / 2
    smooth_p, smooth_q = _shares(window + SMOOTHING), _shares(baseline + SMOOTHING)
    found: dict[Measure, Floats] = {
        "js": (_divergence(p, middle) + _divergence(q, middle)) / (2 * float(np.log(2))),
        "psi": np.sum((smooth_p - smooth_q) * np.log(smooth_p / smooth_q), axis=1),
    }
    if grid.ordered.size:
        on_line = _shares(window[:, grid.ordered]) - _shares(baseline[:, grid.ordered])
        gap = np.abs(np.cumsum(on_line, axis=1))
        # In any unit: it is only compared with others on the same grid.
        width = np.diff(grid.centres())
        found["w1"] = gap[:, :-1] @ (width / max(float(width.max(initial=0)), 1e-300))
        found["ks"] = gap.max(axis=1)
    return found


def _shares(counts: NDArray[np.number]) -> Floats:
    return counts / np.maximum(counts.sum(axis=1, keepdims=True), 1e-300)


def _divergence(p: Floats, q: Floats) -> Floats:
    ratio = np.divide(p, q, out=np.ones_like(p), where=p > 0)
    return np.sum(p * np.log(ratio), axis=1)
