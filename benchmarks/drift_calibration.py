"""False-positive rates of the tests of rows at their nominal 5 %, for rows that are independent and
for rows that are not.

``python benchmarks/drift_calibration.py [--write] [--count N]``: windows and a baseline of one
AR(1) process, n rows against 10,000. *edgeml drift* is the combined test with what the dependence
of rows, estimated from their stretches, leaves of them.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
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
CORRELATIONS = (0.0, 0.9, 0.99)
ROWS = (100, 300, 1_000, 10_000, 100_000)


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


def rows(count: int) -> list[Row]:
    """All of them; of the longest windows a quarter as many."""
    return [
        measure(correlation, n, count if n < 100_000 else max(count // 4, 1))
        for correlation in CORRELATIONS
        for n in ROWS
    ]


def render(found: Sequence[Row]) -> str:
    """As Markdown."""
    heads = ("φ", "rows", "windows", "two-sample χ²", "combined", "edgeml drift", "rows' worth")
    return "\n\n".join(
        [
            setting("numpy", "scipy"),
            table(
                heads,
                [
                    (
                        f"{row.correlation:g}",
                        f"{row.rows:,}",
                        f"{row.windows:,}",
                        f"{row.chi2:.3f}",
                        f"{row.combined:.3f}",
                        f"{row.corrected:.3f}",
                        f"{row.worth:,.0f}",
                    )
                    for row in found
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
    text = render(rows(options.count))
    print(text)
    if options.write:
        write_section("drift calibration", text)


if __name__ == "__main__":
    sys.exit(main())
