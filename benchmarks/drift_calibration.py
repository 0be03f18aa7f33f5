"""False-positive rates of the tests of rows at their nominal 5 %, for rows that are independent and
for rows that are not.

``python benchmarks/drift_calibration.py [--write] [--count N]``: windows and a baseline of one
AR(1) process, n rows against 10,000; then independent rows of distributions unlike a normal one.
*edgeml drift* is the combined test with what the dependence of rows, estimated from their
stretches, leaves of them. Rates come with intervals, as wide as the number of windows makes them.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from drift_worlds import BASELINE_ROWS, autoregressive
from numpy.typing import NDArray
from page import setting, table, write_section

from edgeml.collector.drift.chi2 import chi_square
from edgeml.collector.drift.combined import combined_test
from edgeml.drift_report.stretches import Stretches
from edgeml.statistics import Counts, Grid, fit_grid

SEED = 6
LEVEL = 0.05
TOLERANCE = 0.01
"""That a rate on independent rows may differ from the level."""
NORMAL_95 = 1.96
CORRELATIONS = (0.0, 0.9, 0.99)
ROWS = (100, 300, 1_000, 10_000, 100_000)


Draw = Callable[[np.random.Generator, int], NDArray[np.float64]]
DISTRIBUTIONS: dict[str, Draw] = {
    "log-normal, σ = 1.5": lambda random, n: np.exp(1.5 * random.standard_normal(n)),
    "exponential": lambda random, n: random.exponential(size=n),
    "t, 1.5 degrees of freedom": lambda random, n: random.standard_t(1.5, n),
    "beta, ½ and ½": lambda random, n: random.beta(0.5, 0.5, n),
    "half of it zero, else gamma": lambda random, n: np.where(
        random.random(n) < 0.5, 0.0, random.gamma(2, size=n)
    ),
    "five values": lambda random, n: random.integers(0, 5, n).astype(np.float64),
    "Poisson, mean 0.3": lambda random, n: random.poisson(0.3, n).astype(np.float64),
    "99 % zero": lambda random, n: np.where(
        random.random(n) < 0.99, 0.0, random.standard_normal(n)
    ),
}
UNLIKE_ROWS = (100, 1_000, 10_000)


class Unlike(NamedTuple):
    """Rates of rejection for independent rows where nothing changed."""

    distribution: str
    rows: int
    chi2: float
    combined: float


class Row(NamedTuple):
    """Rates of rejection where nothing changed."""

    correlation: float
    rows: int
    chi2: float
    combined: float
    corrected: float
    worth: float
    """Median number of independent rows that a window was worth to the corrected test."""
    windows: int


def measure(correlation: float, rows: int, count: int) -> Row:
    """Rates over ``count`` windows, each with a baseline of its own."""
    random = np.random.default_rng([SEED, round(100 * correlation), rows])
    p: list[tuple[float, float, float]] = []
    worth: list[float] = []
    for _ in range(count):
        baseline = autoregressive(random, correlation, BASELINE_ROWS)
        window = autoregressive(random, correlation, rows)
        grid = fit_grid(baseline)
        cells = Counts.of(grid, window).cells, Counts.of(grid, baseline).cells
        known = combined_test(
            grid,
            *cells,
            window_stretches=_stretches(grid, window),
            baseline_stretches=_stretches(grid, baseline),
        )
        unknown = combined_test(grid, *cells)
        p.append((chi_square(grid, *cells).p, unknown.p, known.p))
        worth.append(min(effective for effective, _ in known.effective.values()))
    chi2, plain, corrected = (np.array(p) <= LEVEL).mean(axis=0).tolist()
    return Row(correlation, rows, chi2, plain, corrected, float(np.median(worth)), count)


def _stretches(grid: Grid, values: NDArray[np.float64]) -> NDArray[np.int64]:
    stretches = Stretches(grid.cells)
    stretches.add(grid.locate(values))
    return stretches.complete


def measure_unlike(distribution: str, rows: int, count: int) -> Unlike:
    """Rates over ``count`` windows, each with a baseline of its own."""
    random = np.random.default_rng([SEED, list(DISTRIBUTIONS).index(distribution), rows])
    draw = DISTRIBUTIONS[distribution]
    p: list[tuple[float, float]] = []
    for _ in range(count):
        baseline, window = draw(random, BASELINE_ROWS), draw(random, rows)
        grid = fit_grid(baseline)
        cells = Counts.of(grid, window).cells, Counts.of(grid, baseline).cells
        p.append((chi_square(grid, *cells).p, combined_test(grid, *cells).p))
    return Unlike(distribution, rows, *(np.array(p) <= LEVEL).mean(axis=0).tolist())


def rows(count: int) -> list[Row]:
    """All of them: four times as many windows where rows are independent, a quarter of the longest
    that are correlated."""

    def windows(correlation: float, n: int) -> int:
        if not correlation:
            return 4 * count
        return count if n < 100_000 else max(count // 4, 1)

    return [
        measure(correlation, n, windows(correlation, n))
        for correlation in CORRELATIONS
        for n in ROWS
    ]


def unlike(count: int) -> list[Unlike]:
    """All distributions."""
    return [measure_unlike(name, n, count) for name in DISTRIBUTIONS for n in UNLIKE_ROWS]


def interval(rate: float, count: int) -> tuple[float, float]:
    """Where a rate that was seen in ``count`` windows lies, with 95 % confidence (Wilson, 1927)."""
    square = NORMAL_95**2 / count
    middle = (rate + square / 2) / (1 + square)
    half = np.sqrt(square * (rate * (1 - rate) + square / 4)) / (1 + square)
    return float(middle - half), float(middle + half)


def told(rate: float, count: int) -> str:
    """For a table."""
    low, high = interval(rate, count)
    return f"{rate:.3f} ({low:.3f} to {high:.3f})"


def within(rates: Sequence[tuple[float, int]]) -> str:
    """How many of these are sure to be what is wanted, in words."""
    intervals = [interval(*rate) for rate in rates]
    least, most = LEVEL - TOLERANCE, LEVEL + TOLERANCE
    inside = sum(low >= least and high <= most for low, high in intervals)
    outside = sum(high < least or low > most for low, high in intervals)
    return (
        f"within {LEVEL} ± {TOLERANCE} with the whole interval in {inside} of {len(rates)} lines, "
        f"outside with all of it in {outside}"
    )


def render(found: Sequence[Row], others: Sequence[Unlike], count: int) -> str:
    """As Markdown."""
    first = [(row.chi2, row.windows) for row in found if not row.correlation]
    second = [(other.chi2, count) for other in others]
    heads = ("φ", "rows", "windows", "two-sample χ²", "combined", "edgeml drift", "rows' worth")
    return "\n\n".join(
        [
            setting("numpy", "scipy"),
            "In brackets intervals of 95 %. Two-sample χ² on independent rows is "
            f"{within(first)} of the first table, and {within(second)} of the second.",
            table(
                heads,
                [
                    (
                        f"{row.correlation:g}",
                        f"{row.rows:,}",
                        f"{row.windows:,}",
                        told(row.chi2, row.windows),
                        told(row.combined, row.windows),
                        told(row.corrected, row.windows),
                        f"{row.worth:,.0f}",
                    )
                    for row in found
                ],
            ),
            f"Independent rows of other distributions, {count:,} windows each:",
            table(
                ("distribution", "rows", "two-sample χ²", "combined"),
                [
                    (o.distribution, f"{o.rows:,}", told(o.chi2, count), told(o.combined, count))
                    for o in others
                ],
            ),
        ]
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--count", type=int, default=2_000)
    parser.add_argument("--write", action="store_true", help="into docs/benchmarks.md")
    options = parser.parse_args(arguments)
    text = render(rows(options.count), unlike(options.count), options.count)
    print(text)
    if options.write:
        write_section("drift calibration", text)


if __name__ == "__main__":
    sys.exit(main())
