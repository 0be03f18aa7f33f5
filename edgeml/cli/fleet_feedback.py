"""``edgeml fleet feedback``: hand in labels, and see how right the models were."""

from __future__ import annotations

import csv
import hashlib
import importlib
import io
from pathlib import Path
from typing import Annotated, Any

import typer

from edgeml.cli.fleet_changes import unix_ms
from edgeml.cli.fleet_client import DEFAULT, Collector, answer, app, get, utc
from edgeml.cli.shared import Json, write_json, write_table
from edgeml.errors import UsageError

_NEEDED = ("device", "model", "time", "prediction", "label")


@app.command("feedback")
def feedback(
    file: Annotated[
        Path,
        typer.Argument(
            help="CSV or Parquet with device, model, time, prediction, label; where there is one, "
            "also confidence, group, site.",
            metavar="FILE",
        ),
    ],
    collector: Collector = DEFAULT,
    as_json: Json = False,
) -> None:
    """Hand in labels that came back. The same file twice changes nothing."""
    content, rows = read_rows(file)
    batch = {
        "sha256": hashlib.sha256(content).hexdigest(),
        "labels": [_label(file, number, row) for number, row in enumerate(rows, start=1)],
    }
    document = answer(collector, "POST", "feedback", json=batch, timeout=600.0)
    if as_json:
        write_json(document)
        return
    known = "" if document["new"] else " were known already: nothing changed"
    typer.echo(f"{document['rows']:,} labels{known or ' added'}.")


@app.command("accuracy")
def accuracy(
    collector: Collector = DEFAULT,
    by: Annotated[
        str, typer.Option(metavar="WHAT", help="device, hour, day, group or model.")
    ] = "model",
    as_json: Json = False,
) -> None:
    """Say how right the models were, as far as labels came back."""
    document = get(collector, "accuracy", by=by)
    if as_json:
        write_json(document)
        return
    write_table(
        ("model", by, "labels", "accuracy", "95 %", "calibration error", "largest gap"),
        [_accuracy_row(found, by) for found in document["accuracy"]],
        right=("labels", "accuracy", "95 %", "calibration error"),
        empty="No labels came back yet: `edgeml fleet feedback FILE` hands them in.",
    )
    if document["estimates"]:
        write_table(
            ("model", "device", "requests", "estimated", "95 %"),
            [_estimate_row(found) for found in document["estimates"]],
            right=("requests", "estimated", "95 %"),
        )
        typer.echo(
            "Estimated without labels, from the confidences of the last day: right as long as the "
            "model is as sure of what it gets wrong as it was on the evaluation set."
        )


def _estimate_row(found: dict[str, Any]) -> tuple[object, ...]:
    return (
        f"{found['model']} {found['version']}",
        f"{found['site']}/{found['device']}",
        f"{found['n']:,}",
        f"{found['accuracy']:.3f}",
        f"{found['low']:.3f} – {found['high']:.3f}",
    )


def _accuracy_row(found: dict[str, Any], by: str) -> tuple[object, ...]:
    part = utc(int(found["part"])) if by in {"hour", "day"} else found["part"]
    error, gap = found["calibration_error"], found["gap"]
    return (
        f"{found['model']} {found['version']}",
        part or None,
        f"{found['n']:,}",
        f"{found['accuracy']:.3f}",
        f"{found['low']:.3f} – {found['high']:.3f}",
        None
        if error is None
        else f"{error:.3f} ({found['calibration_error_by_chance']:.3f} by chance)",
        gap and f"{_named(gap['best'])} is {gap['difference']:.3f} above {_named(gap['worst'])}",
    )


def _named(group: str) -> str:
    return group or "(no group)"


def read_rows(file: Path) -> tuple[bytes, list[dict[str, Any]]]:
    """The content of a CSV or Parquet file, and its rows.

    Raises:
        UsageError: it cannot be read, or lacks a column.
    """
    try:
        content = file.read_bytes()
    except OSError as error:
        raise UsageError(f"{file} cannot be read: {error.strerror}", expected="a file") from error
    if file.suffix == ".parquet":
        rows = _parquet(file, content)
    else:
        try:
            text = content.decode("utf-8-sig")
            header = text.partition("\n")[0]
            separator = max(",;\t", key=header.count)
            rows = list(csv.DictReader(io.StringIO(text), delimiter=separator))
        except UnicodeDecodeError as error:
            raise UsageError(f"{file} is no text", expected="CSV in UTF-8, or .parquet") from error
    columns = rows[0].keys() if rows else ()
    missing = [name for name in _NEEDED if name not in columns]
    if missing:
        raise UsageError(
            f"{file} lacks {', '.join(missing)}",
            expected=f"rows with the columns {', '.join(_NEEDED)}",
        )
    return content, rows


def _parquet(file: Path, content: bytes) -> list[dict[str, Any]]:
    try:
        parquet: Any = importlib.import_module("pyarrow.parquet")
    except ImportError as error:
        raise UsageError(
            f"{file} is Parquet, and pyarrow is not installed here",
            expected="a CSV file, or pyarrow",
            remedy="`pip install pyarrow`, or hand in CSV.",
        ) from error
    return parquet.read_table(io.BytesIO(content)).to_pylist()


def _label(file: Path, number: int, row: dict[str, Any]) -> dict[str, Any]:
    empty = [name for name in _NEEDED if row[name] is None or not str(row[name]).strip()]
    if empty:  # no label is no wrong one
        raise UsageError(
            f"row {number} of {file} has no {', '.join(empty)}",
            expected=f"{', '.join(_NEEDED)} in each row",
            remedy="Leave rows out whose label did not come back.",
        )
    try:
        sure = row.get("confidence")
        return {
            "device": str(row["device"]),
            "site": str(row.get("site") or ""),
            "model": str(row["model"]),
            "time_ms": unix_ms(str(row["time"])),
            "correct": str(row["prediction"]).strip() == str(row["label"]).strip(),
            "confidence": None if sure in (None, "") else float(str(sure)),
            "group": str(row.get("group") or ""),
        }
    except ValueError as error:
        raise UsageError(f"row {number} of {file}: {error}", expected="a number") from error
    except UsageError as error:
        found = f"row {number} of {file}: {error.found}"
        raise UsageError(found, expected=error.expected) from error
