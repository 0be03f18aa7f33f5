"""What the exporter counts on calibration data is what a device counts on the same data."""

from __future__ import annotations

import itertools
from functools import cache

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeml.bundle import Tensor
from edgeml.errors import StatisticsError
from edgeml.statistics import Baseline, Observer, fit_baseline

IMAGE = Tensor(name="image", shape=(1, 3, 12, 16), dtype="float32", meaning="image", layout="NCHW")
SCORES = Tensor(name="scores", shape=(1, 5), dtype="float32", meaning="scores")
RNG = np.random.default_rng(7)
FRAMES = RNG.random((200, 3, 12, 16), dtype=np.float32)
LOGITS = RNG.normal(size=(200, 5)).astype(np.float32)


def baseline(frames=FRAMES, image=IMAGE) -> Baseline:
    return fit_baseline(
        {"image": frames}, {"scores": LOGITS}, input_tensors=(image,), output_tensors=(SCORES,)
    )


@cache
def usual() -> Baseline:
    """To be read alone: to fit one takes longer than to count."""
    return baseline()


@settings(max_examples=20)
@given(st.lists(st.integers(1, 90), min_size=1, max_size=8))
def test_the_device_counts_what_the_exporter_counted_however_it_is_batched(cuts):
    observer = Observer(usual())
    edges = [0, *sorted({cut * 2 for cut in cuts}), 200]
    for start, stop in itertools.pairwise(edges):
        observer.observe({"image": FRAMES[start:stop]}, {"scores": LOGITS[start:stop]})
    assert observer.rows == 200
    taken = observer.take()
    assert taken == {name: s.baseline() for name, s in usual().streams.items()}
    assert {name: grid.hash for name, grid in observer.grids.items()} == {
        name: counts.grid for name, counts in taken.items()
    }


def test_across_a_gap_no_frame_is_compared_with_the_one_before_it():
    dark, bright = FRAMES[:20] * 0.1, 0.9 + FRAMES[20:40] * 0.1
    observer = Observer(baseline())
    observer.observe({"image": dark}, {"scores": LOGITS[:20]})
    observer.observe({"image": bright}, {"scores": LOGITS[20:40]}, gap=True)
    assert observer.rows == 39  # the first bright one is what the second is compared with
    taken = observer.take()
    assert {counts.total for counts in taken.values()} == {39}
    name = "input.image.frame_difference"
    grid = baseline().streams[name].grid
    assert taken[name].cells[grid.missing] == 1  # the very first had none before it
    without = Observer(baseline())
    for block in (dark, bright):
        without.observe({"image": block}, {"scores": LOGITS[:20]})
    assert without.take()[name].extremes[1] > taken[name].extremes[1] + 1000  # fixed point


def test_what_was_counted_may_be_written_over():
    """A program may use one buffer for all of its requests."""
    tensor = Tensor(name="x", shape=(1, 3), dtype="float64", meaning="features")
    rows = RNG.normal(size=(400, 3))
    fitted = fit_baseline({"x": rows}, {}, input_tensors=(tensor,), output_tensors=())
    observer, buffer = Observer(fitted), np.empty((100, 3))
    for start in range(0, 400, 100):
        buffer[:] = rows[start : start + 100]
        observer.observe({"x": buffer}, {})
    assert observer.take() == {name: s.baseline() for name, s in fitted.streams.items()}


def test_where_nothing_compares_neighbours_a_gap_costs_no_sample():
    tensor = Tensor(name="x", shape=(1, 3), dtype="float32", meaning="features")
    rows = RNG.normal(size=(60, 3)).astype(np.float32)
    found = fit_baseline({"x": rows}, {}, input_tensors=(tensor,), output_tensors=())
    observer = Observer(found)
    observer.observe({"x": rows[:30]}, {})
    observer.observe({"x": rows[30:]}, {}, gap=True)
    assert observer.rows == 60


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_of_a_large_frame_some_rows_say_what_all_of_them_do(layout):
    random = np.random.default_rng(3)
    frames = np.clip(random.normal(120, 40, (6, 160, 200, 3)), 0, 255).astype(np.uint8)
    frames[3:] = (frames[3:].astype(int) + np.roll(frames[3:], 1, axis=2)) // 2  # blurred
    frames = frames if layout == "NHWC" else np.moveaxis(frames, -1, 1)
    tensor = msgspec.structs.replace(IMAGE, shape=(1, *frames.shape[1:]), layout=layout)
    found = fit_baseline({"image": frames}, {}, input_tensors=(tensor,), output_tensors=())
    (some,) = found.tensors
    every = msgspec.structs.replace(some, context=msgspec.structs.replace(some.context, row_step=1))
    difference = np.abs(some.compute(frames) - every.compute(frames))
    names = [stream.name.rpartition(".")[2] for stream in some.streams]
    assert difference[:, names.index("sharpness")].max() < 0.05
    assert difference[:, names.index("luma_mean")].max() < 2
    sharpness = some.compute(frames)[:, names.index("sharpness")]
    assert sharpness[:3].min() > sharpness[3:].max() + 0.2


def test_a_baseline_from_before_there_was_a_choice_looks_at_all_rows():
    (tensor, _) = Baseline.decode(baseline().encode()).tensors
    assert b"row_step" not in baseline().encode()
    assert tensor.context.row_step == 1


def test_a_window_starts_from_nothing():
    observer = Observer(baseline())
    observer.observe({"image": FRAMES}, {"scores": LOGITS})
    observer.take()
    assert observer.rows == 0
    assert all(counts.total == 0 for counts in observer.take().values())


def test_the_baseline_survives_its_journey():
    assert Baseline.decode(baseline().encode()) == baseline()


