"""What the forms of packed counts share: numbers with a sign as numbers without one."""

from __future__ import annotations

from edgeml.errors import StatisticsError


def folded(number: int) -> int:
    """0, −1, 1, −2 … as 0, 1, 2, 3 …"""
    return number << 1 if number >= 0 else (-number << 1) - 1


def unfolded(number: int) -> int:
    """And back."""
    return -(number >> 1) - 1 if number & 1 else number >> 1


def outwards(number: int, middle: int, most: int) -> int:
    """0 … ``most``, numbered from a middle outwards, and where one side ends along the other."""
    both = middle if 2 * middle < most else most - middle
    if middle - both <= number <= middle + both:
        return folded(number - middle)
    return number if both == middle else most - number


def inwards(number: int, middle: int, most: int) -> int:
    """And back."""
    both = middle if 2 * middle < most else most - middle
    if number <= 2 * both:
        return middle - (number + 1 >> 1) if number & 1 else middle + (number >> 1)
    return number if both == middle else most - number


def unreadable(why: str) -> StatisticsError:
    """What is raised of bytes that are no counts."""
    return StatisticsError(
        f"packed counts that cannot be read: {why}",
        expected="what edgeml.statistics.pack has written",
    )
