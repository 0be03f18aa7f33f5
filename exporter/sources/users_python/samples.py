"""Samples that code gives, handed over in files, some megabytes at a time."""

# pyright: basic
# ruff: noqa: ANN001, ANN201

from __future__ import annotations

import importlib
from typing import Any

from . import Wrong
from .user_code import open_iterable

ITEMS_BYTES = 8 << 20
"""Of the items that are handed over at a time."""


class Streams:
    """The iterables that were begun, by what they are called."""

    def __init__(self) -> None:
        self._begun: dict[str, Any] = {}

    def iterate(self, order):
        """Begin with an iterable of theirs; says what class it is of."""
        items: Any = open_iterable(order["file"], order["attribute"])
        self._begun[order["stream"]] = iter(items)
        return {"kind": type(items).__name__}

    def items(self, order):
        """Write some more items' arrays to a file: the form of each, and whether that was all."""
        numpy = importlib.import_module("numpy")

        forms, arrays, size = [], [], 0
        stream = self._begun[order["stream"]]
        while size < ITEMS_BYTES:
            item = next(stream, self)  # itself for the end: they cannot give that
            if item is self:
                break
            names, values = item_parts(item, order["stream"])
            forms.append([names, len(values)])
            arrays += values
            size += sum(value.nbytes for value in values)
        numpy.savez(order["path"], **{f"a{at}": array for at, array in enumerate(arrays)})
        return {"forms": forms, "done": size < ITEMS_BYTES}


def item_parts(item, where):
    """The arrays of an item, and their names: None of a tuple, an empty list of a bare array."""
    if isinstance(item, (tuple, list)):
        return None, [as_array(value, where) for value in item]
    if hasattr(item, "keys") and hasattr(item, "__getitem__"):
        return [str(name) for name in item], [as_array(item[name], where) for name in item]
    return [], [as_array(item, where)]


def as_array(value, where):
    """Numbers as NumPy has them; a torch tensor may ask for gradients, or live on a GPU."""
    numpy = importlib.import_module("numpy")

    array = numpy.asarray(value.detach().cpu() if hasattr(value, "detach") else value)
    if array.dtype.kind not in "biuf":
        raise Wrong(
            f"{where} gives {type(value).__name__}",
            "arrays of numbers, or mappings or tuples of them",
            "",
        )
    return array
