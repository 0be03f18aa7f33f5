"""Samples stay on disk: they are written row by row, and read without ever being held whole."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeml.bundle import Tensor
from edgeml.columns import ColumnWriter, blocks, load, rows, save_rows
from edgeml.data import gather, parse_source, read_samples
from edgeml.errors import SourceError

X = Tensor(name="x", shape=(1, 64, 64), dtype="float32")


def written(path: Path, batches: list[np.ndarray]) -> Path:
    with ColumnWriter(path) as writer:
        for batch in batches:
            writer.append(batch)
    return path


def test_what_was_written_in_batches_reads_as_one_array(tmp_path: Path) -> None:
    batches = [np.full((size, 2, 3), size, np.int32) for size in (4, 1, 100_000)]
    path = written(tmp_path / "x.npy", batches)
    np.testing.assert_array_equal(np.load(path), np.concatenate(batches))


def test_rows_come_one_by_one_with_a_batch_axis_from_files_side_by_side(tmp_path: Path) -> None:
    wide = np.arange(30.0).reshape(5, 6)
    narrow = np.arange(5)
    files = [written(tmp_path / "0.npy", [wide]), written(tmp_path / "1.npy", [narrow])]
    found = list(rows(files))
    assert [(a.shape, b.shape) for a, b in found] == [((1, 6), (1,))] * 5
    np.testing.assert_array_equal(np.concatenate([a for a, _ in found]), wide)
    np.testing.assert_array_equal(np.concatenate([b for _, b in found]), narrow)


def test_chosen_rows_come_in_the_order_asked_for(tmp_path: Path) -> None:
    array = np.arange(30.0).reshape(5, 6)
    files = [written(tmp_path / "0.npy", [array])]
    found = [sample for (sample,) in rows(files, (3, 0, 4))]
    np.testing.assert_array_equal(np.concatenate(found), array[[3, 0, 4]])
    assert not list(rows(files, ()))


def test_blocks_cover_an_array_once(tmp_path: Path) -> None:
    array = load(written(tmp_path / "x.npy", [np.arange(1000.0).reshape(100, 10)]))
    parts = [(first, np.array(block)) for first, block in blocks(array, size=7 * 80)]
    assert [first for first, _ in parts] == list(range(0, 100, 7))
    np.testing.assert_array_equal(np.concatenate([block for _, block in parts]), array)


def test_chosen_rows_are_written_in_the_order_asked_for(tmp_path: Path) -> None:
    array = np.arange(20.0).reshape(10, 2)
    saved = save_rows(tmp_path / "some.npy", array, [7, 0, 3])
    np.testing.assert_array_equal(saved, array[[7, 0, 3]])
    assert len(save_rows(tmp_path / "none.npy", array, [])) == 0


def test_an_iterable_is_let_go_item_by_item(tmp_path: Path) -> None:
    living: set[int] = set()
    most = 0

    def batches() -> Iterator[Any]:
        nonlocal most
        for index in range(30):
            batch = np.full((4, 64, 64), index, np.float32)
            living.add(index)
            weakref.finalize(batch, living.discard, index)
            most = max(most, len(living))
            yield batch
            del batch
            gc.collect()

    samples = gather(batches(), [X], "loader.py:x", tmp_path)
    assert len(samples) == 120
    assert most <= 2
    assert samples.inputs["x"][-1, 0, 0] == 29


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_an_archive_is_unpacked_to_mapped_files(save: Any, tmp_path: Path) -> None:
    array = np.random.default_rng(0).normal(size=(9, 64, 64)).astype("float32")
    save(tmp_path / "data.npz", x=array)
    samples = read_samples(parse_source(str(tmp_path / "data.npz")), [X], tmp_path / "work")
    np.testing.assert_array_equal(samples.inputs["x"], array)
    np.testing.assert_array_equal(np.load(samples.files["x"]), array)
    assert not samples.inputs["x"].flags.owndata


def test_an_npy_that_fits_is_used_where_it_lies(tmp_path: Path) -> None:
    np.save(tmp_path / "data.npy", np.zeros((3, 64, 64), np.float32))
    samples = read_samples(parse_source(str(tmp_path / "data.npy")), [X], tmp_path / "work")
    assert samples.files == {"x": tmp_path / "data.npy"}
    assert list((tmp_path / "work").iterdir()) == []


def test_one_bad_value_far_in_is_found_in_its_sample(tmp_path: Path) -> None:
    array = np.zeros((1500, 64, 64), np.float32)  # several blocks
    array[1234, 5, 6] = np.nan
    np.save(tmp_path / "data.npy", array)
    with pytest.raises(SourceError, match="sample 1234"):
        read_samples(parse_source(str(tmp_path / "data.npy")), [X], tmp_path / "work")


def test_a_full_disk_is_told_with_what_to_do() -> None:
    with pytest.raises(SourceError, match="No space left on device") as caught:
        written(Path("/dev/full"), [np.zeros((100_000, 10))])
    assert "TMPDIR" in caught.value.remedy
