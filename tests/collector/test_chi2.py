"""The two-sample χ²: its level, its power, and that taking the baseline as exact would fail."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from edgeml.collector.drift.chi2 import (
    LEVEL,
    POWER,
    cell_groups,
    chi_square,
    chi_squares,
    group_edges,
)
from edgeml.collector.drift.effects import effects, many_effects
from edgeml.statistics import Counts, Grid

GRID = Grid(kind="numeric", bins=32, low=-4.0, high=4.0)
TRIALS = 3000


def rejected(n: int, m: int, *, seed: int, shift: float = 0.0) -> float:
    """Share of tests of normal rows that reject at the nominal level."""
    random = np.random.default_rng(seed)
    found = [
        chi_square(
            GRID,
            Counts.of(GRID, random.normal(shift, 1, n)).cells,
            Counts.of(GRID, random.normal(0, 1, m)).cells,
        ).p
        for _ in range(TRIALS)
    ]
    return float(np.mean(np.asarray(found) < LEVEL))


@pytest.mark.parametrize(("n", "m"), [(40, 500), (300, 500), (1000, 1000)])
def test_it_holds_its_level(n: int, m: int) -> None:
    # ± 4 standard errors of a share of 5 % in 3,000.
    assert rejected(n, m, seed=n) == pytest.approx(0.05, abs=4 * (0.05 * 0.95 / TRIALS) ** 0.5)


def test_a_one_sample_test_would_not() -> None:
    random = np.random.default_rng(3)
    fired = 0
    for _ in range(300):
        baseline = Counts.of(GRID, random.normal(size=500)).cells
        window = Counts.of(GRID, random.normal(size=2000)).cells
        edges = group_edges(baseline, 8)
        a, b = np.add.reduceat(window, edges), np.add.reduceat(baseline, edges)
        a, b = a[b > 0], b[b > 0]
        fired += stats.chisquare(a, b * (a.sum() / b.sum())).pvalue < LEVEL
    assert fired / 300 > 0.3


def test_it_sees_a_difference() -> None:
    assert rejected(300, 500, seed=4, shift=0.5) > 0.95


def test_the_smallest_detectable_effect_is_found_four_times_in_five() -> None:
    """At the effect that the test names, it rejects with the promised power."""
    random = np.random.default_rng(5)
    grid = Grid(kind="categorical", bins=4)
    n, m = 200, 400
    even = np.full(4, 0.25)
    found = chi_square(grid, random.multinomial(n, [*even, 0]), random.multinomial(m, [*even, 0]))
    # Two samples off the middle by ± d each: the noncentrality is Σ d²/¼ · 4/(1/n + 1/m).
    tilt = np.array([1, -1, 1, -1]) * found.detectable * 0.25 / np.sqrt(2)
    fired = [
        chi_square(
            grid,
            random.multinomial(n, [*(even + tilt), 0]),
            random.multinomial(m, [*(even - tilt), 0]),
        ).p
        < LEVEL
        for _ in range(TRIALS)
    ]
    assert np.mean(fired) == pytest.approx(POWER, abs=0.05)


@given(st.lists(st.integers(0, 50), min_size=1, max_size=40), st.integers(1, 16))
def test_groups_are_contiguous_and_no_more_than_asked_for(masses: list[int], groups: int) -> None:
    edges = group_edges(np.asarray(masses), groups)
    assert edges[0] == 0
    assert (np.diff(edges) > 0).all()
    assert len(edges) <= groups + 1


@pytest.mark.parametrize("share", [0.97, 0.995, 0.999])
@pytest.mark.parametrize("atoms", [(0.05,), (-1.05, 1.05)], ids=["one atom", "two"])
def test_beside_atoms_that_have_nearly_all_rows_it_holds_its_level(
    atoms: tuple[float, ...], share: float
) -> None:
    """Not by far too few rows in groups between them: .12 of them were rejected for two atoms with
    .999 of the rows."""
    random = np.random.default_rng(7)
    grid = Grid(kind="numeric", bins=32, low=-4.0, high=4.0, atoms=atoms)
    p = np.zeros(grid.cells)
    p[1:33] = (1 - share) / 32
    p[34 : 34 + len(atoms)] = share / len(atoms)
    found = [
        each.p
        for _ in range(60)
        for each in chi_squares(
            grid, random.multinomial(300, p, size=100), random.multinomial(10_000, p)
        )
    ]
    assert np.mean(np.asarray(found) < LEVEL) < 0.07


def test_what_leaves_an_atom_is_seen() -> None:
    """A tenth of the rows, where one in a thousand did before."""
    grid = Grid(kind="numeric", bins=32, low=-4.0, high=4.0, atoms=(0.05,))
    baseline, window = np.zeros((2, grid.cells), dtype=np.int64)
    baseline[[10, 25, 34]] = 5, 5, 9990
    window[[10, 34]] = 10, 90
    assert chi_square(grid, window, baseline).p < 1e-6


def test_invalid_values_are_a_group_of_their_own() -> None:
    random = np.random.default_rng(6)
    baseline = Counts.of(GRID, random.normal(size=500)).cells
    window = Counts.of(GRID, np.append(random.normal(size=180), np.full(20, np.nan))).cells
    assert chi_square(GRID, window, baseline).p < 1e-6


def test_an_empty_side_is_no_evidence() -> None:
    empty = np.zeros(GRID.cells, dtype=np.int64)
    full = Counts.of(GRID, np.linspace(-3, 3, 100)).cells
    assert chi_square(GRID, empty, full).p == 1.0
    assert chi_square(GRID, full, empty).p == 1.0


def test_what_is_no_number_is_in_no_group_of_the_line() -> None:
    """Not even where the line's last cell has so few rows that it is taken to the first group."""
    grid = Grid(kind="numeric", bins=6, low=0.0, high=6.0)
    window, baseline = np.zeros((2, grid.cells), dtype=np.int64)
    window[[1, 2, grid.nan]] = 30, 30, 20
    baseline[[1, 2, 7, grid.nan]] = 3000, 3000, 1, 20
    groups = cell_groups(grid, window, baseline)
    assert groups[7] == groups[1] != groups[2]
    assert groups[grid.nan] not in (groups[1], groups[2])
    assert chi_square(grid, window, baseline).dof == 2


@given(st.data())
def test_many_windows_at_once_are_tested_as_each_by_itself(data: st.DataObject) -> None:
    """Whatever stands beside it: windows of other sizes, and one of nothing."""
    kind = data.draw(st.sampled_from(["numeric", "categorical"]))
    grid = Grid(kind=kind, bins=6)
    counts = st.lists(st.integers(0, 40), min_size=grid.cells, max_size=grid.cells)
    windows = np.array(data.draw(st.lists(counts, min_size=1, max_size=4)))
    baseline = np.array(data.draw(counts))
    apart = [(chi_square(grid, w, baseline), effects(grid, w, baseline)) for w in windows]
    together = chi_squares(grid, windows, baseline), many_effects(grid, windows, baseline)
    for (one, effect), both in zip(apart, zip(*together, strict=True), strict=True):
        assert both[0] == one
        assert both[1] == effect
