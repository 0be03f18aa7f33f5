"""What names a grid and a baseline: all that its counts mean, and not how the object came about."""

from __future__ import annotations

import copy
import pickle

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeml.bundle import Tensor
from edgeml.statistics import Baseline, Grid, fit_baseline

ENDS = st.sampled_from([-1.0, -0.0, 0.0, 0.5]), st.sampled_from([1.0, 2.0, 1e9])
LINES = st.builds(
    Grid,
    kind=st.sampled_from(["numeric", "vector"]),
    bins=st.integers(1, 9),
    low=ENDS[0],
    high=ENDS[1],
    bandwidth=st.sampled_from([1.0, 3.0]),
    seed=st.sampled_from([0, 1, 2**31]),
)
NUMBERS = st.builds(
    Grid,
    kind=st.just("numeric"),
    bins=st.integers(1, 9),
    low=ENDS[0] | st.just(0),
    high=ENDS[1] | st.just(1),
    atoms=st.sampled_from([(), (0.0,), (-1.0, 1.0)]),
)
CATEGORIES = st.builds(Grid, kind=st.just("categorical"), bins=st.just(2)) | st.just(
    Grid(kind="categorical", bins=2, values=("a", "b"))
)


def anew(struct):
    """The same content in other objects: every number and every tuple is another one."""
    text = msgspec.json.encode({name: getattr(struct, name) for name in struct.__struct_fields__})
    return msgspec.json.decode(text, type=type(struct))


@given(LINES | NUMBERS | CATEGORIES, LINES | NUMBERS | CATEGORIES)
def test_equal_grids_have_one_hash_and_others_another(one, other):
    made = [anew(one), pickle.loads(pickle.dumps(one)), copy.deepcopy(one)]
    made += [msgspec.json.decode(msgspec.json.encode(one), type=Grid), msgspec.structs.replace(one)]
    assert {each.hash for each in made} == {one.hash}
    assert (one == other) == (one.hash == other.hash)


@pytest.mark.parametrize(
    ("grid", "known"),
    [
        (Grid(kind="numeric", bins=32), "f78836c50d2449ba"),
        (Grid(kind="numeric", bins=16, low=0.0, high=1.0 + 1e-9), "3f8dd92ae3ede1b1"),
        (
            Grid(kind="numeric", bins=32, low=0.5, high=8.0, log=True, atoms=(0.0,)),
            "39077367adfd9539",
        ),
        (Grid(kind="categorical", bins=2, values=("a", "b")), "2646c05973b22ac4"),
        (Grid(kind="vector", bins=3, low=-1.0, high=1.0, bandwidth=1.0), "084ad9ef8c3ef31e"),
    ],
    ids=str,
)
def test_grids_of_earlier_bundles_keep_their_hash(grid, known):
    assert grid.hash == known


@pytest.mark.parametrize(("meaning", "shape"), [("image", (8, 8, 3)), ("audio", (512,))])
def test_a_baseline_keeps_its_hash_wherever_it_goes(meaning, shape):
    """Within 0 … 1, which is the range of an image by default, too."""
    values = np.random.default_rng(1).random((20, *shape), dtype=np.float32)
    values.flat[:2] = 0, 1
    tensor = Tensor(name="x", dtype="float32", shape=(None, *shape), meaning=meaning)
    baseline = fit_baseline({"x": values}, {}, input_tensors=(tensor,), output_tensors=())
    sent = msgspec.json.decode(msgspec.json.encode(baseline), type=Baseline)
    copied = pickle.loads(pickle.dumps(baseline))
    assert sent == copied == baseline
    assert {sent.hash, copied.hash} == {baseline.hash}
