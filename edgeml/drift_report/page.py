"""The report as one HTML page that needs nothing beside it."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

from edgeml.drift_report.charts import histogram, timeline
from edgeml.drift_report.result import ColumnDrift, DriftResult, Verdict
from edgeml.drift_report.wording import title
from edgeml.errors import UsageError

TEMPLATE = Path(__file__).with_name("report.html")
WORDS: dict[Verdict, str] = {
    "drift": "drift",
    "small": "small change",
    "unclear": "too few rows",
    "none": "no drift",
}
MOST_TIMELINES = 20


def render(result: DriftResult) -> str:
    """The page.

    Raises:
        UsageError: jinja2 is not installed.
    """
    try:
        jinja: Any = import_module("jinja2")
        markup: Any = import_module("markupsafe").Markup
    except ImportError as error:
        raise UsageError(
            f"The page is made with jinja2, which cannot be imported here: {error}",
            remedy="Install it: pip install 'edgeml[drift]'.",
        ) from error

    def of_column(column: ColumnDrift) -> object:
        return markup(histogram(column.bars))

    def over_time(column: ColumnDrift) -> object:
        return markup(timeline(column.over_time, least=result.min_effect))

    environment = jinja.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    page: str = environment.from_string(TEMPLATE.read_text()).render(
        result=result,
        title=title(result),
        words=WORDS,
        timed=[column for column in result.columns if column.over_time][:MOST_TIMELINES],
        histogram=of_column,
        timeline=over_time,
        number=number,
        p_value=p_value,
        length=length,
    )
    return page


def number(value: float | None, form: str = ".3f") -> str:
    """A figure, or a dash where there is none."""
    return "–" if value is None else format(value, form)


def p_value(p: float) -> str:
    """A p-value to two digits; very small ones as a bound."""
    if p < 1e-16:
        return "< 1e-16"
    return f"{p:.2g}" if p < 0.995 else "1"


def length(milliseconds: int | None) -> str:
    """A length of time in its largest unit."""
    for name, size in (("d", 86_400_000), ("h", 3_600_000), ("min", 60_000), ("s", 1_000)):
        if milliseconds and milliseconds % size == 0:
            return f"{milliseconds // size} {name}"
    return f"{milliseconds} ms"
