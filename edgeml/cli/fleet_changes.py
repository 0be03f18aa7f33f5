"""``edgeml fleet``: incidents and the budget, and what changes the store: retract, rebaseline."""

from __future__ import annotations

import getpass
import re
from typing import Annotated, Any

import typer

from edgeml.cli.fleet_client import DEFAULT, Collector, Device, Site, answer, app, get, utc
from edgeml.cli.shared import Json, write_json, write_table
from edgeml.errors import UsageError

_FORMS = ("%Y-%m-%dT%H:%M:%S", "%Y-%m-%d %H:%M:%S", "%Y-%m-%dT%H:%M", "%Y-%m-%d %H:%M", "%Y-%m-%d")


@app.command("incidents")
def incidents(
    collector: Collector = DEFAULT,
    open_only: Annotated[bool, typer.Option("--open", help="Only those that are open.")] = False,
    as_json: Json = False,
) -> None:
    """Say what changed and who is to blame.

    That is a device, a site, a model version, or the world.
    """
    document = get(collector, "incidents", open_only=open_only)
    budget = get(collector, "budget")
    if as_json:
        write_json({**document, "budget": budget})
        return
    for incident in document["incidents"]:
        state = "open  " if incident["open"] else "closed"
        typer.echo(f"{state}  {incident['sentence']}")
    if not document["incidents"]:
        typer.echo("No incidents.")
    typer.echo(
        f"Budget: {budget['promise']}; {budget['alarms']} alarms raised, at most "
        f"{budget['expected']:.2g} false ones expected so far."
    )


@app.command("retract")
def retract(
    collector: Collector = DEFAULT,
    device: Device = "",
    site: Site = "",
    model: Annotated[str, typer.Option(metavar="NAME", help="Only this model.")] = "",
    version: Annotated[
        str, typer.Option(metavar="VERSION", help="Only this version of the model.")
    ] = "",
    agent: Annotated[
        str, typer.Option(metavar="VERSION", help="Only what this version of the agent sent.")
    ] = "",
    start: Annotated[
        str, typer.Option("--from", metavar="TIME", help="UTC, as 2026-03-12T14:05; inclusive.")
    ] = "",
    end: Annotated[str, typer.Option("--to", metavar="TIME", help="Likewise; exclusive.")] = "",
    why: Annotated[str, typer.Option(metavar="TEXT", help="For whoever reads it later.")] = "",
    undo: Annotated[
        int, typer.Option("--undo", metavar="ID", help="Put back what this one took out.")
    ] = 0,
    as_json: Json = False,
) -> None:
    """Take windows out of rollups and evidence.

    Counts subtract exactly. The windows are kept, and can be put back.
    """
    wanted: dict[str, Any] = {
        "device": device,
        "site": site,
        "model": model,
        "version": version,
        "agent": agent,
        "from_ms": unix_ms(start) if start else None,
        "to_ms": unix_ms(end) if end else None,
    }
    if undo:
        if any(wanted.values()):
            raise UsageError("--undo beside what is to be retracted", expected="--undo ID alone")
        document = _send(collector, "DELETE", f"retractions/{undo}")
    else:
        document = _send(collector, "POST", "retractions", json={**wanted, "why": why})
    if as_json:
        write_json(document)
        return
    done = "put back" if undo else "retracted"
    windows, devices = document["windows"], document["devices"]
    tail = "" if undo else f" `edgeml fleet retract --undo {document['id']}` puts them back."
    typer.echo(
        f"{windows:,} window{'s' * (windows != 1)} of {devices:,} device{'s' * (devices != 1)} "
        f"({document['rows']:,} rows) {done}.{tail}"
    )
    if document["resolution_ms"]:
        typer.echo(
            "Some were merged when they grew old, and are taken by whole hours or days; of those "
            f"that reach across --from or --to {document['across']:,} were left as they are."
        )


@app.command("retractions")
def retractions(collector: Collector = DEFAULT, as_json: Json = False) -> None:
    """List what was retracted, by whom and why.

    The last one comes first.
    """
    document = get(collector, "retractions")
    if as_json:
        write_json(document)
        return
    write_table(
        ("id", "when (UTC)", "by", "what", "windows", "why", "state"),
        [
            (
                r["id"],
                utc(r["at_ms"]),
                r["by"],
                _selected(r["selection"]),
                f"{r['windows']:,}",
                r["why"] or None,
                f"undone {utc(r['undone_ms'])} by {r['undone_by']}" if r["undone_ms"] else "stands",
            )
            for r in document["retractions"]
        ],
        right=("id", "windows"),
        empty="Nothing was retracted.",
    )


@app.command("rebaseline")
def rebaseline(
    collector: Collector = DEFAULT,
    device: Device = "",
    site: Site = "",
    everything: Annotated[bool, typer.Option("--all", help="All streams there are.")] = False,
    stream: Annotated[str, typer.Option(metavar="NAME", help="Only this statistic.")] = "",
    as_json: Json = False,
) -> None:
    """Have reference and evidence start anew.

    For a change that is wanted. Open alarms close at once as "re-baselined".
    """
    wanted = {"device": device, "site": site, "all": everything, "stream": stream}
    document = _send(collector, "POST", "rebaseline", json=wanted)
    if as_json:
        write_json(document)
        return
    typer.echo(f"{document['streams']:,} streams start anew, {document['closed']:,} alarms closed.")


def unix_ms(text: str) -> int:
    """A moment as the command line has it.

    Raises:
        UsageError: it is none.
    """
    from datetime import datetime, timezone

    if re.fullmatch(r"\d{9,}", text):
        return int(text)
    for form in _FORMS:
        try:
            moment = datetime.strptime(text.removesuffix("Z"), form)
        except ValueError:
            continue
        return round(moment.replace(tzinfo=timezone.utc).timestamp() * 1000)
    raise UsageError(
        f"the time {text!r}", expected="UTC, as 2026-03-12T14:05:09, or Unix milliseconds"
    )


def _send(collector: str, method: str, path: str, **settings: Any) -> dict[str, Any]:
    # Evidence is rebuilt in it: a large fleet's takes its time.
    headers = {"X-Edgeml-User": getpass.getuser()}
    return answer(collector, method, path, headers=headers, timeout=600.0, **settings)


def _selected(selection: dict[str, Any]) -> str:
    times = {"from_ms": "from", "to_ms": "to"}
    return ", ".join(
        f"{times[name]} {utc(value)}" if name in times else f"{name} {value}"
        for name, value in selection.items()
        if value
    )
