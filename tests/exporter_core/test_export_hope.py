"""A check that goes no further once its artifact cannot pass any more: never too early."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from edgeml.bundle.manifest import Tolerance
from edgeml.bundle.parity import compare, shortfall
from edgeml.exporter.judging.hope import Hope

Array = NDArray[Any]
INT8 = Tolerance(cosine=0.98, agreement=0.9)


def scores(seed: int, count: int = 100, columns: int = 5) -> Array:
    return np.random.default_rng(seed).standard_normal((count, columns)).astype(np.float32)


@given(
    seed=st.integers(0, 1000),
    noise=st.floats(0, 2),
    seen=st.integers(1, 99),
    rest=st.sampled_from(["perfect", "doubled", "fitting", "the same"]),
    decisions=st.sampled_from([(), ("scores",)]),
)
def test_what_is_told_to_be_lost_fails_whatever_comes(
    seed: int, noise: float, seen: int, rest: str, decisions: tuple[str, ...]
):
    source = scores(seed)
    found = source + np.float32(noise) * scores(seed + 1)
    rows = np.random.default_rng(seed).permutation(100)
    if not Hope({"scores": source}, decisions, INT8).lost(
        rows[:seen], {"scores": found[rows[:seen]]}
    ):
        return
    left, known = rows[seen:], rows[:seen]
    # The factor for the samples left that the cosine over all is largest with.
    fitting = np.square(found[known]).sum() / max(1e-9, (source[known] * found[known]).sum())
    factor = {"perfect": 1, "doubled": 2, "fitting": fitting, "the same": 0}[rest]
    if factor:
        found[left] = np.float32(factor) * source[left]
    whole = compare({"scores": source}, {"scores": found}, decisions, INT8)
    assert shortfall(whole)
    # And so does what was seen of it.
    part = compare({"scores": source[known]}, {"scores": found[known]}, decisions, INT8)
    assert shortfall(part)


def test_a_collapsed_artifact_is_lost_after_few_samples():
    source = scores(1)
    hope = Hope({"scores": source}, (), INT8)
    other = scores(2)
    assert not hope.lost(np.arange(2), {"scores": other[:2]})
    assert hope.lost(np.arange(2, 10), {"scores": other[2:10]})


def test_a_sound_one_never_is():
    source = scores(1)
    hope = Hope({"scores": source}, ("scores",), INT8)
    found = source + np.float32(0.02) * scores(2)
    assert not any(
        hope.lost(np.arange(i, i + 10), {"scores": found[i : i + 10]}) for i in range(0, 100, 10)
    )


def test_too_many_other_decisions_are_enough():
    source = np.eye(2, dtype=np.float32)[np.zeros(100, dtype=int)] + np.float32(0.999)
    found = source[:, ::-1].copy()  # nearly the same numbers
    tolerance = Tolerance(cosine=0.5, agreement=0.9)
    hope = Hope({"scores": source}, ("scores",), tolerance)
    assert not hope.lost(np.arange(10), {"scores": found[:10]})
    assert hope.lost(np.array([10]), {"scores": found[10:11]})


@pytest.mark.parametrize(("wrong", "lost"), [(10, False), (11, True)])
def test_a_number_of_a_class_is_a_decision(wrong: int, lost: bool):
    source = np.zeros((100, 1), dtype=np.int64)
    found = source.copy()
    found[:wrong] = 1
    assert Hope({"label": source}, (), INT8).lost(np.arange(20), {"label": found[:20]}) is lost


def test_a_value_that_is_not_finite_is_enough():
    source = scores(1)
    found = source[:1].copy()
    found[0, 0] = np.nan
    assert Hope({"scores": source}, (), INT8).lost(np.arange(1), {"scores": found})


def test_a_source_of_zeros_loses_nothing():
    zeros = np.zeros((4, 2), dtype=np.float32)
    assert not Hope({"scores": zeros}, (), INT8).lost(np.arange(2), {"scores": zeros[:2]})
