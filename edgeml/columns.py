"""Samples on disk: an array a tensor in an ``.npy`` file, first axis samples. Written row by row,
read in blocks, and never whole in memory.

A mapped file counts as memory of the process that has read it until the pages are given back, so
whoever goes through all of one does it with :func:`blocks` or :func:`rows`.
"""

from __future__ import annotations

import contextlib
import errno
import mmap
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from edgeml.errors import SourceError

Array = NDArray[Any]

BLOCK_BYTES = 8 << 20
"""Of the rows that are held at a time."""

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def blocks(array: Array, *, size: int = BLOCK_BYTES) -> Iterator[tuple[int, Array]]:
    """Consecutive rows of an array with the number of the first, about ``size`` bytes at a time.

    A mapped array's memory is given back after each block, so a block is not to be kept.
    """
    for start, stop in spans(array, size=size):
        yield start, array[start:stop]
        release(array)


def spans(array: Array, *, size: int = BLOCK_BYTES) -> Iterator[tuple[int, int]]:
    """The first row of each block of an array, and the one after its last."""
    count, step = len(array), _at_once(array, size)
    for start in range(0, count, step):
        yield start, min(start + step, count)


def _at_once(array: Array, size: int) -> int:
    return max(1, size // max(1, array.nbytes // max(1, len(array))))


def rows(files: Sequence[Path], chosen: Sequence[int] | None = None) -> Iterator[tuple[Array, ...]]:
    """Samples one by one, with a batch axis of 1: an array a file, copies that may be kept.

    Args:
        files: an ``.npy`` a tensor.
        chosen: which of the samples, in this order; None for all.
    """
    columns = [load(file) for file in files]
    largest = max(columns, key=lambda column: column.nbytes)
    order = range(len(largest)) if chosen is None else chosen
    step = _at_once(largest, BLOCK_BYTES)
    for start in range(0, len(order), step):
        for row in order[start : start + step]:
            yield tuple(np.array(column[row : row + 1]) for column in columns)
        for column in columns:
            release(column)


def load(file: Path) -> Array:
    """Map an ``.npy`` file, for reading."""
    array = np.load(file, mmap_mode="r", allow_pickle=False)
    # A subclass would be handed on to every result; frameworks do not know it.
    return array.view(np.ndarray)


def release(array: Array) -> None:
    """Give back the memory of a mapped array's pages; what is read next comes from the disk."""
    base: Any = array
    while isinstance(base, np.ndarray):
        base = base.base
    if isinstance(base, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
        base.madvise(mmap.MADV_DONTNEED)


class ColumnWriter:
    """Writes an ``.npy`` file whose number of rows is not known yet. A context manager.

    Args:
        file: where to; its folder exists.

    Raises:
        SourceError: the disk is full.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self.count = 0
        """Rows written."""
        self.shape: tuple[int, ...] | None = None
        """Of a row; None before the first."""
        self.dtype = np.dtype(np.float32)
        self._stream: BinaryIO | None = None

    def __enter__(self) -> ColumnWriter:
        return self

    def append(self, batch: Array) -> None:
        """Add rows [n, …] of the shape and dtype of the first ones.

        Raises:
            ValueError: they have another shape, or another dtype.
        """
        if self.shape is None:
            self.shape, self.dtype = batch.shape[1:], batch.dtype
        elif (batch.shape[1:], batch.dtype) != (self.shape, self.dtype):
            raise ValueError(
                f"rows of {list(batch.shape[1:])} {batch.dtype} after {list(self.shape)} "
                f"{self.dtype}"
            )
        with room(self.file.parent):
            if self._stream is None:
                self._stream = self.file.open("wb", buffering=1 << 20)
                self._header()
            self._stream.write(np.ascontiguousarray(batch).data.cast("B") if batch.size else b"")
        self.count += len(batch)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._stream is None:
            return
        with room(self.file.parent), self._stream:
            if kind is None:
                self._stream.seek(0)
                self._header()

    def _header(self) -> None:
        # NumPy leaves room in a header for the first axis to grow, so its length stays.
        assert self._stream is not None
        assert self.shape is not None
        header = {
            "descr": np.lib.format.dtype_to_descr(self.dtype),
            "fortran_order": False,
            "shape": (self.count, *self.shape),
        }
        np.lib.format.write_array_header_1_0(self._stream, header)


@contextlib.contextmanager
def writers(files: Sequence[Path]) -> Generator[list[ColumnWriter], None, None]:
    """A writer a file; all files are complete when the block ends without an error."""
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(ColumnWriter(file)) for file in files]


def save_rows(file: Path, array: Array, chosen: Sequence[int] | NDArray[np.int64]) -> Array:
    """Write some rows of an array, in order, to a file, and map it.

    Raises:
        SourceError: the disk is full.
    """
    with ColumnWriter(file) as writer:
        writer.append(array[:0])
        width = max(1, array.nbytes // max(1, len(array)))
        step = max(1, BLOCK_BYTES // width)
        for start in range(0, len(chosen), step):
            writer.append(array[np.asarray(chosen[start : start + step], dtype=np.int64)])
            release(array)
    return load(file) if len(chosen) else array[:0]


@contextlib.contextmanager
def room(folder: Path) -> Generator[None, None, None]:
    """Turns a full disk into an error that says what to do.

    Raises:
        SourceError: the disk is full.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL:
            raise
        raise SourceError(
            f"There is no room left in {folder} for the samples: {error.strerror}",
            expected="room for all of them as the model takes them, uncompressed",
            remedy="Free some space, name a roomier folder in TMPDIR, or give fewer samples.",
        ) from error
