"""Changes in embeddings: the sums that a device sends beside the exact two-sample test on the rows.

``python benchmarks/drift_embeddings.py [--write] [--count N]``: what the collector makes of the
sums (:mod:`edgeml.collector.drift.vectors`), and the plain squared distance of mean random Fourier
features (Rahimi, Recht, 2007), against the exact kernel two-sample statistic (MMD; Gretton and
others, 2012) with the same Gaussian kernel, each with the 95 % point of its own score where nothing
changed as threshold. In a repetition one baseline and one undisturbed window serve all of them.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np
from drift_equal import LEGEND, against, powers, summary
from numpy.typing import NDArray
from page import setting, table, write_section

from edgeml.collector.drift.vectors import distance_squared, mmd_squared
from edgeml.statistics import Counts, Grid, fit_vectors, pack

SEED = 7
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


TESTS = ("edgeml", "plain features", "exact MMD")
OURS, PLAIN, EXACT = range(3)
NULL = 4
"""Times as many windows where nothing changed."""
CHANGES = tuple((world, strength) for world in WORLDS for strength in STRENGTHS)
RAW = 4
"""Bytes of a float32."""
SIZES = (32, 128, 512, 2048)
"""Dimensions at which bytes are told."""


class Measured(NamedTuple):
    """Of all repetitions, with windows of one number of rows."""

    changed: Matrix
    """Scores [repetitions, changes, tests]."""
    null: Matrix
    """Where nothing changed [repetitions, NULL, tests]."""
    sizes: Matrix
    """Bytes of a window's counts [repetitions, changes]."""


class Exact:
    """The unbiased MMD² over all pairs of rows, of many windows with one baseline."""

    def __init__(self, grid: Grid, baseline: Matrix) -> None:
        self._scale = np.float32(-0.5 / grid.bandwidth**2)
        self._baseline = baseline.astype(np.float32)
        self._within = self._inside(self._baseline)

    def squared(self, window: Matrix) -> float:
        """Of a window [n, dimensions]."""
        rows = window.astype(np.float32)
        between = float(self._kernel(rows, self._baseline).mean())
        return self._inside(rows) + self._within - 2 * between

    def _inside(self, rows: NDArray[np.float32]) -> float:
        """Mean over pairs of different rows."""
        n = len(rows)
        return (float(self._kernel(rows, rows).sum(dtype=np.float64)) - n) / (n * (n - 1))

    def _kernel(self, x: NDArray[np.float32], y: NDArray[np.float32]) -> NDArray[np.float32]:
        squares = x @ y.T
        squares *= -2
        squares += (x**2).sum(axis=1)[:, None]
        squares += (y**2).sum(axis=1)
        squares *= self._scale
        return np.exp(squares, out=squares)


def measure(repetitions: Iterable[int]) -> dict[int, Measured]:
    """Score all changes in each of the repetitions, by the rows of a window."""
    found: dict[int, list[tuple[list[tuple[float, ...]], list[tuple[float, ...]]]]] = {}
    for repetition in repetitions:
        random = np.random.default_rng([SEED, repetition])
        baseline = random.standard_normal((BASELINE_ROWS, DIMENSIONS))
        grid = fit_vectors(baseline)
        theirs, exact = _whole(Counts.of(grid, baseline)), Exact(grid, baseline)
        for rows in ROWS:
            calm, *others = random.standard_normal((1 + NULL, rows, DIMENSIONS))
            windows = (WORLDS[world](calm, strength, random) for world, strength in CHANGES)
            changed = [_seen(grid, theirs, exact, window) for window in windows]
            null = [_seen(grid, theirs, exact, window) for window in others]
            found.setdefault(rows, []).append((changed, null))
    whole = {
        rows: (np.array([one for one, _ in each]), np.array([other for _, other in each]))
        for rows, each in found.items()
    }
    return {
        rows: Measured(changed[..., :-1], null[..., :-1], changed[..., -1])
        for rows, (changed, null) in whole.items()
    }


def _seen(
    grid: Grid, theirs: NDArray[np.int64], exact: Exact, window: Matrix
) -> tuple[float, float, float, float]:
    """Scores of the tests, and bytes."""
    counts = Counts.of(grid, window)
    ours = _whole(counts)
    return (
        distance_squared(grid, ours, theirs),
        mmd_squared(ours, theirs, cells=grid.cells),
        exact.squared(window),
        len(pack(counts)),
    )


def _whole(counts: Counts) -> NDArray[np.int64]:
    return np.concatenate([counts.cells, counts.sums])


def hundredth(dimensions: int, random: np.random.Generator) -> int:
    """Rows, in steps of 20, from which on a window takes at most a hundredth of the bytes of its
    rows of float32."""
    grid = fit_vectors(random.standard_normal((BASELINE_ROWS, dimensions)))
    rows = 20
    while True:
        counts = Counts.of(grid, random.standard_normal((rows, dimensions)))
        if len(pack(counts)) * 100 <= RAW * dimensions * rows:
            return rows
        rows += 20


def render(measured: dict[int, Measured]) -> str:
    """As Markdown."""
    found = {rows: powers(each.changed, each.null) for rows, each in measured.items()}
    told = {
        (rows, number): [against(of, number, test, EXACT) for test in (OURS, PLAIN)]
        for rows, of in found.items()
        for number in range(len(CHANGES))
    }
    lines = [
        (
            *CHANGES[number],
            f"{rows:,}",
            *(f"{power:.3f}" for power in found[rows].value[number]),
            *(each.text for each in both),
            f"{measured[rows].sizes[:, number].mean():,.0f}",
            f"1/{RAW * DIMENSIONS * rows / measured[rows].sizes[:, number].mean():.0f}",
        )
        for (rows, number), both in told.items()
    ]
    heads = ("change", "strength", "rows", *TESTS, "edgeml / exact", "plain / exact", "bytes")
    repetitions = len(next(iter(measured.values())).changed)
    random = np.random.default_rng(SEED)
    enough = ", ".join(f"{hundredth(size, random):,} of {size:,}" for size in SIZES)
    ours, plain = (summary([both[test] for both in told.values()]) for test in (OURS, PLAIN))
    return "\n\n".join(
        [
            setting("numpy"),
            f"{repetitions:,} windows a line of vectors of {DIMENSIONS} float32 against "
            f"{BASELINE_ROWS:,} of the baseline, thresholds from {NULL * repetitions:,} windows "
            f"where nothing changed. Beside the exact MMD, edgeml has {ours}. The plain distance "
            f"of the features has {plain}.",
            f"{LEGEND} The bytes are at most a hundredth of the vectors' as float32 from so many "
            f"vectors on: {enough} dimensions.",
            table((*heads, "of the rows'"), lines),
        ]
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--count", type=int, default=2_000)
    parser.add_argument("--write", action="store_true", help="into docs/benchmarks.md")
    options = parser.parse_args(arguments)
    text = render(measure(range(options.count)))
    print(text)
    if options.write:
        write_section("drift embeddings", text)


if __name__ == "__main__":
    sys.exit(main())
