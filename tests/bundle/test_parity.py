"""How near an artifact comes to its source, and whether that is near enough."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeml.bundle.manifest import Tolerance
from edgeml.bundle.parity import compare, shortfall

STRICT = Tolerance(cosine=0.9999, agreement=0.99)


def rows(*values: list[float]) -> dict[str, np.ndarray]:
    return {"scores": np.array(values, dtype=np.float32)}


def test_the_same_values_agree_in_everything():
    parity = compare(rows([1, 2], [3, 1]), rows([1, 2], [3, 1]), ("scores",), STRICT)
    assert parity.cosine == pytest.approx(1)
    assert (parity.max_abs, parity.agreement, parity.samples) == (0, 1, 2)
    assert shortfall(parity) == ""


def test_a_changed_decision_is_a_loss_of_agreement():
    parity = compare(rows([1, 2], [3, 1]), rows([1, 2], [1, 3]), ("scores",), STRICT)
    assert parity.agreement == 0.5
    assert parity.max_abs == 2
    assert "agreement 0.500 (at least 0.99)" in shortfall(parity)


def test_a_label_is_a_decision_whatever_its_number():
    labels = {"label": np.array([0, 2, 2, 7])}
    parity = compare(labels, {"label": np.array([[0], [2], [2], [8]])}, (), STRICT)
    assert (parity.cosine, parity.max_abs, parity.agreement) == (1, 0, 0.75)
    assert shortfall(parity).startswith("agreement 0.750")


def test_an_output_that_is_no_decision_has_no_agreement():
    parity = compare(rows([1, 2]), rows([2, 1]), (), STRICT)
    assert parity.agreement is None
    assert parity.tolerance.agreement is None
    assert shortfall(parity).startswith("cosine 0.80000")


def test_the_worst_output_counts():
    source = {"a": np.ones((2, 3)), "b": np.array([[1.0, 0.0], [1.0, 0.0]])}
    found = {"a": np.ones((2, 3)), "b": np.array([[0.0, 1.0], [0.0, 1.0]])}
    parity = compare(source, found, ("b",), STRICT)
    assert (parity.cosine, parity.agreement) == (0, 0)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_value_that_is_not_finite_fails_the_check(value: float):
    parity = compare(rows([1, 2], [3, 1]), rows([1, value], [3, 1]), ("scores",), STRICT)
    assert parity.cosine == -1
    assert parity.agreement == 0.5
    assert np.isfinite(parity.max_abs)
    assert shortfall(parity)


def test_an_output_that_is_all_zero_must_stay_zero():
    assert compare(rows([0, 0]), rows([0, 0]), (), STRICT).cosine == 1
    assert compare(rows([0, 0]), rows([0, 1]), (), STRICT).cosine == 0


@given(st.lists(st.floats(-100, 100, width=32), min_size=4, max_size=4), st.floats(0.1, 10))
def test_the_cosine_does_not_see_scale_and_never_leaves_its_range(values: list[float], by: float):
    source = {"y": np.array(values).reshape(2, 2)}
    parity = compare(source, {"y": source["y"] * by}, (), STRICT)
    assert -1 <= parity.cosine <= 1
    assert parity.cosine == pytest.approx(1)


@pytest.mark.parametrize(("changed", "misses"), [(0, False), (1, False), (2, True)])
def test_of_eight_golden_decisions_one_may_differ_where_a_tenth_may(changed: int, misses: bool):
    source = np.tile([1.0, 0.99], (8, 1))
    found = source.copy()
    found[:changed] = found[:changed, ::-1]
    tolerance = Tolerance(cosine=0.98, agreement=0.9)
    parity = compare({"y": source}, {"y": found}, ("y",), tolerance)
    assert bool(shortfall(parity, golden=True)) is misses
    assert bool(shortfall(parity)) is (changed > 0), "the exporter, with many samples, is strict"


def test_a_single_column_decides_on_either_side_of_its_threshold():
    sigmoid = {"p": np.array([[0.1], [0.9], [0.4], [0.6]])}
    nearly = {"p": np.array([[0.2], [0.8], [0.45], [0.49]])}
    assert compare(sigmoid, nearly, ("p",), STRICT).agreement == 0.75
    logits = {"p": np.array([[-4.0], [3.0], [0.3], [-0.2]])}
    other = {"p": np.array([[-3.0], [2.0], [0.1], [0.2]])}
    assert compare(logits, other, ("p",), STRICT).agreement == 0.75
