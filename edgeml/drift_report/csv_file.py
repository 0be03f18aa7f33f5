"""A CSV file as Arrow record batches of text, with the faults that such files have said in words.

What its text means is decided over all of its rows, not over the first block
(:mod:`edgeml.drift_report.survey`).
"""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path
from typing import Any

from edgeml.drift_report.arrow import arrow
from edgeml.errors import SourceError

BLOCK_BYTES = 2 << 20
"""That are parsed at a time, so the longest line may not be longer."""
HEAD_BYTES = 1 << 16
_UNEVEN = re.compile(r"Expected (\d+) columns, got (\d+): ?(.*)", re.DOTALL)
_WHOLE = re.compile(r"\d{1,9}")
_COMMA = r'^[ "]*([+-]?\d+),(\d+(?:[eE][+-]?\d+)?)[ "]*$'
"""A number with a decimal comma."""


class CsvFile:
    """An opened file.

    Args:
        path: of the file; ``.gz`` too.

    Raises:
        SourceError: it is no text in UTF-8, or has no header.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        with self._stream() as stream:
            head: bytes = stream.read(HEAD_BYTES)
        if head[:2] in (b"\xff\xfe", b"\xfe\xff") or b"\0" in head:
            wide = head[:2] in (b"\xff\xfe", b"\xfe\xff")
            raise SourceError(
                f"{path} is {'in UTF-16' if wide else 'no text: it has NUL bytes'}",
                expected="CSV in UTF-8",
                remedy="`iconv -f UTF-16 -t UTF-8` makes that of it." if wide else "",
            )
        lines = head.decode("utf-8-sig", errors="replace").splitlines()
        first = lines[0] if lines else ""
        if not first.strip():
            raise SourceError(
                f"{path} has no header line", expected="column names in the first line"
            )
        tabs = ".tsv" in path.name.lower()
        delimiter = max("\t,;|" if tabs else ",;\t|", key=first.count)
        self._parse = arrow("csv").ParseOptions(delimiter=delimiter)
        cells = (cell for line in lines[1:] for cell in line.split(delimiter))
        self._commas = delimiter != "," and any(re.match(_COMMA, cell) for cell in cells)
        with self._said(), self._opened(None) as reader:
            self.names: list[str] = reader.schema.names
        _check_header(path, self.names)

    def batches(self, columns: Sequence[str]) -> Iterator[Any]:
        """Record batches of some columns, from the start.

        Raises:
            SourceError: a line has more or fewer values than the header has names, or holds what is
                no UTF-8.
        """
        with self._said(), self._opened(columns) as reader:
            for batch in reader:
                yield _with_points(batch) if self._commas else batch

    def _stream(self) -> Any:
        return arrow().input_stream(str(self._path), compression="detect")

    def _opened(self, names: Sequence[str] | None) -> Any:
        csv, text = arrow("csv"), arrow().string()
        convert = csv.ConvertOptions(
            column_types=dict.fromkeys(names or (), text),
            include_columns=list(names) if names is not None else None,
            strings_can_be_null=True,
        )
        read = csv.ReadOptions(block_size=BLOCK_BYTES)
        return csv.open_csv(str(self._path), read, self._parse, convert)

    @contextlib.contextmanager
    def _said(self) -> Generator[None, None, None]:
        try:
            yield
        except ValueError as error:  # Arrow's is one
            if uneven := _UNEVEN.search(str(error)):
                wanted, got, text = uneven.groups()
                raise SourceError(
                    f"{self._path}{self._line(text)} has {got} value{'s' * (got != '1')}: "
                    f"{text[:60]!r}",
                    expected=f"{wanted}, one for each name of the header",
                    remedy="Where it is being written, take a copy when it is complete.",
                ) from error
            if "UTF8" in str(error):
                raise SourceError(
                    f"{self._path} holds characters that are no UTF-8",
                    expected="CSV in UTF-8",
                    remedy="`iconv -f WINDOWS-1252 -t UTF-8` makes that of most others.",
                ) from error
            raise

    def _line(self, text: str) -> str:
        """Which line it is that the parser shows the beginning of."""
        begins = text.removesuffix("...").splitlines()[0] if text.strip() else ""
        with self._stream() as stream, io.TextIOWrapper(stream, "utf-8", "replace") as lines:
            for number, line in enumerate(lines, start=1):
                if number > 1 and begins and line.startswith(begins):
                    return f", line {number},"
        return ""


def _check_header(path: Path, names: Sequence[str]) -> None:
    """Refuse a table whose first row would be taken for names. 0, 1, 2 … may be names, as frames
    without any have them."""
    try:
        numbers = [float(name) for name in names if name]
    except ValueError:
        return
    whole = [name for name in names if _WHOLE.fullmatch(name)]
    if numbers and (len(whole) < len(numbers) or len(set(whole)) < len(whole)):
        raise SourceError(
            f"{path} begins with numbers: {', '.join(names)[:60]}",
            expected="column names in the first line",
            remedy="Put a header line before them.",
        )


def _with_points(batch: Any) -> Any:
    """Numbers with a decimal comma as others write them."""
    compute = arrow("compute")
    columns = [compute.replace_substring_regex(c, _COMMA, r"\1.\2") for c in batch.columns]
    return arrow().record_batch(columns, names=batch.schema.names)