def test_layout_makes_no_difference_to_what_is_seen():
    channels_last = Tensor(
        name="image", shape=(1, 12, 16, 3), dtype="float32", meaning="image", layout="NHWC"
    )
    moved = baseline(np.moveaxis(FRAMES, 1, -1), channels_last).streams
    for name, stream in baseline().streams.items():
        np.testing.assert_allclose(moved[name].counts, stream.counts, atol=1)


def test_a_small_batch_of_frames_costs_the_wire_little():
    counts = [c for s in baseline().streams.values() for c in s.counts]
    assert len(counts) <= 64 * len(baseline().streams)


def moved_by(change) -> dict[str, float]:
    """Share of the counts of each statistic that a change of the frames moves to other cells."""
    spec = baseline()
    observer = Observer(spec)
    observer.observe({"image": change(FRAMES)}, {"scores": LOGITS})
    return {
        name: float(np.abs(counts.cells - spec.streams[name].counts).sum() / 2 / counts.total)
        for name, counts in observer.take().items()
    }


def blur(frames):
    padded = np.pad(frames, ((0, 0), (0, 0), (1, 1), (1, 1)), mode="edge")
    return sum(padded[:, :, i : i + 12, j : j + 16] for i in range(3) for j in range(3)) / 9


@pytest.mark.parametrize(
    ("fault", "statistic"),
    [
        (lambda f: f * 0.5, "input.image.luma_mean"),
        (lambda f: f * 0.5, "input.image.contrast"),
        (lambda f: np.minimum(f * 2, 1), "input.image.clip_high"),
        (blur, "input.image.sharpness"),
        (lambda f: f * np.array([1.0, 1.0, 0.6])[:, None, None], "input.image.blue_green"),
        (lambda f: f * np.nan, "input.image.luma_mean"),
    ],
    ids=["dark", "dark: contrast", "overexposed", "blurred", "colour cast", "NaN"],
)
def test_a_broken_camera_moves_its_statistic(fault, statistic):
    assert moved_by(fault)[statistic] > 0.5


def test_an_unchanged_camera_moves_nothing():
    assert set(moved_by(lambda f: f).values()) == {0.0}


def test_broken_scores_are_no_class():
    spec = baseline()
    observer = Observer(spec)
    observer.observe({"image": FRAMES[:1]}, {"scores": np.full((1, 5), np.nan, np.float32)})
    assert observer.take()["output.scores.class"].cells.tolist() == [0, 0, 0, 0, 0, 0, 1]


@pytest.mark.parametrize(
    ("shape", "meaning", "names"),
    [
        ((40, 3), "features", ["f0", "f1", "f2"]),
        (
            (40, 4000),
            "audio",
            ["level_db", "clipped", "at_peak", "offset", "silence", "zero_crossings"]
            + [f"mel_{band:02}" for band in range(16)],
        ),
        ((40, 64), "embedding", ["norm", "mean", "vector"]),
        ((40, 7, 2), "tensor", ["mean", "spread", "smallest", "largest"]),
        ((40, 1000), "features", ["mean", "spread", "smallest", "largest"]),
    ],
)
def test_each_meaning_has_its_statistics(shape, meaning, names):
    data = RNG.normal(size=shape)
    tensor = Tensor(name="x", shape=(1, *shape[1:]), dtype="float32", meaning=meaning)
    fitted = fit_baseline({"x": data}, {}, input_tensors=(tensor,), output_tensors=())
    assert list(fitted.streams) == [f"input.x.{name}" for name in names]
    assert all(sum(s.counts) == 40 for s in fitted.streams.values())


@pytest.mark.parametrize(
    "data", [b"", b"{}", b'{"schema": 1, "tensors": [], "rows": 1}', b"\xff\xfe"]
)
def test_a_baseline_that_is_none_is_refused(data):
    with pytest.raises(StatisticsError, match="baseline"):
        Baseline.decode(data)


def test_an_input_has_the_statistics_that_were_asked_for():
    data = RNG.normal(size=(40, 12))
    tensor = Tensor(name="x", shape=(1, 12), dtype="float32", meaning="features")

    def fitted(family: str) -> list[str]:
        found = fit_baseline(
            {"x": data}, {}, input_tensors=(tensor,), output_tensors=(), families={"x": family}
        )
        return list(found.streams)

    assert fitted("embedding") == ["input.x.norm", "input.x.mean", "input.x.vector"]
    assert fitted("none") == []
    with pytest.raises(StatisticsError, match=r"'image' of 'x', \[12\] a sample"):
        fitted("image")


@pytest.mark.parametrize("dtype", ["int32", "bool", "float32"])
def test_integers_with_few_values_are_categories_and_floats_are_not(dtype: str):
    data = np.column_stack([RNG.integers(0, 2, 200), RNG.integers(0, 1000, 200)]).astype(dtype)
    tensor = Tensor(name="x", shape=(1, 2), dtype="float32", meaning="features")
    found = fit_baseline({"x": data}, {}, input_tensors=(tensor,), output_tensors=())
    kinds = [stream.grid.kind for stream in found.streams.values()]
    wanted = {"int32": ["categorical", "numeric"], "bool": ["categorical"] * 2}
    assert kinds == wanted.get(dtype, ["numeric"] * 2)
    observer = Observer(found)
    for start in range(0, 200, 50):
        observer.observe({"x": data[start : start + 50]}, {})
    assert observer.take() == {name: s.baseline() for name, s in found.streams.items()}


def test_the_hash_of_a_baseline_is_what_counts_on_it_mean():
    one, other = baseline(), baseline(FRAMES[::-1].copy())
    assert one.hash == other.hash, "the same samples in another order"
    assert baseline(FRAMES * 2).hash != one.hash
    assert one.hash == Baseline.decode(one.encode()).hash
