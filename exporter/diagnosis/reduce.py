"""Delta debugging: the smallest part of something that still shows a failure. Pure.

The algorithm is ddmin (Zeller and Hildebrandt, "Simplifying and isolating failure-inducing input",
2002): try ever smaller chunks, and all but one chunk, until no single item can be left out.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence

Items = tuple[int, ...]


def smallest(
    count: int,
    shows: Callable[[Items], bool],
    *,
    guesses: Iterable[Items] = (),
    most: int = 500,
) -> Items:
    """The items that are left when none of them can be left out alone.

    Args:
        count: items are 0 to ``count`` − 1; all of them together show it.
        shows: whether some items, ascending, show it. Asked at most once of the same items.
        guesses: to try first, the likeliest first.
        most: questions; when they are used up, the smallest that was found so far is it.

    Returns:
        Ascending items that show it. Of a property that a superset never loses, the smallest set.
    """
    asked: dict[Items, bool] = {}

    def ask(items: Items) -> bool:
        if items not in asked:
            if len(asked) >= most:
                return False
            asked[items] = shows(items)
        return asked[items]

    left = tuple(range(count))
    for guess in guesses:
        if guess and len(guess) < len(left) and ask(guess):
            left = guess
            break
    parts = 2
    while len(left) > 1:
        chunks = _chunks(left, min(parts, len(left)))
        found = next((chunk for chunk in chunks if ask(chunk)), None)
        if found is not None:
            left, parts = found, 2
            continue
        rests = (tuple(i for i in left if i not in set(chunk)) for chunk in chunks)
        found = next((rest for rest in rests if rest and ask(rest)), None)
        if found is not None:
            left, parts = found, max(parts - 1, 2)
            continue
        if parts >= len(left):
            break
        parts = min(2 * parts, len(left))
    return left


def _chunks(items: Sequence[int], parts: int) -> list[Items]:
    """Consecutive parts of about the same length."""
    bounds = [len(items) * part // parts for part in range(parts + 1)]
    return [tuple(items[a:b]) for a, b in itertools.pairwise(bounds)]
