"""How accurate an artifact is."""

import numpy as np
import pytest

from edgeml.exporter.judging.metrics import share


def right(good: int, count: int) -> np.ndarray:
    return np.arange(count) < good


def test_accuracy_has_a_lower_bound_that_grows_with_the_samples():
    few, many = (share("top-1", right(n, n), all_seen=True) for n in (4, 20))
    assert few.value == many.value == 1
    # Clopper and Pearson: with all of n right, the bound is .05 ** (1 / n).
    assert few.lower == pytest.approx(0.05 ** (1 / 4))
    assert many.lower == pytest.approx(0.05 ** (1 / 20))
    assert many.confidence == 0.95


def test_accuracy_of_none_right_is_zero_with_bound_zero():
    found = share("top-1", right(0, 2), all_seen=True)
    assert (found.value, found.lower, found.samples) == (0, 0, 2)


def test_the_bound_of_a_check_that_stopped_where_it_chose_is_the_wider_one():
    outcomes = np.random.default_rng(0).permutation(right(190, 200))
    whole, stopped = (share("top-1", outcomes, all_seen=seen) for seen in (True, False))
    assert stopped.value == whole.value == 0.95
    assert 0.85 < stopped.lower < whole.lower
