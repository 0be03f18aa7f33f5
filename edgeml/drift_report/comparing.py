"""Two sides, each a path or data in memory, to a result: what is compared with what."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from edgeml.drift_report.counting import Clock, Tally, count
from edgeml.drift_report.judging import Pair, Tables, Terms, judge
from edgeml.drift_report.result import DriftResult, Finding
from edgeml.drift_report.schema import missing_columns, unlike_types, wrong_type
from edgeml.drift_report.statistic import Statistic, labels
from edgeml.drift_report.survey import Survey
from edgeml.drift_report.tables import Table, memory_table, open_table
from edgeml.errors import SourceError, UsageError

UNREADABLE = 0.5
"""Share of a column's values that are no numbers, from which it is no column of numbers."""


class Choice(NamedTuple):
    """What is compared of the two sides, and how."""

    columns: tuple[str, ...] = ()
    """None means all."""
    categories: tuple[str, ...] = ()
    """Columns of numbers that are names of categories."""
    clock: Clock | None = None
    alpha: float = 0.05
    min_effect: float = 0.02
    independent: bool = False


def compare_sides(baseline: Any, data: Any, choice: Choice) -> DriftResult:
    """Compare two sides.

    Args:
        baseline: a path (a table's or a bundle's) or data in memory.
        data: a path or data in memory; beside a bundle also a folder of samples.
        choice: what is compared, and how.

    Raises:
        SourceError: a side cannot be used.
        UsageError: ``choice`` names columns that there are not.
    """
    if isinstance(baseline, Path) and baseline.suffix == ".edgeml":
        return _with_bundle(baseline, data, choice)
    before = _table(baseline, "the baseline")
    now = _table(data, "the data")
    columns = _chosen(before, choice)
    survey = Survey(before, columns, categories=choice.categories)
    if not survey.rows:
        raise SourceError(f"{before.name} has no rows", expected="at least one")
    clock = choice.clock
    if clock is not None and clock.column not in now.columns:
        raise UsageError(
            f"{now.name} has no column {clock.column!r}",
            expected="a column of times for --time",
        )
    ignored = [*([clock.column] if clock else []), *(set(before.columns) - set(columns))]
    findings = [*survey.findings, *missing_columns(columns, now, ignored=ignored)]
    usable = [s for s in survey.statistics if s.column in now.columns]
    unlike = {s.column: text for s in usable if (text := unlike_types(s.column, before, now))}
    findings += [wrong_type(column, text) for column, text in unlike.items()]
    usable = [s for s in usable if s.column not in unlike]
    wanted = list(dict.fromkeys(s.column for s in usable))
    clocked = [*wanted, *([clock.column] if clock and clock.column not in wanted else [])]
    counted = count(now.batches(clocked), usable, clock=clock) if clocked else None
    if counted is not None and not counted.rows:
        raise SourceError(f"{now.name} has no rows", expected="at least one")
    reference = count(before.batches(wanted), usable) if wanted else None
    if clock is not None and counted is not None and not counted.in_order:
        findings.append(
            Finding(
                column=clock.column,
                kind="order",
                text="goes back in time: rows are not in its order, so that what their "
                "dependence is worth is estimated in the order of the file.",
            )
        )
    pairs: list[Pair] = []
    if counted is not None and reference is not None:
        for one, was, is_ in zip(usable, reference.tallies, counted.tallies, strict=True):
            finding = _values(one, was, is_)
            findings += [finding] if finding else []
            if finding is None or not finding.breaks:
                pairs.append(_pair(one, was, is_))
    return judge(
        pairs,
        _once(findings),
        tables=Tables(before.name, now.name, survey.rows, counted.rows if counted else 0),
        terms=_terms(choice),
    )


def _with_bundle(path: Path, data: Any, choice: Choice) -> DriftResult:
    from edgeml.bundle import open_bundle
    from edgeml.drift_report.bundled import baseline_of, pairs_with_samples, pairs_with_table

    bundle = open_bundle(path)
    baseline = baseline_of(bundle)
    if isinstance(data, Path) and (data.is_dir() or data.suffix in (".npz", ".npy")):
        if choice.clock is not None:
            raise UsageError("--time needs a table", expected="DATA as .csv or .parquet")
        name, findings = str(data), list[Finding]()
        rows, pairs = pairs_with_samples(bundle, baseline, data)
    else:
        table = _table(data, "the data")
        name = table.name
        rows, pairs, findings = pairs_with_table(baseline, table, clock=choice.clock)
    if not rows:
        raise SourceError(f"{name} has no rows", expected="at least one")
    if choice.columns:
        pairs = [pair for pair in pairs if pair.column in choice.columns]
    tables = Tables(str(path), name, baseline.rows, rows)
    return judge(pairs, findings, tables=tables, terms=_terms(choice))


def _table(side: Any, name: str) -> Table:
    return open_table(side) if isinstance(side, Path) else memory_table(side, name)


def _chosen(table: Table, choice: Choice) -> list[str]:
    for column in (*choice.columns, *choice.categories):
        if column not in table.columns:
            raise UsageError(
                f"{table.name} has no column {column!r}",
                expected=f"one of {', '.join(list(table.columns)[:20])}",
            )
    columns = list(choice.columns) or list(table.columns)
    return [c for c in columns if choice.clock is None or c != choice.clock.column]


def _values(statistic: Statistic, was: Tally, is_: Tally) -> Finding | None:
    """What is wrong with a column of numbers whose values are not all numbers."""
    if statistic.kind != "numeric" or not (was.broken or is_.broken):
        return None
    present = is_.stretches.rows - is_.missing
    if is_.broken > UNREADABLE * present:
        return wrong_type(statistic.column, "holds text, and numbers in the baseline")
    return Finding(
        column=statistic.column,
        kind="mixed",
        text=f"holds values that are no numbers: {was.broken:,} in the baseline, "
        f"{is_.broken:,} in the data; they count as no number",
    )


def _pair(statistic: Statistic, was: Tally, is_: Tally) -> Pair:
    had, has = was.new.most(), {} if was.new.lost else is_.new.most()
    return Pair(
        name=statistic.name,
        column=statistic.column,
        kind=statistic.kind,
        grid=statistic.grid,
        labels=labels(statistic.grid),
        baseline=was.stretches.total,
        baseline_stretches=was.stretches.complete,
        data=is_,
        new={name: times for name, times in has.items() if name not in had},
    )


def _once(findings: Sequence[Finding]) -> list[Finding]:
    return list(dict.fromkeys(findings))


def _terms(choice: Choice) -> Terms:
    return Terms(
        alpha=choice.alpha,
        min_effect=choice.min_effect,
        independent=choice.independent,
        window_ms=choice.clock.window_ms if choice.clock else None,
    )
