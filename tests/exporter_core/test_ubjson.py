"""One whole value of UBJSON, and what is none."""

import contextlib
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeml.exporter.sources import ubjson


def length(number: int) -> bytes:
    return b"L" + struct.pack(">q", number)


def text(value: str) -> bytes:
    content = value.encode()
    return length(len(content)) + content


def array(values: list[bytes]) -> bytes:
    return b"[" + b"".join(values) + b"]"


def counted_array(values: list[bytes]) -> bytes:
    return b"[#" + length(len(values)) + b"".join(values)


def mapping(values: dict[str, bytes]) -> bytes:
    return b"{" + b"".join(text(key) + value for key, value in values.items()) + b"}"


def counted_mapping(values: dict[str, bytes]) -> bytes:
    content = b"".join(text(key) + value for key, value in values.items())
    return b"{#" + length(len(values)) + content


plain = (
    st.sampled_from([b"Z", b"T", b"F"])
    | st.integers(0, 255).map(lambda number: b"U" + bytes([number]))
    | st.floats(width=32).map(lambda number: b"d" + struct.pack(">f", number))
    | st.text(max_size=5).map(lambda value: b"S" + text(value))
    | st.lists(st.floats(), max_size=4).map(
        lambda row: b"[$D#" + length(len(row)) + struct.pack(f">{len(row)}d", *row)
    )
)
values = st.recursive(
    plain,
    lambda inner: (
        st.lists(inner, max_size=4).map(array)
        | st.lists(inner, max_size=4).map(counted_array)
        | st.dictionaries(st.text(max_size=3), inner, max_size=4).map(mapping)
        | st.dictionaries(st.text(max_size=3), inner, max_size=4).map(counted_mapping)
    ),
    max_leaves=12,
)


@given(values)
def test_a_whole_value_is_one(content: bytes):
    ubjson.check(content)


@given(values, st.data())
def test_a_value_that_was_cut_short_is_none(content: bytes, data: st.DataObject):
    end = data.draw(st.integers(0, len(content) - 1))
    with pytest.raises(ubjson.UbjsonError):
        ubjson.check(content[:end])


@given(values, st.binary(min_size=1, max_size=3))
def test_nothing_follows_on_it(content: bytes, rest: bytes):
    with pytest.raises(ubjson.UbjsonError, match="follow"):
        ubjson.check(content + rest)


@given(st.binary(max_size=60))
def test_other_bytes_are_looked_through_and_never_more_than_that(content: bytes):
    with contextlib.suppress(ubjson.UbjsonError):
        ubjson.check(content)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "ends after 0 bytes"),
        (b"X", "no value of type 0x58, at byte 0"),
        (b"[$d#" + length(1 << 60), "ends after 13 bytes"),
        (b"S" + length(-1), "a length of -1"),
        (b"Sd\x00\x00\x00\x00", "a length of type 0x64, at byte 1"),
        (b"[$dL", "a type without a number of values, at byte 3"),
        (b"[" * 100_000, "too deep"),
    ],
)
def test_what_is_wrong_is_said(content: bytes, says: str):
    with pytest.raises(ubjson.UbjsonError, match=says):
        ubjson.check(content)


def test_values_that_say_nothing_are_stepped_over():
    ubjson.check(b"N[NTN]")
    ubjson.check(b"{$i#" + length(1) + text("a") + b"\x07")
