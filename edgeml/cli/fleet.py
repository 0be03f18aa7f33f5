"""``edgeml fleet``: ask a running collector about its fleet, and hand it bundles."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from edgeml.cli import fleet_changes, fleet_feedback
from edgeml.cli.fleet_client import DEFAULT, Collector, Device, Site, answer, app, get, utc
from edgeml.cli.shared import Json, write_json, write_table
from edgeml.collector.web.words import evidence
from edgeml.errors import CollectorError

__all__ = ["app", "fleet_changes", "fleet_feedback"]

_ORDER = (
    *("status", "incidents", "alarms", "drift", "faults", "kept"),
    *("retract", "retractions", "rebaseline", "feedback", "accuracy", "add"),
)
"""In the help: what one looks at, then what one does."""


@app.command("status")
def status(collector: Collector = DEFAULT, as_json: Json = False) -> None:
    """List the devices: last contact, model, requests, alarms."""
    document = get(collector, "fleet")
    health = get(collector, "health")
    for part, found in (("broker", health["broker"]), ("database", health["store"])):
        if not found["ok"]:
            typer.echo(f"The collector is in trouble: {part}: {found['trouble']}.", err=True)
    if as_json:
        write_json(document)
        return
    write_table(
        ("site/device", "online", "last contact", "model", "artifact", "served", "other", "state"),
        [_device_row(device, document["now_ms"]) for device in document["devices"]],
        right=("served", "other"),
        empty="No device has reported yet.",
    )


@app.command("drift")
def drift(
    collector: Collector = DEFAULT, device: Device = "", site: Site = "", as_json: Json = False
) -> None:
    """List each statistic: effect and evidence.

    Effect sizes and χ² are against the training data, evidence is of a change since. Open alarms
    come first, then what is nearest to one.
    """
    document = get(collector, "drift", site=site, device=device)
    if as_json:
        write_json(document)
        return
    rows = [_stream_row(stream) for stream in sorted(document["streams"], key=_urgency)]
    figures = ("rows", "excess JS (bits)", "W1 (sd)", "χ² (dof)", "p", "evidence", "threshold")
    heads = ("site/device", "statistic", *figures, "state")
    write_table(heads, rows, right=figures, empty=f"No statistic{_of(site, device)} is known.")


@app.command("alarms")
def alarms(
    collector: Collector = DEFAULT,
    device: Device = "",
    site: Site = "",
    open_only: Annotated[bool, typer.Option("--open", help="Only those that are open.")] = False,
    as_json: Json = False,
) -> None:
    """List the alarms, the first one first."""
    document = get(collector, "alarms", site=site, device=device, open_only=open_only)
    if as_json:
        write_json(document)
        return
    write_table(
        ("site/device", "statistic", "raised (UTC)", "state", "effect (bits)", "evidence"),
        [
            (
                f"{alarm['site']}/{alarm['device']}",
                alarm["stream"],
                utc(alarm["opened_ms"]),
                "open" if alarm["open"] else f"closed {utc(alarm['closed_ms'])}",
                f"{alarm['effect']:.3f}",
                f"{evidence(alarm['evidence'])} of {evidence(alarm['threshold'])}",
            )
            for alarm in document["alarms"]
        ],
        right=("effect (bits)", "evidence"),
        empty=f"No {'open ' * open_only}alarm{_of(site, device)}.",
    )


@app.command("faults")
def faults(
    collector: Collector = DEFAULT, device: Device = "", site: Site = "", as_json: Json = False
) -> None:
    """List windows refused or not judged, and why.

    What came last comes first.
    """
    document = get(collector, "faults", site=site, device=device)
    if as_json:
        write_json(document)
        return
    write_table(
        ("site/device", "model", "windows", "what", "since (UTC)", "last (UTC)", "why"),
        [
            (
                f"{fault['site']}/{fault['device']}",
                f"{fault['model']} {fault['version']}",
                f"{fault['windows']:,}",
                fault["kind"],
                utc(fault["first_ms"]),
                utc(fault["last_ms"]),
                ": ".join(filter(None, (fault["stream"], fault["reason"]))),
            )
            for fault in document["faults"]
        ],
        right=("windows",),
        empty=f"No window{_of(site, device)} was refused, and all were judged.",
    )


@app.command("kept")
def kept(collector: Collector = DEFAULT, as_json: Json = False) -> None:
    """Say how long what is kept, and how large it is."""
    document = get(collector, "keep")
    if as_json:
        write_json(document)
        return
    rows = [
        (name, f"{days:g} days" if (days := document[f"{name}_days"]) else "for ever", utc(since))
        for name, since in document["oldest_ms"].items()
    ]
    write_table(("resolution", "kept", "since (UTC)"), rows)
    size, free = document["bytes"] / 1e6, document["free_bytes"] / 1e6
    if size:
        typer.echo(f"The database has {size:,.1f} MB, of which {free:,.1f} are free.")
    if document["held"]:
        typer.echo(
            "The collector's clock jumped, or it was away for over a day: nothing is merged or "
            "deleted until the clock has gone on for a day."
        )


@app.command("add")
def add(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="The bundle that devices run.")],
    collector: Collector = DEFAULT,
    as_json: Json = False,
) -> None:
    """Teach the collector a bundle's statistics."""
    try:
        with bundle.open("rb") as file:
            document = answer(collector, "POST", "bundles", content=file, timeout=300.0)
    except OSError as error:
        raise CollectorError(
            f"{bundle} cannot be read: {error.strerror}", expected="a file that edgeml export wrote"
        ) from error
    if as_json:
        write_json(document)
        return
    new = "is known now" if document["new"] else "was known already"
    typer.echo(
        f"{document['name']} {document['version']} ({document['sha256'][:12]}…) {new}: "
        f"{document['streams']} statistics."
    )


