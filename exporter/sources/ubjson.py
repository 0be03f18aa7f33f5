"""Whether bytes are one whole value of UBJSON, the form of XGBoost's ``.ubj`` files.

XGBoost reads such a file without looking where its bytes end: of one that was cut short it reads
what lies behind them in memory, and crashes, asks for all memory there is, or answers. So the
bytes are walked through first. Values are stepped over, not decoded.

Source: Universal Binary JSON, draft 12 (https://ubjson.org).
"""

from __future__ import annotations

import struct

_FIXED = {
    ord(marker): size
    for size, markers in {0: "ZNTF", 1: "iUC", 2: "I", 4: "ld", 8: "LD"}.items()
    for marker in markers
}
"""Bytes behind the marker of a value whose length is always the same."""

_INTEGERS = {ord("i"): ">b", ord("U"): ">B", ord("I"): ">h", ord("l"): ">i", ord("L"): ">q"}
_NO_OP, _TEXT, _ARRAY, _OBJECT = ord("N"), b"SH", ord("["), ord("{")
_CLOSED_BY = {_ARRAY: ord("]"), _OBJECT: ord("}")}


class UbjsonError(ValueError):
    """The bytes are no whole value; the message says where they part from one."""


def check(content: bytes) -> None:
    """Walk through one value, and find that the bytes end with it.

    Raises:
        UbjsonError: they end before it or after it, or a marker or a length is none.
    """
    walk = _Walk(content)
    try:
        walk.value(walk.marker())
    except (IndexError, struct.error):
        raise UbjsonError(f"it ends after {len(content):,} bytes, within a value") from None
    except RecursionError:
        raise UbjsonError("its values lie too deep in one another") from None
    if walk.at != len(content):
        raise UbjsonError(f"{len(content) - walk.at:,} bytes follow on its value")


class _Walk:
    def __init__(self, content: bytes) -> None:
        self._content = content
        self.at = 0

    def value(self, marker: int) -> None:
        """Step over what follows on a marker."""
        if marker in _FIXED:
            self._skip(_FIXED[marker])
        elif marker in _TEXT:
            self._skip(self._length(self._byte()))
        elif marker in _CLOSED_BY:
            self._container(marker)
        else:
            raise UbjsonError(f"there is no value of type {marker:#04x}, at byte {self.at - 1:,}")

    def marker(self) -> int:
        """The next one that stands for something."""
        while (marker := self._byte()) == _NO_OP:
            pass
        return marker

    def _container(self, kind: int) -> None:
        of, count = self._header()
        if of in _FIXED and kind == _ARRAY and count is not None:
            self._skip(_FIXED[of] * count)
            return
        left = count
        while left != 0:
            marker = self.marker() if kind == _OBJECT or of is None else of
            if left is None and marker == _CLOSED_BY[kind]:
                return
            if kind == _OBJECT:
                self._skip(self._length(marker))  # the key: a text without a marker of its own
                marker = self.marker() if of is None else of
            self.value(marker)
            left = None if left is None else left - 1

    def _header(self) -> tuple[int | None, int | None]:
        """The type that all values of a container have, and their number, where it says so."""
        of = count = None
        if self._content[self.at] == ord("$"):
            of = self._content[self.at + 1]
            self.at += 2
            if self._content[self.at] != ord("#"):
                raise UbjsonError(f"a type without a number of values, at byte {self.at:,}")
        if self._content[self.at] == ord("#"):
            self.at += 1
            count = self._length(self._byte())
        return of, count

    def _length(self, marker: int) -> int:
        form = _INTEGERS.get(marker)
        if form is None:
            raise UbjsonError(f"a length of type {marker:#04x}, at byte {self.at - 1:,}")
        (length,) = struct.unpack_from(form, self._content, self.at)
        self.at += struct.calcsize(form)
        if length < 0:
            raise UbjsonError(f"a length of {length:,}, before byte {self.at:,}")
        return length

    def _byte(self) -> int:
        self.at += 1
        return self._content[self.at - 1]

    def _skip(self, count: int) -> None:
        self.at += count
        if self.at > len(self._content):
            raise IndexError
