"""Samples are checked once, where they come in: what is wrong is named, and what would be right."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeml.bundle import Tensor
from edgeml.data import check_samples, gather, parse_source, read_samples
from edgeml.errors import SourceError, UsageError

IMAGE = Tensor(name="image", shape=(1, 3, 4, 4), dtype="float32")
TOKENS = Tensor(name="tokens", shape=(1, 5), dtype="int32")


def images(count: int, dtype: str = "float32") -> np.ndarray:
    return np.linspace(0, 1, count * 48).reshape(count, 3, 4, 4).astype(dtype)


def saved(folder: Path, **arrays: Any) -> Path:
    path = folder / "data.npz"
    np.savez(path, **arrays)
    return path


def test_npz_by_name_with_labels(tmp_path: Path) -> None:
    path = saved(tmp_path, image=images(6), tokens=np.zeros((6, 5), np.int32), labels=np.arange(6))
    samples = read_samples(parse_source(str(path)), [IMAGE, TOKENS], tmp_path)
    assert len(samples) == 6
    assert list(samples.inputs) == ["image", "tokens"]
    assert samples.labels is not None
    assert samples.labels.tolist() == [0, 1, 2, 3, 4, 5]


def test_npy_for_a_single_input(tmp_path: Path) -> None:
    np.save(tmp_path / "data.npy", images(3))
    samples = read_samples(parse_source(str(tmp_path / "data.npy")), [IMAGE], tmp_path)
    np.testing.assert_array_equal(samples.inputs["image"], images(3))
    assert samples.labels is None


def test_npy_for_two_inputs_is_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "data.npy", images(3))
    with pytest.raises(SourceError, match=r"2 inputs.*'image', 'tokens'"):
        read_samples(parse_source(str(tmp_path / "data.npy")), [IMAGE, TOKENS], tmp_path)


def test_floats_of_another_width_are_converted(tmp_path: Path) -> None:
    path = saved(tmp_path, image=images(2, "float64"))
    assert (
        read_samples(parse_source(str(path)), [IMAGE], tmp_path).inputs["image"].dtype == np.float32
    )


def test_integers_are_converted_where_they_fit() -> None:
    tokens = np.full((2, 5), 7, np.int64)
    assert check_samples({"tokens": tokens}, [TOKENS], "x").inputs["tokens"].dtype == np.int32
    with pytest.raises(SourceError, match="int64"):
        check_samples({"tokens": tokens << 40}, [TOKENS], "x")


WITH_NAN = images(3)
WITH_NAN[1, 0, 2, 2] = np.nan
TOO_LARGE = images(3, "float64")
TOO_LARGE[2] = 1e300


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"picture": images(3)}, ("'picture'", "'image'", "numpy.savez")),
        ({"image": images(3), "mask": images(3)}, ("'mask'", "one array an input")),
        ({"image": images(3).transpose(0, 2, 3, 1)}, ("[3, 4, 4, 3]", "[samples, 3, 4, 4]")),
        ({"image": images(3)[0]}, ("[3, 4, 4]", "[samples, 3, 4, 4]")),
        ({"image": (images(3) * 255).astype(np.uint8)}, ("uint8", "float32", "scaling")),
        ({"image": images(3).astype(np.complex64)}, ("complex64",)),
        ({"image": images(0)}, ("empty", "at least one")),
        ({"image": WITH_NAN}, ("NaN", "sample 1")),
        ({"image": TOO_LARGE}, ("infinite", "sample 2")),
        (
            {"image": images(3), "labels": np.arange(4)},
            ("3 of 'image', 4 of 'labels'", "belongs to sample i"),
        ),
        ({"image": images(2), "labels": np.array([0, np.nan])}, ("'labels'", "NaN")),
        ({}, ("no arrays", "'image'")),
    ],
)
def test_what_does_not_fit_is_refused(
    arrays: dict[str, Any], words: tuple[str, ...], tmp_path: Path
) -> None:
    path = saved(tmp_path, **arrays)
    with pytest.raises(SourceError) as caught:
        read_samples(parse_source(str(path)), [IMAGE], tmp_path)
    text = str(caught.value)
    assert str(path) in text
    assert all(word in text for word in words), text


MISSING = Tensor(name="image", shape=(1, 3, 4, 4), dtype="float32", missing=True)


def test_an_input_with_missing_values_takes_nan_but_no_infinity(tmp_path: Path) -> None:
    doubles = {"image": WITH_NAN.astype(np.float64)}
    for arrays in ({"image": WITH_NAN}, doubles):
        path = saved(tmp_path, **arrays)
        samples = read_samples(parse_source(str(path)), [MISSING], tmp_path)
        np.testing.assert_array_equal(samples.inputs["image"], WITH_NAN)
        assert samples.missing == ("image",)
    given = gather(iter(WITH_NAN), [MISSING], "loader.py:x", tmp_path)
    assert given.missing == ("image",)
    assert gather(iter(images(2)), [MISSING], "loader.py:x", tmp_path).missing == ()
    with pytest.raises(SourceError, match=r"48 values that are NaN or infinite.* sample 2"):
        check_samples({"image": np.where(WITH_NAN > -1, TOO_LARGE, np.nan)}, [MISSING], "x")


def test_an_array_of_objects_is_refused(tmp_path: Path) -> None:
    path = saved(tmp_path, image=np.array([images(1), "two"], dtype=object))
    with pytest.raises(SourceError, match="Python objects"):
        read_samples(parse_source(str(path)), [IMAGE], tmp_path)


@pytest.mark.parametrize("keep", [0, 10, 300])
def test_a_file_that_is_cut_off_is_refused(keep: int, tmp_path: Path) -> None:
    path = saved(tmp_path, image=images(3))
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(SourceError, match="cannot be read as NumPy data"):
        read_samples(parse_source(str(path)), [IMAGE], tmp_path)


@pytest.mark.parametrize("name", ["data.npy", "data.npz"])
def test_a_file_of_something_else_is_refused(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text("a,b,c\n1,2,3\n")
    with pytest.raises(SourceError):
        read_samples(parse_source(str(tmp_path / name)), [IMAGE], tmp_path)


@pytest.mark.parametrize("text", ["data.csv", "code.py", "code.py:", "code.py:a-b"])
def test_a_form_that_is_none_is_wrong_usage(text: str) -> None:
    with pytest.raises(UsageError):
        parse_source(text)


def test_a_file_that_is_missing() -> None:
    with pytest.raises(SourceError, match=r"no file none\.npz"):
        parse_source("none.npz")
    for folder in ("photos", "photos/", "photos.v2/"):
        with pytest.raises(SourceError, match=f"no folder {folder}") as caught:
            parse_source(folder)
        assert "a folder of images" in caught.value.expected


def test_code_is_taken_apart_but_not_run_here(tmp_path: Path) -> None:
    path = tmp_path / "loader.py"
    path.write_text("raise SystemExit")
    source = parse_source(f"{path}:batches")
    assert (source.kind, source.attribute) == ("code", "batches")
    with pytest.raises(UsageError, match="not run here"):
        read_samples(source, [IMAGE], tmp_path)


def of_samples() -> Iterator[Any]:
    yield from images(5)


def of_batches() -> Iterator[Any]:
    yield images(5)[:3]
    yield images(5)[3:]


def with_labels() -> Iterator[Any]:
    for index, image in enumerate(images(5)):
        yield image, index


def batches_with_labels() -> Iterator[Any]:
    yield images(5)[:3], np.arange(3)
    yield images(5)[3:], np.arange(3, 5)


def of_mappings() -> Iterator[Any]:
    for index, image in enumerate(images(5)):
        yield {"image": image, "labels": index}


@pytest.mark.parametrize(
    "give", [of_samples, of_batches, with_labels, batches_with_labels, of_mappings]
)
def test_an_iterable_gives_samples_or_batches_in_any_usual_form(give: Any, tmp_path: Path) -> None:
    samples = gather(give(), [IMAGE], "loader.py:x", tmp_path)
    np.testing.assert_array_equal(samples.inputs["image"], images(5))
    if give not in (of_samples, of_batches):
        assert samples.labels is not None
        assert samples.labels.tolist() == [0, 1, 2, 3, 4]


def test_an_endless_iterable_is_read_no_further_than_asked(tmp_path: Path) -> None:
    def endless() -> Iterator[Any]:
        while True:
            yield images(2)

    assert len(gather(endless(), [IMAGE], "x", tmp_path, limit=5)) == 5


@pytest.mark.parametrize(
    ("items", "words"),
    [
        ([], ("no samples", "at least one")),
        (["a picture"], ("gives str",)),
        ([(images(1)[0], 1, 2)], ("tuples of 3",)),
        ([images(1)[0], np.zeros((3, 5, 5), np.float32)], ("unlike shapes",)),
        ([{"picture": images(1)[0]}], ("'picture'", "'image'")),
    ],
)
def test_an_iterable_of_something_else_is_refused(
    items: Any, words: tuple[str, ...], tmp_path: Path
) -> None:
    with pytest.raises(SourceError) as caught:
        gather(items, [IMAGE], "loader.py:x", tmp_path)
    assert all(word in str(caught.value) for word in ("loader.py:x", *words)), str(caught.value)
