"""Samples: how they are split, looked at and named."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeml.bundle.manifest import Tensor
from edgeml.data import Samples, parse_source
from edgeml.errors import SourceError
from edgeml.exporter.samples.calibrate import peek, sample_set, split, take
from edgeml.exporter.sources.forms import ArrayShape

X = Tensor(name="x", shape=(1, 2), dtype="float32")


@given(st.integers(2, 3000), st.integers(0, 5))
def test_no_sample_both_calibrates_and_checks(count: int, seed: int):
    calibrating, held = split(count, seed=seed)
    assert sorted([*calibrating, *held]) == list(range(count))
    assert 1 <= len(held) <= count / 2


@pytest.mark.parametrize(
    ("count", "held"), [(1000, 200), (100, 20), (80, 16), (40, 16), (20, 10), (3, 1), (2, 1)]
)
def test_a_fifth_is_held_back_but_at_least_16_and_never_more_than_half(count: int, held: int):
    assert len(split(count, seed=0)[1]) == held


def test_a_single_sample_serves_for_both():
    calibrating, held = split(1, seed=0)
    assert calibrating.tolist() == held.tolist() == [0]


def test_the_same_seed_gives_the_same_split():
    assert split(100, seed=1)[1].tolist() == split(100, seed=1)[1].tolist()
    assert split(100, seed=1)[1].tolist() != split(100, seed=2)[1].tolist()


def test_labels_go_with_their_samples(tmp_path: Path):
    samples = Samples({"x": np.arange(6).reshape(3, 2)}, np.array([0, 1, 2]))
    taken = take(samples, (X,), np.array([2, 0]), tmp_path)
    assert taken.inputs["x"].tolist() == [[4, 5], [0, 1]]
    assert taken.labels is not None
    assert taken.labels.tolist() == [2, 0]


def test_shapes_are_read_off_a_files_headers_without_the_labels(tmp_path: Path):
    path = tmp_path / "data.npz"
    np.savez(path, image=np.zeros((5, 3, 8, 8)), state=np.zeros((5, 2), "int64"), labels=[0] * 5)
    assert peek(parse_source(str(path))) == (
        ArrayShape("image", (3, 8, 8), "float64"),
        ArrayShape("state", (2,), "int64"),
    )


def test_a_single_array_has_no_name(tmp_path: Path):
    np.save(tmp_path / "data.npy", np.zeros((5, 2), "float32"))
    assert peek(parse_source(str(tmp_path / "data.npy"))) == (ArrayShape("", (2,), "float32"),)


@pytest.mark.parametrize("suffix", ["npz", "npy"])
def test_data_that_was_cut_short_is_named(tmp_path: Path, suffix: str):
    path = tmp_path / f"data.{suffix}"
    array = np.zeros((50, 20))
    np.save(path, array) if suffix == "npy" else np.savez(path, x=array)
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(SourceError, match="cannot be read as NumPy data") as caught:
        peek(parse_source(str(path)))
    assert "numpy.savez" in str(caught.value)


def test_the_hash_of_a_set_depends_on_every_value_and_on_the_order():
    rows = np.arange(6, dtype="float32").reshape(3, 2)
    one = sample_set(Samples({"x": rows}), (X,))
    turned = sample_set(Samples({"x": rows[::-1]}), (X,))
    changed = sample_set(Samples({"x": rows + np.eye(3, 2, dtype="float32")}), (X,))
    assert one.count == 3
    assert one.samples == turned.samples[::-1]
    assert len({one.sha256, turned.sha256, changed.sha256}) == 3
    assert one.samples[2] == changed.samples[2]
    assert one.samples[0] != changed.samples[0]
