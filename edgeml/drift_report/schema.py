"""How the columns of two tables differ before a row is read. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from edgeml.drift_report.result import Finding
from edgeml.drift_report.tables import Table

_WORDS = {
    "number": "numbers",
    "text": "text",
    "flag": "flags",
    "time": "times",
    "other": "neither numbers nor text",
}


def missing_columns(
    columns: Sequence[str], table: Table, *, ignored: Sequence[str]
) -> list[Finding]:
    """Findings of columns that the baseline has and the table lacks, and the other way round."""
    gone = [c for c in columns if c not in table.columns and c not in ignored]
    extra = [c for c in table.columns if c not in columns and c not in ignored]
    return [
        *(
            Finding(column=c, kind="missing column", text="is missing from the data", breaks=True)
            for c in gone
        ),
        *(
            Finding(column=c, kind="extra column", text="is not in the baseline, and not compared")
            for c in extra
        ),
    ]


def unlike_types(column: str, before: Table, now: Table) -> str:
    """Why a column of the one cannot be compared with that of the other, by what the files say of
    them; empty where it can."""
    was, is_ = before.columns[column], now.columns[column]
    if was == is_ or ("text" in (was, is_) and (before.untyped or now.untyped)):
        return ""
    if is_ in ("other", "time") or {was, is_} == {"number", "text"} or "flag" in (was, is_):
        return f"holds {_WORDS[is_]}, and {_WORDS[was]} in the baseline"
    return ""


def wrong_type(column: str, text: str) -> Finding:
    """A finding that ends the comparison of a column."""
    return Finding(column=column, kind="type", text=text, breaks=True)
