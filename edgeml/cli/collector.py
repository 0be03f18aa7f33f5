"""``edgeml collector run``: gather the fleet's windows and test them for drift."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgeml.cli.shared import verb_app
from edgeml.errors import UsageError

app = verb_app(help="Gather the fleet's windows and test for drift.", no_args_is_help=True)


@app.callback()
def collector() -> None:
    """Gather the fleet's windows and test for drift."""


@app.command("run")
def run(
    config: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="A TOML file; options on the line override it."),
    ] = None,
    broker: Annotated[
        str | None,
        typer.Option(metavar="HOST:PORT", help="The MQTT broker. [default: 127.0.0.1:1883]"),
    ] = None,
    embedded_broker: Annotated[
        bool, typer.Option("--embedded-broker", help="Bring a small broker, for a try-out.")
    ] = False,
    database: Annotated[
        str | None,
        typer.Option(
            metavar="PATH|URL", help="SQLite file or URL. [default: edgeml-collector.sqlite]"
        ),
    ] = None,
    http: Annotated[
        str | None,
        typer.Option(metavar="HOST:PORT", help="Page and API. [default: 127.0.0.1:8470]"),
    ] = None,
    token_file: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="Holds the token that callers must show; needed beyond loopback. "
            "[default: what EDGEML_COLLECTOR_TOKEN holds]",
        ),
    ] = None,
    allowed_host: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="A reverse proxy's host name; may be repeated."),
    ] = None,
    bundle: Annotated[
        list[Path] | None,
        typer.Option(metavar="FILE", help="Learn this bundle's statistics; may be repeated."),
    ] = None,
    false_alarms: Annotated[
        float | None,
        typer.Option(
            metavar="COUNT", help="False alarms expected of the whole fleet, at most. [default: 1]"
        ),
    ] = None,
    per_days: Annotated[
        float | None, typer.Option(metavar="DAYS", help="… in so many days. [default: 365]")
    ] = None,
    per_windows: Annotated[
        int | None, typer.Option(metavar="COUNT", help="… or in so many windows of each stream.")
    ] = None,
    reference_windows: Annotated[
        int | None,
        typer.Option(metavar="COUNT", help="Windows before a stream is armed. [default: 48]"),
    ] = None,
    season: Annotated[
        str | None,
        typer.Option(
            metavar="SEASON",
            help="The longest season of your world: none, day or week. No stream is armed before "
            "its history shows it (three days, two weeks). [default: week]",
        ),
    ] = None,
    min_rows: Annotated[
        int | None,
        typer.Option(
            metavar="COUNT", help="Rows that are tested together, at least. [default: 30]"
        ),
    ] = None,
    min_effect: Annotated[
        float | None,
        typer.Option(
            metavar="BITS", help="Smallest JS divergence worth an alarm, in bits. [default: 0.05]"
        ),
    ] = None,
) -> None:
    """Run the collector until SIGTERM or Ctrl-C.

    Says "ready page=URL broker=HOST:PORT" on standard error when it serves.
    """
    from edgeml.collector.config import CollectorConfig, load_config, override

    given: dict[str, object] = {
        "database": database,
        "embedded_broker": embedded_broker or None,
        "http.token_file": token_file,
        "http.allowed_hosts": allowed_host or None,
        "bundles": [str(path) for path in bundle] if bundle else None,
        "alarms.false_alarms": false_alarms,
        "alarms.per_days": per_days,
        "alarms.per_windows": per_windows,
        "alarms.reference_windows": reference_windows,
        "alarms.season": season,
        "alarms.min_rows": min_rows,
        "alarms.min_effect": min_effect,
    }
    if broker is not None:
        given["broker.host"], given["broker.port"] = _address(broker, "--broker", 1883)
    elif embedded_broker and config is None:
        given["broker.port"] = 0
    if http is not None:
        given["http.host"], given["http.port"] = _address(http, "--http", 8470)
    base = load_config(config) if config else CollectorConfig()
    chosen = override(base, {k: v for k, v in given.items() if v is not None})

    from edgeml.collector.service import run_collector  # a second; a mistake is named before it

    run_collector(chosen)


def _address(text: str, option: str, port: int) -> tuple[str, int]:
    """``HOST``, ``HOST:PORT`` or ``[IPV6]:PORT`` taken apart."""
    host, colon, number = text.rpartition(":")
    if not colon or text.endswith("]"):
        host, number = text, str(port)
    if not host or not number.isdecimal() or int(number) > 65535:
        raise UsageError(f"{option} {text}", expected="HOST:PORT, such as 127.0.0.1:1883")
    return host.strip("[]"), int(number)
