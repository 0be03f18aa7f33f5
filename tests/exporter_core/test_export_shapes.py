"""The shapes of a source: asked for or taken from the data, never guessed."""

from pathlib import Path

import pytest

from edgeml.errors import SourceError, UsageError
from edgeml.exporter.sources.forms import ArrayShape, OpenJob
from edgeml.exporter.sources.shapes import (
    at_hand,
    closed_shape,
    filled,
    fixed_tensor,
    refuse_open,
    refuse_unknown,
    with_asked,
)

NET = Path("net.onnx")


def job(*shape: int, name: str = "x", **asked: tuple[int, ...]) -> OpenJob:
    shapes = (ArrayShape(name, shape, "float32"),) if shape else ()
    return OpenJob(form="onnx", path=NET, attribute="", workdir=Path(), shapes=shapes, asked=asked)


def test_an_open_batch_becomes_one_and_other_open_axes_come_from_the_data():
    assert closed_shape(job(), "x", [None, 3]) == (1, 3)
    assert closed_shape(job(3, 20), "x", [None, 3, None]) == (1, 3, 20)
    assert closed_shape(job(3, 20, name=""), "x", [None, 3, None]) == (1, 3, 20)


def test_what_came_from_the_data_is_told():
    (note,) = filled(job(3, 20), {"x": [None, 3, None]})
    assert "leaves axis 2 of 'x' open" in note
    assert "--shape x=1,3,20" in note
    assert filled(job(3, 20), {"x": [None, 3, 20]}) == ()
    assert filled(job(3, 20, x=(1, 3, 20)), {"x": [None, 3, None]}) == ()


def test_an_open_axis_is_never_guessed_and_the_error_has_the_words_to_type():
    with pytest.raises(SourceError, match=r"'x' of net.onnx has the shape \[any, 3, any\]") as e:
        closed_shape(job(20, name="other"), "x", [None, 3, None])
    assert "--shape x=1,3,N" in e.value.remedy
    assert "--calibration" in e.value.remedy


def test_a_shape_that_was_asked_for_goes_before_the_data():
    assert closed_shape(job(3, 20, x=(1, 3, 40)), "x", [None, 3, None]) == (1, 3, 40)
    assert closed_shape(job(3, 20, x=(1, 3, -1)), "x", [None, 3, None]) == (1, 3, -1)


def test_an_axis_that_stays_open_is_traced_at_the_length_of_the_samples():
    assert at_hand(job(3, 20), "x", (1, 3, -1)) == (1, 3, 20)
    assert at_hand(job(3, 20, name=""), "x", (1, -1, -1)) == (1, 3, 20)
    assert with_asked(job(3, 20, x=(1, 3, -1))) == (ArrayShape("x", (3, 20), "float32"),)
    for samples in (job(), job(3, 1), job(20)):  # none, of a length that tracers fix, of other axes
        with pytest.raises(SourceError, match="do not show a length of 2 or more"):
            at_hand(samples, "x", (1, 3, -1))


def test_a_model_that_can_keep_no_axis_open():
    refuse_open(job(x=(1, 3, 20)))
    with pytest.raises(UsageError, match="--shape x=1,3,-1 keeps an axis open") as caught:
        refuse_open(job(x=(1, 3, -1)))
    assert "--shape x=1,3,1" in caught.value.remedy


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ((1, 4, 20), "does not fit the input, whose shape is"),
        ((1, 3), "does not fit the input"),
        ((1, 3, 0), "does not fit the input"),
        ((1, 3, -2), "does not fit the input"),
        ((8, 3, 20), "has a batch of 8"),
        ((-1, 3, 20), "has a batch of -1"),
    ],
)
def test_a_shape_that_does_not_fit(asked: tuple[int, ...], found: str):
    with pytest.raises(UsageError, match=found):
        closed_shape(job(x=asked), "x", [None, 3, None])


def test_a_shape_for_an_input_that_is_not_there():
    with pytest.raises(UsageError, match="--shape names 'y'") as caught:
        refuse_unknown(job(y=(1, 2)), ["x"])
    assert "'x'" in caught.value.expected


@pytest.mark.parametrize(
    ("axes", "found"),
    [
        ([1, 0], "it holds no values"),
        ([1, 2**31], "2,147,483,648 values in a sample"),
        ([1, 2**40, 2**40], "values in a sample"),
    ],
)
def test_an_empty_or_boundless_sample_is_refused_before_it_is_allocated(
    axes: list[int | None], found: str
):
    with pytest.raises(SourceError, match=found) as caught:
        closed_shape(job(), "x", axes)
    assert caught.value.expected
    assert caught.value.remedy
    with pytest.raises(SourceError, match=found):
        fixed_tensor("y", axes, "float32", side="output", path=NET)


@pytest.mark.parametrize("shape", [None, [], [2, 3], [1, None], [1, "n"]])
def test_a_tensor_must_have_a_batch_axis_of_one_and_fixed_lengths(shape: list[object] | None):
    with pytest.raises(SourceError, match=r"output 'y' of net\.onnx has the shape"):
        fixed_tensor("y", shape, "float32", side="output", path=NET)


def test_a_scalar_is_told_to_be_one():
    with pytest.raises(SourceError, match=r"\[\] \(a scalar\)"):
        fixed_tensor("y", [], "float32", side="output", path=NET)


@pytest.mark.parametrize("dtype", ["float64", "float16", "bfloat16", "string", "complex64"])
def test_a_model_of_other_numbers_is_to_be_converted_first(dtype: str):
    with pytest.raises(SourceError, match=dtype) as caught:
        fixed_tensor("x", [1, 2], dtype, side="input", path=NET)
    assert "float32" in caught.value.expected
