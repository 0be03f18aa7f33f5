"""``edgeml.drift``: two tables compared, from Python."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeml.errors import UsageError

if TYPE_CHECKING:
    from edgeml.drift_report.result import DriftResult

_UNITS = {"s": 1_000, "m": 60_000, "min": 60_000, "h": 3_600_000, "d": 86_400_000}


def drift(
    baseline: Any,
    data: Any,
    *,
    columns: Sequence[str] = (),
    categorical: Sequence[str] = (),
    time: str | None = None,
    window: str = "1h",
    alpha: float = 0.05,
    min_effect: float = 0.02,
    independent: bool = False,
    html: str | os.PathLike[str] | None = None,
) -> DriftResult:
    """Compare two tables column by column: ``edgeml drift``, from Python.

    Files are read in blocks and never whole (an ``.npz`` is).

    Args:
        baseline: a path (``.csv``, ``.tsv``, ``.parquet``, ``.npy``, ``.npz``, or a ``.edgeml``
            bundle), a frame of pandas, polars or Arrow, an array, or a mapping of column names to
            arrays.
        data: as ``baseline``; beside a bundle a table of its features or samples of its inputs.
        columns: those to compare; all by default.
        categorical: columns of numbers that are names of categories.
        time: a column of times; adds the effect in each window of ``window``.
        window: its length, as ``15m``, ``1h``, ``7d``.
        alpha: expected share of false ones among the statistics called drift, at most.
        min_effect: the least effect that matters: a Jensen-Shannon divergence in bits.
        independent: take the rows to be independent, without looking at their order.
        html: where to write the report.

    Raises:
        SourceError: a side cannot be used.
        UsageError: an option is wrong, or pyarrow is not installed.
    """
    from edgeml.drift_report.comparing import Choice, compare_sides
    from edgeml.drift_report.counting import Clock

    if not 0 < alpha < 1:
        raise UsageError(f"alpha is {alpha:g}", expected="a share between 0 and 1")
    if not 0 <= min_effect <= 1:
        raise UsageError(f"the least effect is {min_effect:g}", expected="bits, 0 to 1")
    choice = Choice(
        columns=tuple(columns),
        categories=tuple(categorical),
        clock=Clock(time, parse_window(window)) if time is not None else None,
        alpha=alpha,
        min_effect=min_effect,
        independent=independent,
    )
    result = compare_sides(_side(baseline), _side(data), choice)
    if html is not None:
        from edgeml.drift_report.page import render

        text = render(result)
        try:
            Path(html).write_text(text, encoding="utf-8")
        except OSError as error:
            raise UsageError(f"The report cannot be written: {error}") from error
    return result


def parse_window(text: str) -> int:
    """``15m``, ``1h``, ``7d``: milliseconds.

    Raises:
        UsageError: it is no length of time.
    """
    match = re.fullmatch(r"(\d*\.?\d+)\s*([a-z]+)", text.strip())
    length = round(float(match[1]) * _UNITS.get(match[2], 0)) if match else 0
    if not length:
        raise UsageError(f"{text!r} is no length of a window", expected="30s, 15m, 1h or 7d, say")
    return length


def _side(side: Any) -> Any:
    if isinstance(side, (str, os.PathLike)):
        return Path(os.fspath(side))  # pyright: ignore[reportUnknownArgumentType]
    return side
