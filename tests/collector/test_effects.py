"""Effect sizes: laws that hold for any counts, and values that can be checked by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeml.collector.drift.effects import (
    effects,
    excess_js,
    js_bias,
    js_divergence,
    shares,
    standard_mean,
)
from edgeml.collector.drift.policy import Policy
from edgeml.statistics import Counts, Grid

GRID = Grid(kind="numeric", bins=8, low=0.0, high=8.0)
CLASSES = Grid(kind="categorical", bins=4)

vectors = st.lists(st.integers(0, 1000), min_size=GRID.cells, max_size=GRID.cells).map(
    lambda cells: np.asarray(cells, dtype=np.int64)
)
some = vectors.filter(lambda cells: cells[:-1].sum() > 0)


def test_numbers_whose_sum_no_float_holds_have_effects() -> None:
    grid = Grid(kind="numeric", bins=8, low=0.0, high=8e307)
    training, window = np.zeros((2, grid.cells), dtype=np.int64)
    training[[3, 7]], window[[4, 8]] = 250, 20
    found = effects(grid, window, training)
    assert found.w1 == pytest.approx(0.5)  # a bin, of which the two values are four apart
    assert standard_mean(grid, window, training) == pytest.approx(0.5)


@given(some, some)
def test_every_effect_is_finite_and_in_its_range(a: np.ndarray, b: np.ndarray) -> None:
    found = effects(GRID, a, b)
    assert 0 <= found.excess_js <= found.js <= 1
    assert found.psi >= -1e-12
    assert found.w1 is not None
    assert 0 <= found.w1 < math.inf
    assert found.ks is not None
    assert 0 <= found.ks <= 1 + 1e-12


@given(some)
def test_nothing_lies_away_from_itself(a: np.ndarray) -> None:
    found = effects(GRID, a, a)
    assert (found.js, found.w1, found.ks) == pytest.approx((0, 0, 0), abs=1e-12)
    assert found.psi == pytest.approx(0, abs=1e-12)


@given(some, some)
def test_js_and_ks_do_not_care_which_side_is_which(a: np.ndarray, b: np.ndarray) -> None:
    there, back = effects(GRID, a, b), effects(GRID, b, a)
    assert there.js == pytest.approx(back.js, abs=1e-9)
    assert there.ks == pytest.approx(back.ks, abs=1e-9)


@given(some, some, st.integers(2, 50))
def test_more_rows_of_the_same_are_no_more_drift(a: np.ndarray, b: np.ndarray, times: int) -> None:
    few, many = effects(GRID, a, b), effects(GRID, a * times, b)
    assert (few.js, few.w1, few.ks) == pytest.approx((many.js, many.w1, many.ks), abs=1e-9)


def test_a_shift_by_one_standard_deviation_is_a_w1_of_one() -> None:
    fine = Grid(kind="numeric", bins=400, low=-8.0, high=8.0)
    values = np.random.default_rng(1).normal(size=200_000)
    there, here = Counts.of(fine, values + 1).cells, Counts.of(fine, values).cells
    assert effects(fine, there, here).w1 == pytest.approx(1.0, abs=0.02)
    assert standard_mean(fine, there, here) == pytest.approx(1.0, abs=0.02)
    # max |Φ(x) − Φ(x − 1)| is at x = ½.
    assert effects(fine, there, here).ks == pytest.approx(math.erf(0.5 / math.sqrt(2)), abs=0.01)


def test_js_and_psi_are_what_their_formulas_say() -> None:
    """In bits, and in nats; so many rows that what smooths the PSI does not show."""
    p, q = np.array([0.5, 0.2, 0.2, 0.1, 0.0, 0.0]), np.array([0.3, 0.4, 0.2, 0.1, 0.0, 0.0])
    a, b = (np.rint(10_000_000 * each).astype(np.int64) for each in (p, q))
    found = effects(CLASSES, a, b)
    middle = [0.4, 0.3]
    js = sum(
        x / 2 * math.log2(x / m)
        for side in (p, q)
        for x, m in zip(side[:2].tolist(), middle, strict=True)
    )
    assert found.js == pytest.approx(js, abs=1e-6)
    assert found.psi == pytest.approx(0.2 * math.log(5 / 3) + 0.2 * math.log(2), abs=1e-4)


def test_distributions_that_share_nothing_are_one_bit_apart() -> None:
    a, b = np.zeros((2, GRID.cells), dtype=np.int64)
    a[2], b[5] = 50, 70
    assert effects(GRID, a, b).js == pytest.approx(1.0)


def test_categories_have_no_order_and_no_distance() -> None:
    a, b = np.array([5, 1, 0, 0, 0]), np.array([1, 5, 0, 0, 0])
    found = effects(CLASSES, a, b)
    assert (found.w1, found.ks) == (None, None)
    assert found.js > 0.1


def test_a_window_of_invalid_values_only_has_a_js_and_no_w1() -> None:
    a, b = np.zeros((2, GRID.cells), dtype=np.int64)
    a[-1], b[3] = 40, 40
    found = effects(GRID, a, b)
    assert found.js == pytest.approx(1.0)
    assert found.w1 is None


def test_few_rows_look_drifted_to_js_but_not_to_its_excess() -> None:
    random = np.random.default_rng(2)
    even = np.full(11, 1 / 11)
    pairs = [(random.multinomial(60, even), random.multinomial(600, even)) for _ in range(400)]
    raw = np.mean([js_divergence(shares(a), shares(b)) for a, b in pairs])
    assert raw == pytest.approx(js_bias(11, 60, 600), rel=0.1)
    assert np.mean([excess_js(a, b) for a, b in pairs]) < 0.4 * raw


def test_healthy_windows_of_31_rows_have_no_effect_worth_an_alarm() -> None:
    random = np.random.default_rng(3)
    grid = Grid(kind="numeric", bins=32, low=-3.0, high=3.0)
    pairs = [[Counts.of(grid, random.normal(size=n)).cells for n in (31, 359)] for _ in range(400)]
    found = [effects(grid, *pair) for pair in pairs]
    assert np.mean([each.js for each in found]) > 0.15
    assert np.mean([each.excess_js for each in found]) < Policy().min_effect


def test_what_has_moved_keeps_its_excess() -> None:
    a, b = np.zeros((2, GRID.cells), dtype=np.int64)
    a[2], b[5] = 31, 359
    found = effects(GRID, a, b)
    assert found.excess_js == excess_js(a, b) == pytest.approx(1 - js_bias(2, 31, 359))
