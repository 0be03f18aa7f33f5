"""``edgeml drift``: two tables compared off line, without a fleet."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgeml.cli.shared import Json, verb_app, write_json, write_table

if TYPE_CHECKING:
    from edgeml.drift_report.result import DriftResult

app = verb_app()

FOUND = 3
"""The exit status where drift was found: neither done-and-well nor an error, for a pipeline."""


@app.command()
def drift(
    baseline: Annotated[
        Path,
        typer.Argument(
            metavar="BASELINE", help="A .csv, .tsv, .parquet, .npy, .npz, or a .edgeml bundle."
        ),
    ],
    data: Annotated[
        Path,
        typer.Argument(
            metavar="DATA", help="As BASELINE; beside a bundle also a folder of images."
        ),
    ],
    *,
    html: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the report to this file.")
    ] = None,
    as_json: Json = False,
    columns: Annotated[
        str, typer.Option(metavar="A,B,…", help="Compare only these. [default: all]")
    ] = "",
    categorical: Annotated[
        str,
        typer.Option(metavar="A,B,…", help="Columns of numbers that are names of categories."),
    ] = "",
    time: Annotated[
        str | None,
        typer.Option(metavar="COLUMN", help="Also show the effect in windows of this time."),
    ] = None,
    window: Annotated[
        str, typer.Option(metavar="LENGTH", help="… of this length: 30s, 15m, 1h, 7d.")
    ] = "1h",
    min_effect: Annotated[
        float,
        typer.Option(
            metavar="BITS", help="The least effect that matters, in bits of JS divergence."
        ),
    ] = 0.02,
    alpha: Annotated[
        float,
        typer.Option(
            metavar="SHARE", help="Share of false ones among those called drift, at most."
        ),
    ] = 0.05,
    independent: Annotated[
        bool,
        typer.Option("--independent", help="Take rows as independent, whatever their order shows."),
    ] = False,
) -> None:
    """Compare DATA with BASELINE, column by column.

    A column drifts where there is evidence (a test of location, scale and shape, corrected for rows
    that depend on each other and for the number of columns) and an effect that matters. The exit
    status is 0 without drift, 3 with it, 1 for data that cannot be used and 2 for wrong usage.
    """
    from edgeml.api.drifting import drift as compare

    result = compare(
        baseline,
        data,
        columns=_names(columns),
        categorical=_names(categorical),
        time=time,
        window=window,
        alpha=alpha,
        min_effect=min_effect,
        independent=independent,
        html=html,
    )
    if as_json:
        write_json(result)
    else:
        _write(result)
    if result.drift:
        raise typer.Exit(FOUND)
    if not result.columns:  # 0 would tell a pipeline that all is well
        raise typer.Exit(1)


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _write(result: DriftResult) -> None:
    from edgeml.drift_report.page import WORDS, number, p_value

    sys.stdout.write(result.summary + "\n")
    for finding in result.findings:
        sys.stdout.write(f"  {finding.column + ' ' if finding.column else ''}{finding.text}\n")
    rows: list[tuple[object, ...]] = []
    for column in result.columns:
        comparison = column.comparison
        w1, ks = comparison.measures.get("w1"), comparison.measures.get("ks")
        rows.append(
            (
                column.name,
                WORDS[column.verdict],
                number(comparison.effect),
                number(comparison.detectable),
                p_value(column.adjusted_p),
                number(w1.effect if w1 else None, ".2f"),
                number(ks.effect if ks else None),
                number(comparison.measures["psi"].effect),
                f"{comparison.effective_n:,.0f} of {comparison.n:,}",
                column.sentence,
            )
        )
    if rows:
        numbers = ("effect", "seen from", "adjusted p", "W1 sd", "KS", "PSI", "rows")
        write_table(("statistic", "verdict", *numbers, "what changed"), rows, right=numbers)
