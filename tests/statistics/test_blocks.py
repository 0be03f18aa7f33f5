"""A baseline is the same whether its samples come at once or in blocks from a mapped file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgeml.bundle import Tensor
from edgeml.columns import BLOCK_BYTES, load
from edgeml.statistics import fit_baseline
from edgeml.statistics.baseline import TensorStatistics

RANDOM = np.random.default_rng(0)
FLOATS = RANDOM.normal(size=(60, 3, 128, 128)).astype("float32")


def fitted(array: np.ndarray, **fields: str) -> TensorStatistics:
    shape = (1, *array.shape[1:])
    tensor = Tensor(name="x", shape=shape, dtype=str(array.dtype), **fields)  # type: ignore[arg-type]
    return fit_baseline({"x": array}, {}, input_tensors=(tensor,), output_tensors=()).tensors[0]


@pytest.mark.parametrize("fields", [{"meaning": "image", "layout": "NCHW"}, {"meaning": "tensor"}])
def test_blocks_give_the_baseline_of_the_whole(
    fields: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    assert FLOATS.nbytes > BLOCK_BYTES
    np.save(tmp_path / "x.npy", FLOATS)
    in_blocks = fitted(load(tmp_path / "x.npy"), **fields)
    monkeypatch.setattr("edgeml.statistics.baseline.blocks", lambda array: [(0, array)])
    assert in_blocks == fitted(FLOATS, **fields)


def test_a_sensors_integers_clip_at_the_ends_of_their_type():
    frames = RANDOM.integers(90, 110, (20, 16, 16, 3)).astype("uint8")
    context = fitted(frames, meaning="image", layout="NHWC").context
    assert (context.low, context.high) == (0, 255)
    waves = RANDOM.integers(-50, 50, (20, 1000)).astype("int16")
    context = fitted(waves, meaning="audio").context
    assert (context.low, context.high) == (-32768, 32767)


def test_a_column_that_is_no_number_in_any_sample_is_counted_as_such():
    rows = np.random.default_rng(0).normal(size=(20, 2)).astype(np.float32)
    rows[:, 1] = np.nan
    known, missing = fitted(rows, meaning="features").streams
    assert known.counts[known.grid.nan] == 0
    assert missing.counts[missing.grid.nan] == sum(missing.counts) == 20
