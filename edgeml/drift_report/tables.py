"""Tables, read in blocks: CSV, Parquet, ``.npy``, ``.npz``, and frames that are in memory.

All of them come out as Arrow record batches.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, cast
from zipfile import BadZipFile

import numpy as np

from edgeml.drift_report.arrow import arrow
from edgeml.drift_report.csv_file import CsvFile
from edgeml.errors import SourceError

Storage = Literal["number", "text", "flag", "time", "other"]
"""What a file says of a column. Flags are booleans; nested and binary columns are ``other``."""

_TEXT: Storage = "text"

BLOCK_ROWS = 65_536
MOST_COLUMNS = 2_000
FORMS = "a .csv, .tsv (also .gz), .parquet, .npy or .npz file"


class Table:
    """A table that can be gone through more than once.

    Args:
        name: for messages.
        columns: by name, in order.
        read: gives the batches of some columns, from the start.
        untyped: whether numbers and times stand there as text.
    """

    def __init__(
        self,
        name: str,
        columns: Mapping[str, Storage],
        read: Callable[[Sequence[str]], Iterator[Any]],
        *,
        untyped: bool = False,
    ) -> None:
        self.name = name
        self.columns = dict(columns)
        self.untyped = untyped
        self._read = read

    def batches(self, columns: Sequence[str]) -> Iterator[dict[str, Any]]:
        """Arrow arrays by column name, some :data:`BLOCK_ROWS` rows at a time.

        Raises:
            SourceError: the file is damaged.
        """
        with _readable(self.name):
            for batch in self._read(columns):
                if batch.num_rows:
                    yield dict(zip(batch.schema.names, batch.columns, strict=True))


def open_table(path: Path) -> Table:
    """Open a file by its suffix.

    Raises:
        SourceError: it is missing, damaged, or of no known form.
    """
    if not path.is_file():
        found = f"{path} is no file" if path.exists() else f"There is no file {path}"
        raise SourceError(found, expected=FORMS)
    name = path.name.lower().removesuffix(".gz")
    suffix = name[name.rfind(".") :] if "." in name else ""
    readers = {".csv": _csv, ".tsv": _csv, ".parquet": _parquet, ".pq": _parquet}
    readers |= {".npy": _npy, ".npz": _npz}
    if suffix not in readers:
        raise SourceError(f"{path} has the suffix {suffix or '(none)'!r}", expected=FORMS)
    if path.stat().st_size == 0:
        raise SourceError(f"{path} is empty", expected="a header and rows")
    with _readable(str(path)):
        return readers[suffix](path)


def memory_table(data: Any, name: str) -> Table:
    """A table of what is in memory: a mapping of names to arrays, an array, or a frame of pandas,
    polars or Arrow (anything with ``__arrow_c_stream__``).

    Raises:
        SourceError: it is something else.
    """
    with _readable(name):
        if hasattr(data, "__arrow_c_stream__"):
            return _in_memory(name, arrow().table(data))
        if isinstance(data, Mapping):
            mapping = cast("Mapping[str, Any]", data)
            return _in_memory(name, _from_arrays(name, mapping))
        if isinstance(data, np.ndarray):
            return _in_memory(name, _from_arrays(name, {"": data}))
    raise SourceError(
        f"{name} is a {type(data).__name__}",
        expected="a path, a frame, an array, or a mapping of column names to arrays",
    )


@contextlib.contextmanager
def _readable(name: str) -> Generator[None, None, None]:
    """Turns what readers raise on damaged files into an error that names the file."""
    try:
        yield
    except (OSError, ValueError, KeyError, EOFError, NotImplementedError, BadZipFile) as error:
        # Arrow's errors are subclasses of these; a type that it does not know is "not implemented".
        reason = str(error).strip().splitlines()[0] if str(error).strip() else repr(error)
        raise SourceError(f"{name} cannot be read: {reason}", expected=FORMS) from error


def _storage(kind: Any) -> Storage:
    types = arrow("types")
    if types.is_dictionary(kind):
        kind = kind.value_type
    if types.is_boolean(kind):
        return "flag"
    if types.is_integer(kind) or types.is_floating(kind) or types.is_decimal(kind):
        return "number"
    if types.is_timestamp(kind) or types.is_date(kind):
        return "time"
    if types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind):
        return "text"
    return "number" if types.is_null(kind) else "other"


def _checked(name: str, columns: Sequence[str]) -> None:
    if not columns:
        raise SourceError(f"{name} has no column")
    twice = sorted({column for column in columns if list(columns).count(column) > 1})
    if twice:
        raise SourceError(f"{name} has columns of one name: {', '.join(map(repr, twice))}")
    if len(columns) > MOST_COLUMNS:
        raise SourceError(
            f"{name} has {len(columns):,} columns",
            expected=f"at most {MOST_COLUMNS:,}",
            remedy="Name those to compare with --columns.",
        )


def _csv(path: Path) -> Table:
    file = CsvFile(path)
    _checked(str(path), file.names)
    return Table(str(path), dict.fromkeys(file.names, _TEXT), file.batches, untyped=True)


def _parquet(path: Path) -> Table:
    parquet = arrow("parquet")
    with parquet.ParquetFile(str(path)) as file:
        schema = file.schema_arrow
    _checked(str(path), schema.names)

    def batches(columns: Sequence[str]) -> Iterator[Any]:
        with parquet.ParquetFile(str(path)) as file:
            yield from file.iter_batches(BLOCK_ROWS, columns=list(columns))

    return Table(str(path), {f.name: _storage(f.type) for f in schema}, batches)


def _npy(path: Path) -> Table:
    array = np.load(path, mmap_mode="r", allow_pickle=False)
    return _of_arrays(str(path), _columns(str(path), {"": array}))


def _npz(path: Path) -> Table:
    with np.load(path, allow_pickle=False) as archive:
        arrays = {name: archive[name] for name in archive.files}
    return _of_arrays(str(path), _columns(str(path), arrays))


def _in_memory(name: str, table: Any) -> Table:
    _checked(name, table.schema.names)

    def batches(columns: Sequence[str]) -> Iterator[Any]:
        yield from table.select(list(columns)).to_batches(max_chunksize=BLOCK_ROWS)

    return Table(name, {f.name: _storage(f.type) for f in table.schema}, batches)


def _from_arrays(name: str, arrays: Mapping[str, Any]) -> Any:
    columns = _columns(name, {str(key): np.asarray(value) for key, value in arrays.items()})
    return arrow().table({key: _arrow_array(column) for key, column in columns.items()})


def _of_arrays(name: str, columns: dict[str, Any]) -> Table:
    """A table of arrays that may be mapped files: a block of them is copied at a time."""
    kinds: dict[str, Storage] = {
        key: _storage(_arrow_array(column[:0]).type) for key, column in columns.items()
    }
    rows = len(next(iter(columns.values())))

    def batches(chosen: Sequence[str]) -> Iterator[Any]:
        for start in range(0, rows, BLOCK_ROWS):
            block = {key: _arrow_array(columns[key][start : start + BLOCK_ROWS]) for key in chosen}
            yield arrow().record_batch(block)

    return Table(name, kinds, batches)


def _columns(name: str, arrays: Mapping[str, Any]) -> dict[str, Any]:
    """Arrays [n] and [n, k] as columns [n]; those of [n, k] are called NAME[0] … NAME[k − 1]."""
    columns: dict[str, Any] = {}
    for key, array in arrays.items():
        if array.ndim == 0:
            raise SourceError(
                f"{name}: {key or 'the array'} is a single value", expected="arrays with a row axis"
            )
        flat = array.reshape(len(array), math.prod(array.shape[1:]))
        if array.ndim == 1:
            columns[key or "value"] = array
        else:
            columns |= {f"{key}[{index}]": flat[:, index] for index in range(flat.shape[1])}
    _checked(name, list(columns))
    lengths = {key: len(column) for key, column in columns.items()}
    if len(set(lengths.values())) > 1:
        shown = ", ".join(f"{key} {rows:,}" for key, rows in list(lengths.items())[:4])
        raise SourceError(f"{name} has arrays of unlike numbers of rows: {shown}")
    return columns


def _arrow_array(column: Any) -> Any:
    plain = np.ascontiguousarray(column)
    if plain.dtype == np.float16:
        plain = plain.astype(np.float32)
    if plain.dtype.byteorder == ">":
        plain = plain.astype(plain.dtype.newbyteorder("="))
    return arrow().array(plain)
