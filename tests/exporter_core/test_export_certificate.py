"""Certificates hold: simulated with fixed seeds, on populations where the truth is known."""

import msgspec
import numpy as np
import pytest

from edgeml.bundle.manifest import Certificate
from edgeml.exporter.judging.certificate import (
    PairedTest,
    bound_for_new,
    certify,
    points,
    sentence,
    share_of,
)


def population(size: int, *, worse: int, better: int = 0) -> np.ndarray:
    """Outcomes of which ``worse`` lost against the source and ``better`` won."""
    return np.repeat([1.0, -1.0, 0.0], [worse, better, size - worse - better])


def draw(outcomes: np.ndarray, limit: float, rng: np.random.Generator, **options) -> PairedTest:
    test = PairedTest(limit, population=len(outcomes), confidence=0.95, **options)
    shuffled = rng.permutation(outcomes)
    for start in range(0, len(shuffled), 64):
        if test.update(shuffled[start : start + 64]) != "open":
            break
    return test


RUNS = 300
MOST_WRONG = 25
"""Of 300 runs; with an error of exactly 5 % more would be seen once in 400 times."""


@pytest.mark.parametrize(("worse", "better"), [(10, 0), (30, 20), (110, 90)])
def test_a_drop_just_over_the_limit_is_seldom_certified_and_one_just_under_seldom_refused(
    worse: int, better: int
):
    rng = np.random.default_rng(worse)
    outcomes = population(600, worse=worse, better=better)
    tight, loose = (float(outcomes.sum() + shift) / 600 for shift in (-0.5, 0.5))
    certified = sum(draw(outcomes, tight, rng).verdict == "within" for _ in range(RUNS))
    refused = sum(draw(outcomes, loose, rng).verdict == "beyond" for _ in range(RUNS))
    assert certified <= MOST_WRONG
    assert refused <= MOST_WRONG


def test_the_simulation_would_notice_a_test_that_ignores_how_often_it_looks():
    # A t-test after every 64 samples, at the same 5 %: the error that betting is there to avoid.
    rng = np.random.default_rng(0)
    outcomes = population(3000, worse=330, better=300)
    wrong = 0
    for _ in range(RUNS):
        x = rng.permutation(outcomes) - 0.01  # the drop is one point, as is the limit
        sizes = np.arange(64, 1500, 64)
        z = [x[:n].mean() / (x[:n].std() / np.sqrt(n)) for n in sizes]
        wrong += min(z) < -1.645
    assert wrong > MOST_WRONG


def test_of_many_that_are_just_beyond_the_limit_seldom_one_is_certified():
    # A search takes the first that is: with 5 % for each of them, some 20 % would have one.
    rng = np.random.default_rng(7)
    outcomes = population(600, worse=30, better=20)
    limit = float(outcomes.sum() - 0.5) / 600
    certified = sum(
        any(
            draw(outcomes, limit, rng, share=share_of(number, alone=False)).verdict == "within"
            for number in range(1, 9)
        )
        for _ in range(100)
    )
    assert certified <= 10
    assert sum(share_of(number, alone=False) for number in range(1, 1000)) < 1
    assert share_of(1, alone=True) == 1


def test_of_a_hopeless_one_all_is_told_that_was_run():
    test = PairedTest(0.01, population=5000, confidence=0.95)
    x = np.repeat([1.0, 0.0], [12, 52])  # the first few are enough to refuse it
    assert (test.update(x), test.seen, test.drop) == ("beyond", 64, 12 / 64)


def test_a_clear_answer_comes_early_either_way():
    rng = np.random.default_rng(1)
    good = [draw(population(5000, worse=0), 0.01, rng) for _ in range(20)]
    bad = [draw(population(5000, worse=1000), 0.01, rng) for _ in range(20)]
    assert {test.verdict for test in good} == {"within"}
    assert {test.verdict for test in bad} == {"beyond"}
    assert np.median([test.seen for test in good]) < 600
    assert np.median([test.seen for test in bad]) < 120


def test_the_last_sample_decides_for_certain():
    rng = np.random.default_rng(2)
    for worse, verdict in ((2, "within"), (3, "beyond")):
        test = draw(population(100, worse=worse), 0.02, rng)
        assert test.verdict == verdict


def test_the_order_of_chunks_does_not_matter():
    x = np.random.default_rng(3).permutation(population(1000, worse=20, better=12))
    whole = PairedTest(0.01, population=1000, confidence=0.95)
    single = PairedTest(0.01, population=1000, confidence=0.95)
    whole.update(x)
    for each in x:
        single.update(np.array([each]))
    assert (whole.verdict, whole.seen, whole.total) == (single.verdict, single.seen, single.total)


def test_disagreement_cannot_be_less_than_nothing_and_is_refused_the_sooner():
    x = np.random.default_rng(4).permutation(population(5000, worse=250))
    seen = {
        low: draw(x, 0.01, np.random.default_rng(5), low=low).seen  # the same order for both
        for low in (-1.0, 0.0)
    }
    assert seen[0.0] < seen[-1.0]


def test_the_bound_for_new_samples_covers_the_truth():
    rng = np.random.default_rng(6)
    missed = 0
    for _ in range(150):
        u = rng.random(400)
        x = np.where(u < 0.04, 1.0, np.where(u < 0.06, -1.0, 0.0))  # the true drop is .02
        missed += bound_for_new(x, confidence=0.95) < 0.02
    assert missed <= 15


def test_the_bound_for_new_samples_is_not_below_what_was_seen_nor_of_the_order():
    seen = population(700, worse=36)
    late, early = (bound_for_new(x, confidence=0.95) for x in (seen[::-1], seen))
    assert late == early
    assert 36 / 700 < late < 0.1


def test_the_bound_for_new_samples_shrinks_with_their_number():
    few, more = (bound_for_new(np.zeros(n), confidence=0.95) for n in (100, 1000))
    assert 0.003 < more < 0.01 < few < 0.06
    assert bound_for_new(np.zeros(1), confidence=0.95) == 1


def test_what_a_certificate_says():
    stopped = certify("top-1", np.zeros(1240), limit=0.01, population=5000, confidence=0.95)
    assert sentence(stopped).startswith(
        "drop at most 1 point with 95 % confidence, 1,240 of 5,000 samples; on new ones at most 0.2"
    )
    whole = certify("top-1", population(200, worse=1), limit=1, population=200, confidence=0.9)
    assert sentence(whole).startswith("drop 0.5 points on all 200 samples; on new ones at most")
    assert sentence(whole).endswith("with 90 % confidence")


def test_a_bootstrap_is_called_one():
    found = Certificate(
        metric="auc",
        drop=-0.002,
        confidence=0.95,
        samples=300,
        method="bootstrap",
        population=300,
        beyond=0.0125,
    )
    assert sentence(found) == (
        "drop -0.2 points on all 300 samples; "
        "on new ones at most 1.25 points with 95 % confidence (bootstrap)"
    )
    alike = msgspec.structs.replace(found, drop=0.0, beyond=0.0)
    assert sentence(alike) == (
        "drop 0 points on all 300 samples; a bootstrap says nothing of new ones where no sample "
        "differs"
    )
    assert points(0.01) == "1 point"
