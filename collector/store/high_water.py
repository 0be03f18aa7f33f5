"""Up to where everything of a boot is in the store for good. Pure."""

from __future__ import annotations

from collections.abc import Iterable


def advance(through: int, oldest: int, stored: Iterable[int]) -> int:
    """The new mark.

    Args:
        through: the mark so far; 0 at first.
        oldest: the highest "lowest sequence still in the outbox" that was heard: nothing below it
            will ever come, so it counts as settled.
        stored: sequences in the store above ``through``, ascending, with repeats allowed.
    """
    mark = max(through, oldest - 1)
    for sequence in stored:
        if sequence > mark + 1:
            break
        mark = max(mark, sequence)
    return mark
