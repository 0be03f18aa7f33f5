"""``edgeml agent``: run the device agent, from a configuration file or from flags for a try-out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgeml.cli.shared import Json, verb_app, write_json

if TYPE_CHECKING:
    from edgeml.device_agent.config import Config
    from edgeml.device_agent.local.client import Client

app = verb_app(help="Serve a bundle on this device and report on it.", no_args_is_help=True)


@app.callback()
def agent() -> None:
    """Serve a bundle on this device and report on it."""


@app.command("run")
def run(
    config: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Configuration (TOML); the flags stand above it."),
    ] = None,
    bundle: Annotated[
        list[Path] | None, typer.Option(metavar="FILE", help="A bundle to serve; may be repeated.")
    ] = None,
    target: Annotated[
        str, typer.Option(metavar="NAME", help="Artifact or target to run, instead of the best.")
    ] = "",
    broker: Annotated[str, typer.Option(metavar="HOST:PORT", help="MQTT broker, HOST:PORT.")] = "",
    site: Annotated[str, typer.Option(metavar="NAME", help="Site that the device is at.")] = "",
    device: Annotated[str, typer.Option(metavar="NAME", help="Name of the device.")] = "",
    http: Annotated[
        str | None,
        typer.Option(
            metavar="HOST:PORT", help='Address of the local call, HOST:PORT; "" for none.'
        ),
    ] = None,
    socket: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Unix socket of the local call.")
    ] = None,
    state: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Folder for outbox, artifacts, logs.")
    ] = None,
    window: Annotated[
        float | None,
        typer.Option(metavar="SECONDS", help="Seconds of a statistics window.", min=0.05),
    ] = None,
    deadline: Annotated[
        float | None,
        typer.Option(metavar="MS", help="Milliseconds from a request to its answer.", min=0.01),
    ] = None,
    memory: Annotated[
        float | None,
        typer.Option(metavar="MB", help="MB that the model's process may take.", min=1),
    ] = None,
    statistics_share: Annotated[
        float | None,
        typer.Option(
            metavar="SHARE", help="Of one core's time that statistics may take, 0 to 1.", max=1
        ),
    ] = None,
    topic: Annotated[
        list[str] | None,
        typer.Option(metavar="TOPIC", help="MQTT topic to take frames from; may be repeated."),
    ] = None,
    folder: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FOLDER", help="Folder to take .npy and .npz files from; may be repeated."
        ),
    ] = None,
    log_json: Annotated[bool, typer.Option("--log-json", help="Log as JSON lines.")] = False,
) -> None:
    """Run the device agent until SIGTERM or Ctrl-C.

    It checks and proves the bundle, serves it over HTTP, MQTT or from a folder, within its deadline
    and memory, and sends statistics of what went through to the collector.
    """
    from edgeml.device_agent.config import Config
    from edgeml.device_agent.config_file import read_config
    from edgeml.device_agent.launch import become_agent

    complete = _with_flags(
        read_config(config) if config else Config(),
        top={
            "site": site or None,
            "device": device or None,
            "http": http,
            "socket": socket,
            "state": state,
        },
        bundles=tuple(bundle or ()),
        model={
            "target": target or None,
            "window_s": window,
            "deadline_ms": deadline,
            "memory_mb": memory,
            "statistics_share": statistics_share,
        },
        broker=broker,
        topics=tuple(topic or ()),
        folders=tuple(folder or ()),
    )
    become_agent(complete, log_json=log_json)


@app.command("install")
def install(
    config: Annotated[
        Path, typer.Option(metavar="FILE", help="Configuration of the agent (TOML).")
    ],
    user: Annotated[
        str, typer.Option(metavar="NAME", help="User to run as; root by default.")
    ] = "",
    unit: Annotated[
        Path | None, typer.Option(metavar="FILE", help="File to write, instead of the system's.")
    ] = None,
    show: Annotated[bool, typer.Option("--show", help="Print the unit and write nothing.")] = False,
) -> None:
    """Write the systemd unit that runs the agent on this device."""
    from edgeml.cli.agent_install import install as write

    write(config, user=user, unit=unit, show=show)


_Socket = Annotated[
    str,
    typer.Option(
        "--socket", metavar="FILE", help="The agent's Unix socket; this device's own by default."
    ),
]
_Url = Annotated[
    str, typer.Option("--url", metavar="URL", help="The agent's HTTP address, instead.")
]
_TokenFile = Annotated[
    Path | None,
    typer.Option("--token-file", metavar="FILE", help="Holds the token that it wants over HTTP."),
]


@app.command("deploy")
def deploy(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="The bundle, on this device.")],
    model: Annotated[
        str, typer.Option(metavar="NAME", help="Its name, where the bundle has another.")
    ] = "",
    shadow: Annotated[
        bool, typer.Option("--shadow", help="Beside what serves, on copies of idle time.")
    ] = False,
    split: Annotated[
        float,
        typer.Option(
            metavar="SHARE",
            help="Beside what serves, for this share of the requests.",
            min=0,
            max=1,
        ),
    ] = 0.0,
    socket: _Socket = "",
    url: _Url = "",
    token_file: _TokenFile = None,
    as_json: Json = False,
) -> None:
    """Have a running agent serve another version, once proved; no request is dropped."""
    from edgeml.cli import agent_versions

    with _client(socket, url, token_file, timeout_s=agent_versions.PATIENCE_S) as client:
        change = agent_versions.deploy(client, bundle, model=model, shadow=shadow, split=split)
    agent_versions.show(change, as_json=as_json)


@app.command("rollback")
def rollback(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="Name of the model.")],
    socket: _Socket = "",
    url: _Url = "",
    token_file: _TokenFile = None,
    as_json: Json = False,
) -> None:
    """Have a running agent serve the version before again."""
    from edgeml.cli import agent_versions

    with _client(socket, url, token_file, timeout_s=agent_versions.PATIENCE_S) as client:
        change = agent_versions.rollback(client, model)
    agent_versions.show(change, as_json=as_json)


@app.command("dismiss")
def dismiss(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="Name of the model.")],
    socket: _Socket = "",
    url: _Url = "",
    token_file: _TokenFile = None,
) -> None:
    """End a shadow or a split of a running agent."""
    from edgeml.cli import agent_versions

    with _client(socket, url, token_file, timeout_s=agent_versions.PATIENCE_S) as client:
        agent_versions.dismiss(client, model)
    typer.echo(f"Nothing is beside what serves {model}.")


@app.command("status")
def status(
    socket: _Socket = "",
    url: _Url = "",
    token_file: _TokenFile = None,
    once: Annotated[bool, typer.Option("--once", help="Show it once, not live.")] = False,
    every: Annotated[
        float, typer.Option(metavar="SECONDS", help="Seconds between two looks.", min=0.1)
    ] = 1.0,
    as_json: Json = False,
) -> None:
    """Show what an agent does: live on a terminal, until Ctrl-C; once elsewhere."""
    import sys

    from edgeml.cli.agent_status import show, show_live
    from edgeml.decoding import from_plain
    from edgeml.device_agent.local.status import AgentStatus

    with _client(socket, url, token_file) as client:

        def fetch() -> AgentStatus:
            return from_plain(client.get("/edgeml/v1/status"), AgentStatus)

        if as_json:
            write_json(fetch())
        elif once or not sys.stdout.isatty():
            show(fetch())
        else:
            show_live(fetch, every_s=every)


def _client(socket: str, url: str, token_file: Path | None, *, timeout_s: float = 30.0) -> Client:
    from edgeml.device_agent.local.client import Client
    from edgeml.device_agent.local.token import read_token
    from edgeml.errors import UsageError

    if socket and url:
        raise UsageError("Both --socket and --url were given", expected="one of them")
    return Client(url or socket, token=read_token(token_file), timeout_s=timeout_s)


def _with_flags(
    config: Config,
    *,
    top: dict[str, object],
    bundles: tuple[Path, ...],
    model: dict[str, object],
    broker: str,
    topics: tuple[str, ...],
    folders: tuple[Path, ...],
) -> Config:
    """The configuration with what the flags say in its place; checked like a file."""
    import msgspec

    from edgeml.device_agent.config import split_address
    from edgeml.device_agent.config_file import parse_config

    document: dict[str, object] = msgspec.to_builtins(config, enc_hook=str)
    document |= {key: str(value) for key, value in top.items() if value is not None}
    if bundles:
        document["model"] = [{"bundle": str(path)} for path in bundles]
    models: list[dict[str, object]] = document["model"]  # type: ignore[assignment]
    for entry in models:
        entry |= {key: value for key, value in model.items() if value is not None}
        if topics:
            entry["mqtt"] = [{"topic": topic} for topic in topics]
        if folders:
            entry["folder"] = [{"path": str(path)} for path in folders]
    if broker:
        host, port = split_address(broker, what="broker's", default_port=1883)
        present: dict[str, object] = document["broker"] or {}  # type: ignore[assignment]
        document["broker"] = {**present, "host": host, "port": port}
    return parse_config(document, "the flags")
