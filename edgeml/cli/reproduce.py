"""``edgeml reproduce``: makes a bundle again from its lock and compares every byte."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgeml.cli.ending import unwinding
from edgeml.cli.shared import Json, verb_app, write_json, write_table

if TYPE_CHECKING:
    from edgeml.exporter.events import Cause, Difference

app = verb_app()

Data = Annotated[
    str,
    typer.Option(metavar="DATA", help="Where these samples are now; else where they were."),
]


@app.command()
def reproduce(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="A .edgeml file.")],
    *,
    model: Annotated[
        str, typer.Option(metavar="MODEL", help="Where the model is now; else where it was.")
    ] = "",
    calibration: Data = "",
    evaluate: Data = "",
    output: Annotated[
        str, typer.Option("-o", "--output", metavar="PATH", help="Keep the new bundle here.")
    ] = "",
    as_json: Json = False,
) -> None:
    """Make a bundle again from its lock, without the cache, and compare.

    The exit status is 0 when every byte is the same; else what differs is printed, and why. What
    was measured, and when, is taken over from the bundle.
    """
    from edgeml.api.hopping import stream_export
    from edgeml.api.result import revived
    from edgeml.cli.export_view import StageView
    from edgeml.cli.toolchain import showing
    from edgeml.exporter.events import Cause, Difference, Done, Failure
    from edgeml.exporter.request import Reproduction

    request = Reproduction(
        bundle=str(bundle),
        model=model,
        calibration=calibration,
        evaluation=evaluate,
        output=output,
    )
    differences: list[Difference] = []
    causes: list[Cause] = []
    status = 1
    with unwinding(), showing() as (say, progress), StageView() as view:
        for event in stream_export(request, say=say, progress=progress):
            match event:
                case Difference():
                    differences.append(event)
                case Cause():
                    causes.append(event)
                case Done():
                    status = event.status
                case Failure():
                    raise revived(event)
                case _:
                    pass
            view.show(event)
    if as_json:
        write_json(_document(bundle, status, differences, causes))
    else:
        _write(bundle, differences, causes)
    raise typer.Exit(status)


def _document(
    bundle: Path, status: int, differences: list[Difference], causes: list[Cause]
) -> dict[str, Any]:
    import msgspec

    return {
        "bundle": bundle,
        "same": status == 0,
        "differences": [msgspec.structs.asdict(each) for each in differences],
        "causes": [msgspec.structs.asdict(each) for each in causes],
    }


def _write(bundle: Path, differences: list[Difference], causes: list[Cause]) -> None:
    if not differences:
        sys.stdout.write(f"{bundle}: made again, and every byte is the same\n")
        return
    write_table(
        ("member", "bytes then", "now", "first difference"),
        [
            (each.member, *map(_known, (each.bytes, each.bytes_now)), _where(each))
            for each in differences
        ],
        title=f"{bundle} does not come out the same:",
        right=("bytes then", "now"),
    )
    for cause in causes:
        sys.stdout.write(f"{cause.kind}: {cause.text}\n")


def _known(count: int) -> str | None:
    return f"{count:,}" if count else None


def _where(each: Difference) -> str:
    return ", ".join(each.fields) if each.first < 0 else f"byte {each.first:,}"
