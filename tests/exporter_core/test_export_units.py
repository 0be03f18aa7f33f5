"""Quantities and shapes, as people write them on a command line."""

import pytest

from edgeml.errors import UsageError
from edgeml.exporter.units import (
    parse_bytes,
    parse_confidence,
    parse_drop,
    parse_family,
    parse_latency,
    parse_shape,
)


@pytest.mark.parametrize(
    ("text", "share"),
    [("1%", 0.01), (".01", 0.01), ("0.5 %", 0.005), ("0", 0), ("2points", 0.02), ("100%", 1)],
)
def test_losses(text: str, share: float):
    assert parse_drop(text) == pytest.approx(share)


@pytest.mark.parametrize("text", ["1", "1.0", "1.0001", "150%", "-1%", "one", "", "1%%", "1e999"])
def test_what_is_no_loss(text: str):
    with pytest.raises(UsageError):
        parse_drop(text)


@pytest.mark.parametrize(
    ("text", "milliseconds"), [("20ms", 20), (".5s", 500), ("250us", 0.25), ("1.5 ms", 1.5)]
)
def test_latencies(text: str, milliseconds: float):
    assert parse_latency(text) == pytest.approx(milliseconds)


def test_a_latency_has_a_unit():
    with pytest.raises(UsageError) as told:
        parse_latency("20")
    assert "with its unit" in str(told.value)


@pytest.mark.parametrize(
    ("text", "count"), [("2MB", 2_000_000), ("512KiB", 524_288), ("1.5 kB", 1500), ("7B", 7)]
)
def test_sizes(text: str, count: int):
    assert parse_bytes(text, "a size") == count


def test_a_size_has_a_unit():
    with pytest.raises(UsageError) as told:
        parse_bytes("64", "an amount of memory")
    assert "is not an amount of memory" in str(told.value)


def test_shapes():
    assert parse_shape("input=1,3,224,224") == ("input", (1, 3, 224, 224))
    assert parse_shape("a/b:0=1,-1") == ("a/b:0", (1, -1))
    for wrong in ("1,3", "input", "input=", "input=1,0", "input=1,x", "=1,2"):
        with pytest.raises(UsageError):
            parse_shape(wrong)


def test_statistics_of_an_input():
    assert parse_family("image=embedding") == ("image", "embedding")
    assert parse_family("a=b=none") == ("a=b", "none")
    for wrong in ("image", "image=", "=image"):
        with pytest.raises(UsageError, match="NAME=FAMILY"):
            parse_family(wrong)


@pytest.mark.parametrize(
    ("text", "share"), [(".95", 0.95), ("95%", 0.95), ("50 %", 0.5), ("99.99%", 0.9999)]
)
def test_a_confidence_is_a_share(text: str, share: float) -> None:
    assert parse_confidence(text) == pytest.approx(share)


@pytest.mark.parametrize("text", ["95", "1", ".2", "100%", "high", "95 points", ""])
def test_what_is_no_confidence(text: str) -> None:
    with pytest.raises(UsageError, match=r"50%|95%") as caught:
        parse_confidence(text)
    assert ("write 95% or .95" in caught.value.remedy) == (text == "95")
