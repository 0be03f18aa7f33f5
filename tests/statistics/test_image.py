"""What a camera's faults do to the statistics of its frames, and what no frame can do to them."""

from __future__ import annotations

import itertools
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.scenes import as_frame, blurred, scenes

from edgeml.statistics.families import FAMILIES, Context
from edgeml.statistics.families.image import REMEMBERED, names
from edgeml.statistics.families.sampling import SAMPLED_ROWS, row_step

IMAGE = FAMILIES["image"]
SIZE = 96
RGB = Context(layout="NHWC", low=0.0, high=255.0, channels=3, row_step=row_step(SIZE))
FRAMES = scenes(80)
RANDOM = np.random.default_rng(1)


def statistics(frames, context=RGB, state=None) -> dict[str, np.ndarray]:
    return dict(zip(names(context), IMAGE.compute(frames, context, state).T, strict=True))


def separation(clean, faulty) -> float:
    """2·AUC − 1."""
    return float(np.sign(faulty[:, None] - clean[None, :]).mean())


def shaded(gain, offset=0.0):
    return lambda frames: as_frame(frames * np.asarray(gain) + offset)


def noisy(frames):
    return as_frame(frames + RANDOM.normal(0, 8, frames.shape))


def dead_column(frames):
    frames = frames.copy()
    for frame in frames:
        frame[:, RANDOM.integers(SIZE)] = 0
    return frames


def dead_row(frames):
    return dead_column(frames.swapaxes(1, 2)).swapaxes(1, 2)


