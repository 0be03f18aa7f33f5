"""Arrays by name in a file, whatever their names are."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest

from edgeml.npz import encode_npz, save_npz

ARRAYS = {
    "image": np.arange(6, dtype=np.uint8).reshape(2, 3),
    "inputs/weights": np.linspace(0, 1, 5, dtype=np.float32)[::2],
    "one": np.array(3.5),
    "names": np.array(["left", "right"]),
}


def test_what_is_written_is_read():
    with np.load(io.BytesIO(encode_npz(ARRAYS)), allow_pickle=False) as found:
        assert sorted(found.files) == sorted(ARRAYS)
        for name, values in ARRAYS.items():
            np.testing.assert_array_equal(found[name], values)
            assert found[name].dtype == values.dtype


@pytest.mark.parametrize("name", ["file", "allow_pickle", "args", "self"])
def test_an_array_may_have_a_name_that_numpys_function_keeps_for_itself(name: str):
    with np.load(io.BytesIO(encode_npz({name: np.ones(2)})), allow_pickle=False) as found:
        assert found.files == [name]
        np.testing.assert_array_equal(found[name], [1, 1])


def test_nothing_else_is_in_it_and_the_same_arrays_are_the_same_bytes(tmp_path: Path):
    path = tmp_path / "arrays.npz"
    save_npz(path, ARRAYS)
    assert path.read_bytes() == encode_npz(ARRAYS)
    with np.load(path) as found:
        assert len(found.files) == len(ARRAYS)


def test_objects_of_python_are_refused():
    with pytest.raises(ValueError, match="Object arrays"):
        encode_npz({"things": np.array([{}], dtype=object)})
