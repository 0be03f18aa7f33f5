"""Text: how long it is, of which characters, and the value itself as a category.

Character classes are Unicode's (``str.isalpha``, ``isdecimal``, ``isspace``, and the general
categories P and S), so that a change of alphabet is no change, and a broken encoding is one: what
belongs to none of them (controls, the replacement character) is ``other``.
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterable
from functools import lru_cache

import numpy as np

from edgeml.statistics.families.family import MISSING, Batch, Context, Family, Matrix

CLASSES = ("letters", "digits", "spaces", "punctuation", "other")

MAX_CHARACTERS = 4096
"""Characters that the shares are taken of, so that one long text costs no more."""


def names(context: Context) -> tuple[str, ...]:  # noqa: ARG001
    """Of the columns; the value itself is no number."""
    return ("length", *CLASSES)


def compute(batch: Batch, context: Context, state: None) -> Matrix:  # noqa: ARG001
    """Length in characters and the share of each class of them, of texts [n] or [n, 1].

    Missing where there is no text (None, a float's NaN), and the shares of an empty one.
    """
    return np.array([_of(text) for text in values(batch)], dtype=np.float64).reshape(
        len(batch), 1 + len(CLASSES)
    )


def values(batch: Batch) -> list[str | None]:
    """The texts of an array of strings, bytes (as UTF-8) or objects; None where one is missing."""
    return [_text(item) for item in np.asarray(batch).ravel().tolist()]


def _text(item: object) -> str | None:
    match item:
        case str():
            return item
        case bytes():
            return item.decode("utf-8", errors="replace")
        case None:
            return None
        case float() if item != item:  # noqa: PLR0124
            return None
        case _:
            return str(item)


def _of(text: str | None) -> list[float]:
    if not text:
        return [MISSING if text is None else 0.0] + [MISSING] * len(CLASSES)
    seen = Counter(map(_class, _some(text)))
    total = seen.total()
    return [float(len(text)), *(seen[name] / total for name in CLASSES)]


def _some(text: str) -> Iterable[str]:
    return text[:: -(-len(text) // MAX_CHARACTERS)]


@lru_cache(maxsize=4096)
def _class(character: str) -> str:
    if character.isalpha():
        return "letters"
    if character.isdecimal():
        return "digits"
    if character.isspace():
        return "spaces"
    category = unicodedata.category(character)
    if category.startswith("M"):  # an accent of its own belongs to its letter
        return "letters"
    is_sign = category[0] in "PS" and character != "\N{REPLACEMENT CHARACTER}"
    return "punctuation" if is_sign else "other"


FAMILY = Family(names=names, compute=compute)
