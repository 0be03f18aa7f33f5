"""A column's cells as numbers, as text, and as what is missing: Arrow arrays in, NumPy's out."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from edgeml.drift_report.arrow import arrow

NUMBER = r"^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$|^[+-]?(inf|infinity|nan)$"
"""Of text that is a number; case does not matter."""

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]


class Numbers(NamedTuple):
    """Of each row."""

    values: Floats
    """NaN where there is no number."""
    missing: Flags
    """Nothing stands there."""
    broken: Flags
    """Something stands there that is no number."""


def numbers(column: Any) -> Numbers:
    """Read an Arrow array of numbers, or of text that should be numbers."""
    compute, float64 = arrow("compute"), arrow().float64()
    column = _plain(column)
    missing = _flags(compute.is_null(column))
    if not _is_text(column):
        values = _floats(compute.cast(column, float64, safe=False))
        return Numbers(values, missing, np.zeros(len(values), dtype=np.bool_))
    try:
        values = _floats(compute.cast(column, float64))
        return Numbers(values, missing, np.zeros(len(values), dtype=np.bool_))
    except ValueError:  # some of it is none, or has blanks around it
        trimmed = compute.utf8_trim_whitespace(column)
        missing |= _flags(compute.fill_null(compute.equal(trimmed, ""), True))
        valid = compute.match_substring_regex(trimmed, NUMBER, ignore_case=True)
        values = _floats(
            compute.cast(compute.if_else(valid, trimmed, arrow().scalar(None)), float64)
        )
        broken = ~_flags(compute.fill_null(valid, True)) & ~missing
        return Numbers(values, missing, broken)


def texts(column: Any) -> Any:
    """An Arrow array as one of text, missing values kept."""
    return arrow("compute").cast(_plain(column), arrow().string())


def times(column: Any) -> NDArray[np.int64] | None:
    """Milliseconds since 1970 (UTC where nothing else is said), the smallest int64 where missing;
    None where the column holds no times. Numbers are taken for seconds."""
    compute, pa = arrow("compute"), arrow()
    column = _plain(column)
    kind = pa.timestamp("ms")
    try:
        if _is_text(column):
            found = compute.cast(column, pa.timestamp("us"))
        elif pa.types.is_timestamp(column.type) or pa.types.is_date(column.type):
            found = column
        else:
            seconds = numbers(column).values
            found = pa.array(np.nan_to_num(seconds * 1000).astype(np.int64)).cast(kind)
    except (ValueError, NotImplementedError):
        return None
    plain = compute.cast(compute.cast(found, kind, safe=False), pa.int64())
    return compute.fill_null(plain, np.iinfo(np.int64).min).to_numpy(zero_copy_only=False)


CHARACTERS = {
    "length": "",
    "letters": r"\p{L}",
    "digits": r"\p{N}",
    "spaces": r"\s",
    "punctuation": r"[\p{P}\p{S}]",
}
"""Statistics of a text: its length, and the share of its characters in a class."""


def text_statistic(column: Any, statistic: str) -> Numbers:
    """One of :data:`CHARACTERS` of each text; an empty text has the share 0 of each class."""
    compute = arrow("compute")
    column = texts(column)
    length = _floats(compute.cast(compute.utf8_length(column), arrow().float64()))
    missing = _flags(compute.is_null(column))
    values = length
    if pattern := CHARACTERS[statistic]:
        count = compute.count_substring_regex(column, pattern)
        found = _floats(compute.cast(count, arrow().float64()))
        values = found / np.maximum(length, 1)
    return Numbers(values, missing, np.zeros(len(values), dtype=np.bool_))


def _plain(column: Any) -> Any:
    types = arrow("types")
    if types.is_dictionary(column.type):
        column = column.dictionary_decode()
    return arrow("compute").cast(column, "string") if types.is_large_string(column.type) else column


def _is_text(column: Any) -> bool:
    types = arrow("types")
    return types.is_string(column.type) or types.is_string_view(column.type)


def _floats(column: Any) -> Floats:
    return column.to_numpy(zero_copy_only=False).astype(np.float64, copy=False)


def _flags(column: Any) -> Flags:
    return column.to_numpy(zero_copy_only=False).astype(np.bool_)
