"""Integers as bits: exponential Golomb codes (Teuhola, 1978; those of H.264 and H.265).

To a number 2 to the power of its *parameter* is added, and the sum written in binary, behind as
many zeros as it has digits more than that power. So what is about as large as the power costs about
as many bits as it has, and what is far larger twice as many. Each number has one code, and the last
byte is filled up with zeros.
"""

from __future__ import annotations

from edgeml.errors import StatisticsError

LONGEST = 128
"""Zeros before a number at most."""


class Writer:
    """Gathers numbers."""

    def __init__(self) -> None:
        self._bits = self._length = 0

    def put(self, number: int, parameter: int) -> None:
        """Write a number, 0 or more."""
        number += 1 << parameter
        length = 2 * number.bit_length() - 1 - parameter
        self._bits = self._bits << length | number
        self._length += length

    def bytes(self) -> bytes:
        """All that was written."""
        length = (self._length + 7) // 8
        return (self._bits << 8 * length - self._length).to_bytes(length, "big")


class Reader:
    """Reads what a :class:`Writer` gave, in its order and with its parameters."""

    def __init__(self, data: bytes) -> None:
        self._bits = bin(int.from_bytes(b"\1" + data, "big"))
        self._at = 3  # behind 0b1

    def one(self, parameter: int, most: int) -> int:
        """The next number, 0 … ``most``."""
        bits, at = self._bits, self._at
        first = bits.find("1", at)
        end = 2 * first - at + parameter + 1
        if first < 0 or end > len(bits):
            raise unreadable("they end in the middle")
        if first - at > LONGEST:
            raise unreadable(f"a number of more than {LONGEST} bits")
        number = int(bits[first:end], 2) - (1 << parameter)
        if number > most:
            raise unreadable(f"{number:,} where at most {most:,} is possible")
        self._at = end
        return number

    def end(self) -> None:
        """Nothing may be left."""
        if len(self._bits) - self._at >= 8 or "1" in self._bits[self._at :]:
            raise unreadable("more bytes than they have numbers")


def folded(number: int) -> int:
    """0, −1, 1, −2 … as 0, 1, 2, 3 …"""
    return number << 1 if number >= 0 else (-number << 1) - 1


def unfolded(number: int) -> int:
    """And back."""
    return -(number >> 1) - 1 if number & 1 else number >> 1


def unreadable(why: str) -> StatisticsError:
    """What is raised of bytes that are no counts."""
    return StatisticsError(
        f"packed counts that cannot be read: {why}",
        expected="what edgeml.statistics.pack has written",
    )
