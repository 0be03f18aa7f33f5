"""Changes in embeddings: the sums that a device sends beside the exact two-sample test on the rows.

``python benchmarks/drift_embeddings.py [--write] [--count N]``: the squared distance of mean random
Fourier features in fixed point (Rahimi, Recht, 2007) against the exact kernel two-sample statistic
(MMD; Gretton and others, 2012) with the same Gaussian kernel, each with the 95 % point of its own
score where nothing changed as threshold.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from page import setting, table, write_section

from edgeml.statistics import Counts, Grid, fit_vectors, pack
from edgeml.statistics.vector import means

SEED = 7
LEVEL = 0.05
DIMENSIONS = 32
BASELINE_ROWS = 1_000
ROWS = (300, 1_000)
STRENGTHS = (0.1, 0.2, 0.3, 0.5)

Matrix = NDArray[np.float64]


def _correlated(x: Matrix, strength: float, _: np.random.Generator) -> Matrix:
    """Neighbouring components become correlated; mean and variance of each stay."""
    found = x.copy()
    found[:, 1::2] = strength * x[:, ::2] + np.sqrt(1 - strength**2) * x[:, 1::2]
    return found


def _cluster(x: Matrix, strength: float, random: np.random.Generator) -> Matrix:
    here = random.random(len(x)) < strength / 5
    return np.where(here[:, None], 1.5 + x / 4, x)


WORLDS: dict[str, Callable[[Matrix, float, np.random.Generator], Matrix]] = {
    "correlation": _correlated,
    "mean": lambda x, strength, _: x + strength / 2 * (np.arange(DIMENSIONS) < 4),
    "cluster": _cluster,
}
"""Of unit normal vectors: pairs of components become correlated by ``strength``; four components
move by half of it; a fifth of that share forms a cluster elsewhere."""


class Row(NamedTuple):
    """Power at the same level."""

    world: str
    strength: float
    rows: int
    sums: float
    exact: float
    bytes: float


def scores(
    world: str, strength: float, rows: int, count: int
) -> tuple[NDArray[np.float64], NDArray[np.float64], float]:
    """Of the sums and of the rows [count], and bytes a window."""
    random = np.random.default_rng(
        [SEED, list(WORLDS).index(world) + 1 if strength else 0, round(100 * strength), rows]
    )
    found: list[tuple[float, float, int]] = []
    for _ in range(count):
        baseline = random.standard_normal((BASELINE_ROWS, DIMENSIONS))
        window = random.standard_normal((rows, DIMENSIONS))
        window = WORLDS[world](window, strength, random) if strength else window
        grid = fit_vectors(baseline)
        ours, theirs = Counts.of(grid, window), Counts.of(grid, baseline)
        distance = means(grid, ours)[0] - means(grid, theirs)[0]
        exact = squared_mmd(grid, window, baseline)
        found.append((float(distance @ distance), exact, len(pack(ours))))
    table_ = np.array(found)
    return table_[:, 0], table_[:, 1], float(table_[:, 2].mean())


def squared_mmd(grid: Grid, window: Matrix, baseline: Matrix) -> float:
    """The unbiased statistic over all pairs of rows."""
    n, m = len(window), len(baseline)
    within = [
        (_kernel(grid, x, x).sum() - len(x)) / (len(x) * (len(x) - 1)) for x in (window, baseline)
    ]
    return float(sum(within) - 2 * _kernel(grid, window, baseline).sum() / (n * m))


def _kernel(grid: Grid, x: Matrix, y: Matrix) -> Matrix:
    squares = (x**2).sum(axis=1)[:, None] + (y**2).sum(axis=1) - 2 * x @ y.T
    return np.exp(-squares / (2 * grid.bandwidth**2))


def rows(count: int) -> list[Row]:
    """All changes at all strengths."""
    found: list[Row] = []
    for n in ROWS:
        null = scores("mean", 0.0, n, 2 * count)
        critical = [float(np.quantile(score, 1 - LEVEL)) for score in null[:2]]
        for world in WORLDS:
            for strength in STRENGTHS:
                of_sums, of_rows, size = scores(world, strength, n, count)
                both = of_sums, of_rows
                sums, exact = (float((s > c).mean()) for s, c in zip(both, critical, strict=True))
                found.append(Row(world, strength, n, sums, exact, size))
    return found


def render(found: Sequence[Row], count: int) -> str:
    """As Markdown."""
    raw = 4 * DIMENSIONS
    heads = ("change", "strength", "rows", "sums", "exact MMD", "ratio", "bytes", "of the rows'")
    lines = [
        (
            row.world,
            row.strength,
            f"{row.rows:,}",
            f"{row.sums:.2f}",
            f"{row.exact:.2f}",
            f"{row.sums / row.exact:.2f}",
            f"{row.bytes:,.0f}",
            f"1/{raw * row.rows / row.bytes:.0f}",
        )
        for row in found
    ]
    return "\n\n".join(
        [
            setting("numpy"),
            f"{count:,} windows a line of vectors of {DIMENSIONS} float32 against "
            f"{BASELINE_ROWS:,} of the baseline.",
            table(heads, lines),
        ]
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--count", type=int, default=500)
    parser.add_argument("--write", action="store_true", help="into docs/benchmarks.md")
    options = parser.parse_args(arguments)
    text = render(rows(options.count), options.count)
    print(text)
    if options.write:
        write_section("drift embeddings", text)


if __name__ == "__main__":
    sys.exit(main())
