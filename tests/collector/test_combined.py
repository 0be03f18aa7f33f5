"""The combined test: its level, its power beside KS, and rows that depend on each other.

Figures over many more repetitions are in docs/benchmarks.md.
"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from edgeml.collector.drift.combined import cauchy_combination, combined_test
from edgeml.collector.drift.compare import Measure, Measured, benjamini_yekutieli, compare
from edgeml.collector.drift.dependence import design_effect
from edgeml.collector.drift.linear_rank import normal_scores, score_difference
from edgeml.drift_report.stretches import Stretches
from edgeml.statistics import Counts, Grid

GRID = Grid(kind="numeric", bins=32, low=-3.3, high=3.3)
CLASSES = Grid(kind="categorical", bins=4)

vectors = st.lists(st.integers(0, 500), min_size=GRID.cells, max_size=GRID.cells).map(np.array)


def counted(values: np.ndarray) -> np.ndarray:
    return Counts.of(GRID, values).cells


def stretched(values: np.ndarray) -> np.ndarray:
    stretches = Stretches(GRID.cells)
    stretches.add(GRID.locate(values))
    return stretches.complete


def autoregressive(random: np.random.Generator, correlation: float, rows: int) -> np.ndarray:
    values = random.normal(size=rows)
    for row in range(1, rows):
        values[row] = correlation * values[row - 1] + values[row] * np.sqrt(1 - correlation**2)
    return values


@given(vectors, vectors)
def test_any_counts_give_a_p_value(window: np.ndarray, baseline: np.ndarray) -> None:
    found = compare(GRID, window, baseline)
    assert 0 <= found.p <= 1
    assert 0 <= found.effect <= 1
    for part in found.parts.values():
        assert 0 <= part <= 1
    for measured in found.measures.values():
        assert 0 <= measured.p <= 1


@given(vectors)
def test_nothing_differs_from_itself(cells: np.ndarray) -> None:
    assert combined_test(GRID, cells, cells).p >= 0.5
    assert compare(GRID, cells, cells).effect == 0


@given(vectors, vectors)
def test_which_side_is_which_does_not_matter(a: np.ndarray, b: np.ndarray) -> None:
    assert combined_test(GRID, a, b).p == pytest.approx(combined_test(GRID, b, a).p, rel=1e-6)


def test_the_location_part_is_the_rank_test_of_van_der_waerden() -> None:
    """On a grid fine enough that no two rows share a cell."""
    random = np.random.default_rng(1)
    a, b = random.normal(0.3, 1, 60), random.normal(size=80)
    fine = Grid(kind="numeric", bins=512, low=-4, high=4)
    window, baseline = Counts.of(fine, a).cells, Counts.of(fine, b).cells
    scores = normal_scores(fine, window + baseline)
    difference, variance = score_difference(scores[0], window, baseline)
    z = difference / np.sqrt(variance * (1 / 60 + 1 / 80))
    ranks = stats.rankdata(np.concatenate([a, b]))
    normal = stats.norm.ppf((ranks - 0.5) / 140)
    expected = (normal[:60].mean() - normal[60:].mean()) / np.sqrt(
        normal.var(ddof=1) * (1 / 60 + 1 / 80)
    )
    assert z == pytest.approx(expected, abs=0.03)


def test_its_level_is_the_nominal_one() -> None:
    random = np.random.default_rng(2)
    p = [
        combined_test(GRID, counted(random.normal(size=400)), counted(random.normal(size=4000))).p
        for _ in range(1000)
    ]
    assert 0.03 <= np.mean(np.array(p) <= 0.05) <= 0.075


def test_rare_values_make_no_evidence() -> None:
    """Of 100 rows hardly one is above two, so a score that tells such rows apart is not normal."""
    random = np.random.default_rng(7)
    grid = Grid(kind="numeric", bins=32, low=-0.5, high=8.5, atoms=(0.0, 1.0))
    shares = stats.poisson.pmf(np.arange(8), 0.3)
    rows = [random.choice(8, size=(1000, n), p=shares / shares.sum()) for n in (100, 2000)]
    found = [
        combined_test(grid, Counts.of(grid, window).cells, Counts.of(grid, baseline).cells)
        for window, baseline in zip(*rows, strict=True)
    ]
    assert 0.025 <= np.mean([test.p <= 0.05 for test in found]) <= 0.07
    assert any("tails" not in test.parts for test in found)


def _heavier(x: np.ndarray) -> np.ndarray:
    """Of the same variance, with half of the rows from a t distribution of 3 degrees of freedom."""
    heavy = np.random.default_rng(8).standard_t(3, x.size) / np.sqrt(3)
    return np.where(np.arange(x.size) % 2, heavy, x)


@pytest.mark.parametrize(
    "change",
    [
        lambda x: x + 0.15,
        lambda x: x * 1.15,
        _heavier,
        lambda x: np.where(np.arange(x.size) < 40, 0.3, x),
    ],
    ids=["mean", "scale", "tails", "stuck"],
)
def test_it_finds_what_ks_on_the_rows_finds(change) -> None:  # type: ignore[no-untyped-def]
    random = np.random.default_rng(3)
    ours = theirs = 0
    for _ in range(200):
        window, baseline = change(random.normal(size=500)), random.normal(size=5000)
        ours += combined_test(GRID, counted(window), counted(baseline)).p <= 0.05
        theirs += stats.ks_2samp(window, baseline, method="asymp").pvalue <= 0.05
    assert ours >= 0.9 * theirs


def test_dependent_rows_do_not_fire_where_their_stretches_are_known() -> None:
    random = np.random.default_rng(4)
    naive = corrected = 0
    for _ in range(60):
        window, baseline = (autoregressive(random, 0.9, rows) for rows in (2000, 8000))
        cells = counted(window), counted(baseline)
        naive += combined_test(GRID, *cells).p <= 0.05
        found = combined_test(
            GRID,
            *cells,
            window_stretches=stretched(window),
            baseline_stretches=stretched(baseline),
        )
        corrected += found.p <= 0.05
    assert naive > 40
    assert corrected <= 8


def test_the_design_effect_of_an_autoregression() -> None:
    """(1 + φ) / (1 − φ) for a mean."""
    random = np.random.default_rng(5)
    scores = np.zeros(GRID.cells)
    scores[GRID.ordered] = GRID.centres()
    found = [
        design_effect(stretched(autoregressive(random, 0.8, 20_000)), scores, stationary=True)
        for _ in range(5)
    ]
    assert 6 <= np.median(found) <= 13
    independent = stretched(random.normal(size=20_000))
    assert design_effect(independent, scores, stationary=True) == 1


def test_a_step_in_the_window_is_not_taken_for_dependence() -> None:
    random = np.random.default_rng(6)
    window = random.normal(size=8000) + (np.arange(8000) > 5000)
    found = combined_test(
        GRID,
        counted(window),
        counted(random.normal(size=8000)),
        window_stretches=stretched(window),
        baseline_stretches=stretched(random.normal(size=8000)),
    )
    assert found.p < 1e-4


@pytest.mark.parametrize(("measure", "power"), [("w1", (0.68, 0.92)), ("ks", (0.8, 1.0))])
def test_the_smallest_shift_that_a_measure_shows_is_what_it_says(
    measure: Measure, power: tuple[float, float]
) -> None:
    """Four times in five; KS says what a gap in one place needs, and a shift is seen sooner."""
    random = np.random.default_rng(9)
    n, m = 300, 3000

    def found(shift: float) -> Measured:
        rows = random.normal(shift, 1, n), random.normal(size=m)
        return compare(GRID, *map(counted, rows)).measures[measure]

    least = found(0).detectable
    shift = least if measure == "w1" else 2 * stats.norm.ppf(0.5 + least / 2)
    assert power[0] <= np.mean([found(shift).p <= 0.05 for _ in range(100)]) <= power[1]
    assert np.mean([found(0).p <= 0.05 for _ in range(60)]) <= 0.15


def test_what_ks_could_have_shown_of_one_value_or_of_nothing_is_no_zero() -> None:
    def seen(window: np.ndarray, baseline: np.ndarray) -> float:
        return compare(GRID, counted(window), counted(baseline)).measures["ks"].detectable

    assert seen(np.full(300, 0.5), np.full(3000, 0.5)) == pytest.approx(3 / 300)
    # Three rows in a hundred are new, and are seen.
    assert (
        compare(GRID, counted([0.5] * 97 + [2.0] * 3), counted([0.5] * 3000)).measures["ks"].p
        <= 0.05
    )
    assert compare(GRID, counted([]), counted([0.5])).measures.get("ks") is None
    assert seen(np.full(1, 0.5), np.full(1, 0.5)) == 1


@pytest.mark.parametrize("shares", [(0.25, 0.25, 0.25, 0.25), (0.1, 0.8, 0.05, 0.05)])
def test_the_smallest_gap_that_ks_shows_is_what_it_says_where_there_are_few_values(
    shares: tuple[float, ...],
) -> None:
    """A gap at one place, behind the cell where the share below is nearest to a half."""
    random = np.random.default_rng(12)
    grid = Grid(kind="numeric", bins=4, low=0.0, high=4.0)
    at = int(np.argmin(np.abs(np.cumsum(shares) - 0.5)))

    def found(gap: float) -> Measured:
        moved = np.array(shares)
        moved[at : at + 2] += np.array([gap, -gap]) if shares[at + 1] > gap else [-gap, gap]
        sides = (random.multinomial(n, p) for n, p in ((300, moved), (3000, shares)))
        return compare(grid, *(np.array([0, *cells, 0, 0, 0, 0, 0]) for cells in sides)).measures[
            "ks"
        ]

    least = np.median([found(0).detectable for _ in range(9)])
    power = np.mean([found(float(least)).p <= 0.05 for _ in range(200)])
    assert power == pytest.approx(0.8, abs=0.08)


@pytest.mark.parametrize("measure", ["js", "psi"])
def test_the_smallest_change_of_shares_that_a_measure_shows_is_what_it_says(
    measure: Measure,
) -> None:
    random = np.random.default_rng(10)
    n, m = 200, 400

    def found(tilt: float) -> Measured:
        off = tilt * np.array([1, -1, 1, -1])
        shares = np.array([0.25 + off, 0.25 - off])
        cells = [random.multinomial(rows, p) for rows, p in zip((n, m), shares, strict=True)]
        return compare(CLASSES, *(np.append(c, [0, 0]) for c in cells)).measures[measure]

    least = found(0).detectable
    # Shares of ¼ ± t on one side and ¼ ∓ t on the other are 8t² nats of JS apart, and 64t² of PSI.
    tilt = np.sqrt(least * np.log(2) / 8 if measure == "js" else least / 64)
    power = np.mean([found(tilt).p <= 0.05 for _ in range(200)])
    assert power == pytest.approx(0.8, abs=0.1)


def test_categories_have_a_shape_only() -> None:
    window, baseline = np.array([50, 30, 20, 0, 0, 0]), np.array([300, 300, 300, 0, 0, 0])
    assert set(combined_test(CLASSES, window, baseline).parts) == {"shape"}


def test_the_cauchy_combination_is_between_its_parts_and_bonferroni() -> None:
    assert cauchy_combination([0.2], [1]) == pytest.approx(0.2)
    assert cauchy_combination([], []) == 1
    assert cauchy_combination([1e-30, 0.9], [1, 1]) == pytest.approx(2e-30, rel=0.01)
    assert cauchy_combination([0.0, 1.0], [1, 1]) < 1e-250


@given(st.lists(st.floats(0, 1), min_size=1, max_size=30))
def test_adjusted_p_values_are_those_of_scipy(p: list[float]) -> None:
    expected = stats.false_discovery_control(p, method="by")
    np.testing.assert_allclose(benjamini_yekutieli(p), expected, atol=1e-12)
