"""DATA that is code: ``FILE.py:ITERABLE``, read in a child process; with ``--python`` by the user's
interpreter, from which the samples come over (:mod:`edgeml.exporter.sources.foreign`).

ITERABLE is anything that can be iterated over (a list, a PyTorch ``Dataset`` or ``DataLoader``) or
a function that returns such a thing; what it may give is said in :func:`edgeml.data.gather`.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import msgspec
import numpy as np

from edgeml.bundle.manifest import Tensor
from edgeml.data import LABELS, gather
from edgeml.errors import SourceError
from edgeml.exporter.sources.forms import ArrayShape
from edgeml.exporter.user_code import blaming, load_attribute

MAX_SAMPLES = 20_000
"""An iterable may never end; nothing here needs more."""

_peeked: dict[tuple[Path, str], Iterable[Any]] = {}
"""Iterables whose first item was looked at, with that item put back."""


class Gathered(msgspec.Struct, frozen=True):
    """What was read."""

    count: int
    """Of samples."""
    missing: tuple[str, ...] = ()
    """As in :attr:`edgeml.data.Samples.missing`."""


class IterableJob(msgspec.Struct, frozen=True, kw_only=True):
    """An iterable to be read into files."""

    path: Path
    attribute: str
    inputs: tuple[Tensor, ...]
    folder: Path
    """Takes an ``.npy`` an input, and ``labels.npy``."""
    python: str = ""
    """The interpreter that it runs in; empty: this one."""


def read(job: IterableJob) -> Gathered:
    """Read an iterable, check it and write it to files.

    Raises:
        SourceError: the code fails, or what it gives does not fit the model's inputs.
    """
    where = f"{job.path}:{job.attribute}"
    items = _peeked.pop((job.path, job.attribute), None)
    if items is None:
        items, _ = _open(job.path, job.attribute, job.python)
    blamed = _blamed(items, job.path, where)
    found = gather(blamed, job.inputs, where, job.folder, limit=MAX_SAMPLES)
    return Gathered(len(found), found.missing)


def first_shapes(
    path: Path, attribute: str, names: Sequence[str], *, python: str = ""
) -> tuple[ArrayShape, ...]:
    """Shapes of a sample, from the first item, for a model whose inputs are not known yet.

    Whether the item is a sample or a batch is plain where it comes from a ``DataLoader`` or has a
    label: one number, or as many as the batch is long. Otherwise it is not known.

    Args:
        path: the user's file.
        attribute: the name in it.
        names: of the model's inputs, for items that do not name theirs.
        python: the interpreter that it runs in; empty: this one.

    Raises:
        SourceError: the code fails, gives nothing, or leaves open what a sample is.
    """
    where = f"{path}:{attribute}"
    items, kind = _open(path, attribute, python)
    iterator = _blamed(items, path, where)
    first = next(iterator, None)
    if first is None:
        raise SourceError(f"{where} gave no samples", expected="at least one")
    # A generator has lost its first item by now; anything else starts anew.
    _peeked[path, attribute] = itertools.chain([first], iterator) if iter(items) is items else items
    arrays = _named(first, names)
    label = arrays.pop(LABELS, None)
    if kind == "DataLoader":
        batched = True
    elif label is not None:
        batched = label.ndim > 0
    else:
        raise SourceError(
            f"{where} gives arrays of shape {[list(array.shape) for array in arrays.values()]}, "
            "which may be samples or batches",
            expected="a way to tell: a torch DataLoader, labels beside the samples, or a factory "
            "that returns (module, example inputs)",
        )
    return tuple(
        ArrayShape(name, array.shape[1 if batched else 0 :], str(array.dtype))
        for name, array in arrays.items()
    )


def _open(path: Path, attribute: str, python: str) -> tuple[Iterable[Any], str]:
    """The iterable, and the name of its class."""
    if python:
        from edgeml.exporter.sources.foreign import Stream

        stream = Stream(python, path, attribute)
        return stream, stream.kind
    found: Any = load_attribute(path, attribute, "an iterable, or a function that returns one")
    iterable = hasattr(found, "__iter__") or hasattr(found, "__getitem__")
    if callable(found) and (not iterable or isinstance(found, type)):
        with blaming(path, f"{path.name}:{attribute}"):
            found = found()
        iterable = hasattr(found, "__iter__") or hasattr(found, "__getitem__")
    kind = _type_name(found)
    if not iterable or isinstance(found, str | bytes | Mapping):
        raise SourceError(
            f"{path}:{attribute} is of type {kind}",
            expected="something to iterate over, or a function that returns it",
            remedy="Arrays that are complete are better saved with numpy.savez and given as .npz.",
        )
    return cast("Iterable[Any]", found), kind


def _type_name(value: object) -> str:
    return type(value).__name__


def _blamed(items: Iterable[Any], path: Path, where: str) -> Iterator[Any]:
    with blaming(path, where):
        yield from items


def _named(item: Any, names: Sequence[str]) -> dict[str, np.ndarray[Any, np.dtype[Any]]]:
    if isinstance(item, Mapping):
        mapping = cast("Mapping[str, Any]", item)
        return {str(name): np.asarray(value) for name, value in mapping.items()}
    if not isinstance(item, tuple | list):
        return {names[0]: np.asarray(item)}
    values = [np.asarray(value) for value in cast("Sequence[Any]", item)]
    # An array an input, and one more for the label; a model of optional inputs takes the first.
    if len(values) >= 2 and (len(values) == len(names) + 1 or values[-1].ndim <= 1):
        return {**dict(zip(names, values[:-1], strict=False)), LABELS: values[-1]}
    return dict(zip(names, values, strict=False))
