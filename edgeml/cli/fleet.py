"""``edgeml fleet``: ask a running collector about its fleet, and hand it bundles."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgeml.cli.shared import Json, verb_app, write_json, write_table
from edgeml.collector.web.words import evidence
from edgeml.errors import CollectorError

if TYPE_CHECKING:
    import httpx

app = verb_app(help="Ask a collector about its fleet.", no_args_is_help=True)

DEFAULT = "http://127.0.0.1:8470"

Collector = Annotated[
    str,
    typer.Option(
        "--collector", envvar="EDGEML_COLLECTOR", metavar="URL", help="Where the collector serves."
    ),
]
Device = Annotated[str, typer.Option(help="Only this device.")]
Site = Annotated[str, typer.Option(help="Only this site.")]


@app.command("status")
def status(collector: Collector = DEFAULT, as_json: Json = False) -> None:
    """List the devices: last contact, model, requests, alarms."""
    document = _get(collector, "fleet")
    if as_json:
        write_json(document)
        return
    write_table(
        ("site/device", "online", "last contact", "model", "artifact", "served", "other", "state"),
        [_device_row(device, document["now_ms"]) for device in document["devices"]],
        right=("served", "other"),
    )


@app.command("drift")
def drift(
    collector: Collector = DEFAULT, device: Device = "", site: Site = "", as_json: Json = False
) -> None:
    """List each statistic: effect sizes against the training data, χ², and evidence of a change.

    Open alarms come first, then what is nearest to one.
    """
    document = _get(collector, "drift", site=site, device=device)
    if as_json:
        write_json(document)
        return
    rows = [_stream_row(stream) for stream in sorted(document["streams"], key=_urgency)]
    figures = ("rows", "excess JS (bits)", "W1 (sd)", "χ² (dof)", "p", "evidence", "threshold")
    write_table(("site/device", "statistic", *figures, "state"), rows, right=figures)


@app.command("alarms")
def alarms(
    collector: Collector = DEFAULT,
    device: Device = "",
    site: Site = "",
    open_only: Annotated[bool, typer.Option("--open", help="Only those that are open.")] = False,
    as_json: Json = False,
) -> None:
    """List the alarms, the first one first."""
    document = _get(collector, "alarms", site=site, device=device, open_only=open_only)
    if as_json:
        write_json(document)
        return
    write_table(
        ("site/device", "statistic", "raised (UTC)", "state", "effect (bits)", "evidence"),
        [
            (
                f"{alarm['site']}/{alarm['device']}",
                alarm["stream"],
                _utc(alarm["opened_ms"]),
                "open" if alarm["open"] else f"closed {_utc(alarm['closed_ms'])}",
                f"{alarm['effect']:.3f}",
                f"{evidence(alarm['evidence'])} of {evidence(alarm['threshold'])}",
            )
            for alarm in document["alarms"]
        ],
        right=("effect (bits)", "evidence"),
    )


@app.command("add")
def add(
    bundle: Annotated[Path, typer.Argument(help="The bundle that devices run.")],
    collector: Collector = DEFAULT,
    as_json: Json = False,
) -> None:
    """Teach the collector a bundle's statistics."""
    try:
        with bundle.open("rb") as file:
            document = _answer(collector, "POST", "bundles", content=file, timeout=300.0)
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


def _get(collector: str, path: str, **parameters: Any) -> dict[str, Any]:
    given = {name: value for name, value in parameters.items() if value}
    return _answer(collector, "GET", path, params=given, timeout=30.0)


def _answer(collector: str, method: str, path: str, **settings: Any) -> dict[str, Any]:
    import httpx

    url = f"{collector.rstrip('/')}/api/v1/{path}"
    try:
        # A proxy is for the internet; the collector stands in the house.
        with httpx.Client(trust_env=False) as client:
            response = client.request(method, url, **settings)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise CollectorError(
            f"no collector answers at {collector}: {error}",
            expected="the address that `edgeml collector run` says when it is ready",
            remedy="Name it with --collector URL, or start one.",
        ) from error
    return _document(response, url)


def _document(response: httpx.Response, url: str) -> dict[str, Any]:
    import msgspec

    try:
        document = msgspec.json.decode(response.content, type=dict[str, Any])
    except msgspec.DecodeError:
        document = {}
    # A collector in trouble answers 503 with its whole state: that is an answer too.
    if document and "error" not in document and (response.is_success or "ok" in document):
        return document
    if not response.is_success and "error" in document:
        error = msgspec.convert(document["error"], dict[str, str])
        raise CollectorError(
            error.get("found", "the collector refused"),
            expected=error.get("expected", ""),
            remedy=error.get("remedy", ""),
        )
    raise CollectorError(
        f"{url} answered with status {response.status_code}",
        expected="an edgeml collector",
        remedy="Check --collector, and the collector's own log.",
    )


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
        stream["phase"] if stream["armed"] else f"not armed: {stream['reason']}",
    )


def _ago(time_ms: int | None, now_ms: int) -> str:
    if time_ms is None:
        return "never"
    seconds = max(now_ms - time_ms, 0) / 1000
    for unit, size in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit} ago"
    return f"{seconds:.0f} s ago"


def _utc(time_ms: int) -> str:
    from datetime import datetime, timezone

    return datetime.fromtimestamp(time_ms / 1000, timezone.utc).strftime("%Y-%m-%d %H:%M:%S")