def _of(site: str, device: str) -> str:
    """What was asked for, so that a typo shows."""
    return "".join((f" of {device}" * bool(device), f" at {site}" * bool(site)))


def _device_row(device: dict[str, Any], now_ms: int) -> tuple[object, ...]:
    models = device["models"]
    outcomes = device["outcomes"]
    served = outcomes.get("served", 0)
    state = device["state"] + (f": {device['reason']}" if device["reason"] else "")
    return (
        f"{device['site']}/{device['device']}",
        "yes" if device["online"] else "no",
        _ago(device["last_seen_ms"], now_ms),
        ", ".join(f"{m['name']} {m['version']}" for m in models) or None,
        ", ".join(m["artifact"] for m in models if m["artifact"]) or None,
        f"{served:,}",
        f"{sum(outcomes.values()) - served:,}",
        state,
    )


def _urgency(stream: dict[str, Any]) -> tuple[bool, float]:
    """Sorts open alarms first, each half by evidence relative to the threshold."""
    threshold: float = stream["threshold"]
    return stream["phase"] != "alarm", -(stream["evidence"] / threshold if threshold else 0.0)


def _stream_row(stream: dict[str, Any]) -> tuple[object, ...]:
    last: dict[str, Any] = stream["last"] or {}

    def shown(name: str, form: str) -> str | None:
        value = last.get(name)
        return None if value is None else format(value, form)

    chi2 = f"{last['chi2']:.1f} ({last['dof']})" if last else None
    return (
        f"{stream['site']}/{stream['device']}",
        stream["stream"],
        shown("n", ",d"),
        shown("excess_js", ".3f"),
        shown("w1", ".2f"),
        chi2,
        shown("p", ".2g"),
        evidence(stream["evidence"]),
        evidence(stream["threshold"]),
        (stream["phase"] if stream["armed"] else f"not armed: {stream['reason']}")
        + (f"; {stream['unjudged']:,} not judged" if stream["unjudged"] else ""),
    )


def _ago(time_ms: int | None, now_ms: int) -> str:
    if time_ms is None:
        return "never"
    seconds = max(now_ms - time_ms, 0) / 1000
    for unit, size in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit} ago"
    return f"{seconds:.0f} s ago"


app.registered_commands.sort(key=lambda command: _ORDER.index(command.name or ""))