def covered(frames):
    frames = frames.copy()
    frames[:, :, : SIZE // 2] = 30
    return frames


@pytest.mark.parametrize(
    ("fault", "statistic", "least"),
    [
        (blurred, "sharpness", -0.9),
        (blurred, "noise", -0.9),
        (shaded(0.7), "luma_mean", -0.8),
        (shaded(2), "clip_high", 0.8),
        (shaded(0.02), "clip_low", 0.9),
        (shaded(0.7, 70), "contrast", -0.8),
        (noisy, "noise", 0.9),
        (noisy, "texture", 0.9),
        (dead_column, "column_defect", 0.9),
        (dead_row, "row_defect", 0.9),
        (shaded([1, 1, 0.8]), "blue_green", -0.8),
        (shaded([0.8, 1, 1]), "red_green", -0.8),
        (covered, "left_right", -0.5),
        (lambda frames: frames[..., ::-1], "warm_order", -0.9),
        (lambda frames: frames[..., [0, 2, 1]], "blue_green", 0.5),
        (lambda frames: frames[:, ::-1], "top_bottom", -0.8),
        (lambda frames: frames[:, ::-1], "sky", -0.8),
    ],
)
def test_a_fault_moves_its_statistic(fault, statistic, least):
    seen = separation(statistics(FRAMES)[statistic], statistics(fault(FRAMES))[statistic])
    assert seen / least >= 1, f"{seen:.2f} in {statistic}"


def test_sharpness_and_texture_are_the_laplacians_variance_and_median_size():
    frame = RANDOM.integers(0, 256, (20, 24)).astype(np.float64)
    around = frame[:-2, 1:-1] + frame[2:, 1:-1] + frame[1:-1, :-2] + frame[1:-1, 2:]
    laplacian = around - 4 * frame[1:-1, 1:-1]
    context = Context(layout="NHWC", low=0.0, high=255.0, channels=1, row_step=1)
    found = statistics(frame[None, ..., None].astype(np.uint8), context)
    variance = (laplacian**2).mean() / 255**2
    assert found["sharpness"][0] == pytest.approx(np.log10(variance), abs=1e-3)
    size = np.median(np.abs(laplacian)) / 255
    assert found["texture"][0] == pytest.approx(np.log10(size), abs=1e-2)


@pytest.mark.parametrize("line", range(0, SIZE, 7))
@pytest.mark.parametrize("axis", [0, 1])
def test_a_dead_line_is_seen_wherever_it_is(line, axis):
    flat = np.full((SIZE, SIZE, 3), 100, np.uint8)
    flat[(line,) if axis == 0 else (slice(None), line)] = 0
    found = statistics(flat[None])
    assert found["row_defect" if axis == 0 else "column_defect"] > 2
    assert found["column_defect" if axis == 0 else "row_defect"] < 0.1


def test_nothing_but_the_balance_of_the_sides_tells_a_frame_from_its_mirror_image():
    usual, mirrored = statistics(FRAMES), statistics(np.ascontiguousarray(FRAMES[:, :, ::-1]))
    np.testing.assert_allclose(mirrored["left_right"], -usual["left_right"], atol=0.02)
    for name in set(usual) - {"left_right", "frame_difference", "frozen"}:
        assert abs(separation(usual[name], mirrored[name])) < 0.2, name


def test_a_frozen_camera_is_seen_at_its_first_repetition():
    frames = FRAMES[[0, 1, 2, 2, 2, 3]]
    found = statistics(frames)
    assert found["frozen"][1:].tolist() == [0, 0, 1, 1, 0]
    assert found["frame_difference"][3:5].tolist() == [-6, -6]
    assert found["frame_difference"][[1, 2, 5]].min() > -2


@pytest.mark.parametrize("buffers", range(1, REMEMBERED + 1))
def test_a_ring_of_stuck_buffers_is_frozen_too(buffers):
    frames = FRAMES[np.arange(20) % buffers]
    assert statistics(frames)["frozen"][buffers:].min() == 1


def test_a_first_frame_has_none_before_it_and_neither_has_one_of_another_size():
    state = IMAGE.state(RGB)
    first = statistics(FRAMES[:1], state=state)
    other = statistics(FRAMES[:1, :64], state=state)
    for found in (first, other):
        assert np.isnan(found["frozen"]).all()
        assert np.isnan(found["frame_difference"]).all()


@settings(max_examples=20)
@given(st.sets(st.integers(1, 19)))
def test_frames_are_the_same_however_they_are_batched(cuts):
    state = IMAGE.state(RGB)
    parts = [
        IMAGE.compute(FRAMES[start:stop], RGB, state)
        for start, stop in itertools.pairwise([0, *sorted(cuts), 20])
    ]
    np.testing.assert_array_equal(
        np.concatenate(parts), IMAGE.compute(FRAMES[:20], RGB, IMAGE.state(RGB))
    )


@pytest.mark.parametrize("kind", [np.uint8, np.float32, np.float64])
@pytest.mark.parametrize("layout", ["NHWC", "NCHW"])
def test_layout_and_dtype_make_no_difference_that_matters(layout, kind):
    frames = FRAMES.astype(kind)
    frames = frames if layout == "NHWC" else np.ascontiguousarray(np.moveaxis(frames, -1, 1))
    context = Context(layout=layout, low=0.0, high=255.0, channels=3, row_step=RGB.row_step)
    usual = statistics(FRAMES)
    for name, found in statistics(frames, context).items():
        # These look at other pixels in another layout.
        near = {"texture": 0.15, "noise": 0.15, "row_defect": 0.6}.get(name, 0.02)
        np.testing.assert_allclose(found, usual[name], rtol=0.001, atol=near, err_msg=name)


@pytest.mark.parametrize("height", [1, 2, 23, 24, 47, 48, 224, 1080])
def test_some_rows_are_looked_at_never_many(height):
    rows = len(range(1, height - 1, row_step(height)))
    assert rows < 2 * SAMPLED_ROWS
    assert rows >= min(height - 2, SAMPLED_ROWS - 1)


SHAPES = [(1, 1), (1, 2), (2, 1), (2, 2), (3, 3), (2, 300), (300, 2), (5, 4)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("layout", ["NHWC", "NCHW"])
@pytest.mark.parametrize(
    "value", [np.uint8(0), np.uint8(255), np.int8(-128), np.uint16(65535), np.float16(1)]
)
def test_a_frame_of_one_value_gives_finite_numbers_or_says_that_there_are_none(
    shape, channels, layout, value
):
    found = of_shape(shape, channels, layout, np.full((3, *shape, channels), value))
    assert not np.isinf(found).any()
    assert np.isfinite(found[:, : names(Context()).index("sharpness")]).all()


@given(
    st.sampled_from(SHAPES),
    st.lists(
        st.sampled_from([0, 1, -1, np.nan, np.inf, -np.inf, 1e300, -1e300, 5e-324, 1e38]),
        min_size=1,
        max_size=6,
    ),
    st.sampled_from([np.float32, np.float64]),
    st.sampled_from([(0.0, 1.0), (0.0, 0.0), (-1e300, 1e300), (0.0, 5e-324)]),
)
def test_any_numbers_make_a_frame(shape, values, kind, limits):
    with np.errstate(over="ignore"):
        frames = np.resize(np.array(values), (2, *shape, 3)).astype(kind)
    of_shape(shape, 3, "NHWC", frames, limits)


@pytest.mark.parametrize("row", [0, 3, 7])
def test_of_a_small_frame_no_pixel_is_passed_over(row):
    frame = np.full((1, 8, 8, 1), 0.5, np.float32)
    frame[0, row, 2] = np.nan
    context = Context(layout="NHWC", row_step=row_step(8))
    assert np.isnan(statistics(frame, context)["luma_mean"]).all()


@pytest.mark.parametrize("height", range(1, 12))
def test_a_frame_that_is_smaller_than_those_of_the_calibration_is_seen(height):
    context = Context(layout="NHWC", low=0.0, high=255.0, channels=3, row_step=9)
    assert statistics(FRAMES[:1, :height], context)["luma_mean"] > 0


def test_a_frame_without_pixels_has_no_statistics():
    found = of_shape((0, 4), 3, "NHWC", np.zeros((2, 0, 4, 3), np.uint8))
    assert np.isnan(found).all()


def of_shape(shape, channels, layout, frames, limits=(0.0, 255.0)):
    low, high = limits
    context = Context(
        layout=layout, low=low, high=high, channels=channels, row_step=row_step(shape[0])
    )
    if layout == "NCHW":
        frames = np.moveaxis(frames, -1, 1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = IMAGE.compute(frames, context, IMAGE.state(context))
    assert found.shape == (len(frames), len(names(context)))
    return found
