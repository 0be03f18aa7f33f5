"""Samples that Python code holds or gives, written to files that the exporter reads.

One array goes into an ``.npy``, named arrays into an ``.npz``. What is iterated over (a generator,
a ``DataLoader``) is written item by item, never held, with a few lines of Python beside it that
give the same items again: what an item means is the exporter's to tell, which knows the model.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from edgeml.columns import ColumnWriter
from edgeml.errors import SourceError
from edgeml.npz import save_npz

Array = NDArray[Any]

_AGAIN = '''"""Gives the items again that were written beside this file."""

import json
import pathlib

import numpy

here = pathlib.Path(__file__).parent
form = json.loads((here / "items.json").read_text())
columns = [numpy.load(here / f"{i}.npy", mmap_mode="r") for i in range(form["columns"])]


def items():
    starts = [0] * len(columns)
    for lengths in form["lengths"]:
        values = []
        for i, length in enumerate(lengths):
            rows = columns[i][starts[i] : starts[i] + max(length, 1)]
            values.append(rows[0] if length < 0 else numpy.array(rows))
            starts[i] += max(length, 1)
        if form["names"]:
            yield dict(zip(form["names"], values))
        else:
            yield tuple(values) if form["tuple"] else values[0]
'''


class Written(NamedTuple):
    """Samples in files."""

    name: str
    """Of the file to name to the exporter, with what stands after it: ``samples.py:items``."""
    files: tuple[Path, ...]
    first: Any
    """The first item, or a batch of the first sample: for a model whose shapes it shows."""
    batched: bool
    """Whether ``first`` is a batch; False where it may be either."""


def write(data: Any, folder: Path, what: str) -> Written:
    """Write samples to files in ``folder``.

    Args:
        data: an array [n, ...]; a mapping of input names (and ``labels``) to arrays; a tuple of
            arrays, the labels last; or an iterable of samples or batches.
        folder: empty.
        what: what to call them in an error.

    Raises:
        SourceError: it is none of these, or the disk is full.
    """
    if _is_array(data):
        return _array(array(data, what), folder)
    if isinstance(data, Mapping) and all(_is_array(v) for v in cast("Any", data).values()):
        return _arrays({str(k): array(v, what) for k, v in cast("Any", data).items()}, folder)
    if isinstance(data, tuple) and all(_is_array(v) for v in cast("Any", data)):
        return _items([data], folder, what, batched=True)
    if isinstance(data, Iterable):
        sized = getattr(cast("Any", data), "batch_size", None)
        return _items(cast("Iterable[Any]", data), folder, what, batched=bool(sized))
    raise SourceError(
        f"{what} is of type {type(data).__name__}",
        expected="a path, an array, a mapping of arrays, or an iterable of samples or batches",
    )


def array(value: Any, what: str) -> Array:
    """Anything that NumPy takes, torch tensors on a GPU among it, as an array of numbers."""
    detach = getattr(value, "detach", None)
    if detach is not None:
        value = detach().cpu()
    found = np.asarray(value)
    if found.dtype.kind not in "biuf":
        raise SourceError(
            f"{what} holds {type(value).__name__}",
            expected="arrays of numbers, or mappings or tuples of them",
        )
    return found


def _is_array(value: Any) -> bool:
    return hasattr(value, "__array__") or hasattr(value, "detach")


def _array(found: Array, folder: Path) -> Written:
    file = folder / "samples.npy"
    np.save(file, found)
    return Written(file.name, (file,), found[:1], batched=True)


def _arrays(found: Mapping[str, Array], folder: Path) -> Written:
    file = folder / "samples.npz"
    save_npz(file, found)
    first = {name: values[:1] for name, values in found.items()}
    return Written(file.name, (file,), first, batched=True)


def _items(given: Iterable[Any], folder: Path, what: str, *, batched: bool) -> Written:
    import msgspec

    writers: list[ColumnWriter] = []
    lengths: list[tuple[int, ...]] = []
    names: tuple[str, ...] = ()
    first: Any = None
    try:
        for item in given:
            own, values = _parts(item, what)
            if not writers:
                names, first = own, item
                writers = [
                    ColumnWriter(folder / f"{i}.npy").__enter__() for i in range(len(values))
                ]
            if own != names or len(values) != len(writers):
                raise SourceError(
                    f"{what} gives items of unlike forms",
                    expected="the same names, or as many arrays, in every item",
                )
            for writer, value in zip(writers, values, strict=True):
                _append(writer, value if value.ndim else value[np.newaxis], what)
            # -1: a bare number, such as the label of one sample.
            lengths.append(tuple(len(value) if value.ndim else -1 for value in values))
    finally:
        for writer in writers:
            writer.__exit__(None, None, None)
    if not lengths:
        raise SourceError(
            f"{what} gave no samples",
            expected="at least one",
            remedy="If it is a generator that was used up, make a new one.",
        )
    form = {
        "columns": len(writers),
        "names": names,
        "tuple": isinstance(first, tuple | list),
        "lengths": lengths,
    }
    (folder / "items.json").write_bytes(msgspec.json.encode(form))
    (folder / "samples.py").write_text(_AGAIN)
    files = tuple(sorted(folder.iterdir()))
    return Written("samples.py:items", files, first, batched=batched)


def _append(writer: ColumnWriter, rows: Array, what: str) -> None:
    try:
        writer.append(rows)
    except ValueError as error:
        raise SourceError(
            f"{what} gives items of unlike shapes: {error}",
            expected="the same shape and type for every sample",
        ) from error


def _parts(item: Any, what: str) -> tuple[tuple[str, ...], list[Array]]:
    if isinstance(item, Mapping):
        named = cast("Mapping[Any, Any]", item)
        return tuple(map(str, named)), [array(value, what) for value in named.values()]
    if isinstance(item, tuple | list) and not _numbers(cast("Sequence[Any]", item)):
        return (), [array(value, what) for value in cast("Sequence[Any]", item)]
    return (), [array(item, what)]


def _numbers(item: Sequence[Any]) -> bool:
    """Whether a list is one array rather than several."""
    return all(isinstance(value, int | float) for value in item)
