"""Accuracy from counts: without labels within its interval, with labels exactly."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeml.bundle import Tensor
from edgeml.errors import StatisticsError
from edgeml.statistics import Baseline, Counts, fit_baseline
from edgeml.statistics.accuracy import (
    Calibration,
    calibrate,
    confidence_bins,
    estimated_accuracy,
    feedback,
    feedback_counts,
    largest_gap,
    wilson,
)

BINS = 16
SCORES = Tensor(name="scores", shape=(1, 4), dtype="float32", meaning="scores")

outcomes = st.lists(st.tuples(st.floats(0, 1) | st.just(float("nan")), st.booleans()), max_size=40)


def counted(pairs) -> np.ndarray:
    return feedback_counts([sure for sure, _ in pairs], [right for _, right in pairs])


def drawn(random, n, *, accuracy=lambda sure: sure):
    """Samples of a model that is right as often as ``accuracy`` says at its confidence."""
    sure = random.beta(4, 2, n)
    return sure, random.random(n) < accuracy(sure)


@given(outcomes, outcomes)
def test_feedback_adds_and_subtracts(a, b):
    both = counted(a + b)
    np.testing.assert_array_equal(both, counted(a) + counted(b))
    np.testing.assert_array_equal(both - counted(b), counted(a))


@given(outcomes)
def test_every_sample_with_a_confidence_is_counted_once(pairs):
    known = [right for sure, right in pairs if not np.isnan(sure)]
    counts = counted(pairs)
    assert counts.shape == (BINS, 2)
    assert counts[:, 1].sum() == sum(known)
    assert counts.sum() == len(known)


@given(outcomes, st.lists(st.integers(0, 50), min_size=BINS, max_size=BINS))
def test_an_estimate_is_a_share_within_its_interval(pairs, cells):
    calibration = calibrate([sure for sure, _ in pairs], [right for _, right in pairs])
    found = estimated_accuracy(cells, calibration)
    assert found.n == sum(cells)
    if found.n:
        assert 0 <= found.low <= found.value <= found.high <= 1
    else:
        assert np.isnan(found.value)


def test_the_evaluation_set_itself_is_estimated_as_accurate_as_it_was():
    sure, right = drawn(np.random.default_rng(0), 5000)
    found = estimated_accuracy(feedback_counts(sure, right).sum(axis=1), calibrate(sure, right))
    assert found.value == pytest.approx(right.mean(), abs=0.002)


def test_the_interval_holds_the_accuracy_as_often_as_it_says():
    """The model is overconfident, and the world moves towards inputs of which it is less sure."""
    random = np.random.default_rng(1)
    true = lambda sure: sure**1.5  # noqa: E731
    whole = random.beta(3, 3, 200_000)
    truth = true(whole).mean()
    held = 0
    for _ in range(400):
        calibration = calibrate(*drawn(random, 800, accuracy=true))
        window = random.beta(3, 3, 300)
        cells = feedback_counts(window, np.zeros(300)).sum(axis=1)
        found = estimated_accuracy(cells, calibration)
        held += found.low <= truth <= found.high
    assert 0.92 <= held / 400 <= 0.98


def test_a_confidence_that_was_never_evaluated_counts_for_what_it_says():
    calibration = Calibration(rows=(0,) * BINS, correct=(0,) * BINS)
    cells = [0] * BINS
    cells[12] = 1000
    found = estimated_accuracy(cells, calibration)
    assert found.value == pytest.approx(12.5 / 16)
    assert found.high - found.low > 0.2, "and for as unsure, however many rows there are"


def test_other_bins_are_refused():
    with pytest.raises(StatisticsError, match="8 confidence bins"):
        estimated_accuracy([1] * 8, calibrate([0.5], [True]))


def test_a_calibrated_model_has_no_calibration_error_but_that_of_chance():
    random = np.random.default_rng(2)
    good = feedback(feedback_counts(*drawn(random, 40_000)))
    bad = feedback(feedback_counts(*drawn(random, 40_000, accuracy=lambda sure: sure - 0.1)))
    few = feedback(feedback_counts(*drawn(random, 100)))
    assert good.calibration_error < 0.01
    assert bad.calibration_error == pytest.approx(0.1, abs=0.01)
    assert few.calibration_error == pytest.approx(few.expected_error, rel=0.6)
    assert bad.accuracy.low < bad.accuracy.value < bad.accuracy.high


def test_no_feedback_says_nothing():
    found = feedback(np.zeros((BINS, 2), dtype=int))
    assert np.isnan(found.calibration_error)
    assert (found.accuracy.low, found.accuracy.high, found.accuracy.n) == (0, 1, 0)


def test_the_gap_between_groups_is_told_from_chance():
    random = np.random.default_rng(3)
    day = feedback_counts(*drawn(random, 2000))
    night = feedback_counts(*drawn(random, 500, accuracy=lambda sure: sure - 0.2))
    gap = largest_gap({"day": day, "night": night, "none": np.zeros((BINS, 2))})
    assert gap is not None
    assert (gap.best, gap.worst) == ("day", "night")
    assert gap.low > 0.1
    assert largest_gap({"day": day}) is None


def test_equal_groups_show_a_gap_as_seldom_as_the_interval_says():
    random = np.random.default_rng(6)
    found = [
        largest_gap({name: feedback_counts(*drawn(random, 300)) for name in "abcd"})
        for _ in range(300)
    ]
    shown = sum(gap is not None and gap.low > 0 for gap in found)
    assert shown <= 0.08 * 300


@given(st.integers(0, 50), st.integers(1, 50))
def test_wilsons_interval_holds_the_share(right, wrong):
    found = wilson(right, right + wrong)
    assert 0 <= found.low <= found.value <= found.high <= 1


def test_wilsons_interval_is_the_textbooks():
    found = wilson(15, 148)  # Newcombe, 1998, table 1
    assert (found.low, found.high) == pytest.approx((0.0624, 0.1605), abs=1e-4)


def test_a_baseline_carries_how_often_the_model_was_right():
    random = np.random.default_rng(4)
    scores = random.normal(size=(300, 4)).astype(np.float32)
    labels = np.where(random.random(300) < 0.7, scores.argmax(axis=1), 0)
    fitted = fit_baseline(
        {"scores": scores},
        {"scores": scores},
        input_tensors=(SCORES,),
        output_tensors=(SCORES,),
        evaluated={"scores": (scores, labels)},
    )
    into, out = Baseline.decode(fitted.encode()).tensors
    assert into.calibration is None
    assert out.calibration is not None
    assert sum(out.calibration.rows) == 300
    assert sum(out.calibration.correct) == (scores.argmax(axis=1) == labels).sum()
    # A device's counts, and what is made of them.
    stream = next(each for each in out.streams if each.name.endswith("confidence"))
    counts = Counts.of(stream.grid, out.compute(scores)[:, 1])
    cells = confidence_bins(stream.grid, counts.cells)
    assert cells.tolist() == list(out.calibration.rows)
    assert estimated_accuracy(cells, out.calibration).n == 300


def test_on_real_digits_the_estimate_follows_the_accuracy_into_noise():
    datasets = pytest.importorskip("sklearn.datasets")  # not on a device
    from sklearn.linear_model import LogisticRegression

    pixels, labels = datasets.load_digits(return_X_y=True)
    random = np.random.default_rng(5)
    order = random.permutation(len(labels))
    train, evaluate, world = order[:700], order[700:1200], order[1200:]
    model = LogisticRegression(max_iter=500, C=0.01).fit(pixels[train], labels[train])

    def judged(rows, noise):
        shares = model.predict_proba(pixels[rows] + random.normal(0, noise, pixels[rows].shape))
        return shares.max(axis=1), shares.argmax(axis=1) == labels[rows]

    calibration = calibrate(*judged(evaluate, 0))
    falls = []
    for noise in (0, 1, 2, 4):
        sure, right = judged(world, noise)
        found = estimated_accuracy(feedback_counts(sure, right).sum(axis=1), calibration)
        falls.append(found.value)
        if noise <= 2:
            assert found.value == pytest.approx(right.mean(), abs=0.03), noise
        else:  # What its assumption costs: the model is surer than it should be.
            assert found.value > right.mean() + 0.03
    assert falls == sorted(falls, reverse=True)
