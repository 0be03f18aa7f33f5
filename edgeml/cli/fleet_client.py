"""What the commands of ``edgeml fleet`` share: the app, its options, and talking to a collector."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgeml.cli.shared import verb_app
from edgeml.decoding import from_json, from_plain
from edgeml.errors import CollectorError

if TYPE_CHECKING:
    import httpx

app = verb_app(
    help="Ask a collector about its fleet. Where it wants a token, put that into "
    "EDGEML_COLLECTOR_TOKEN, or the name of a file that only you can read into "
    "EDGEML_COLLECTOR_TOKEN_FILE.",
    no_args_is_help=True,
)

DEFAULT = "http://127.0.0.1:8470"

Collector = Annotated[
    str,
    typer.Option(
        "--collector", envvar="EDGEML_COLLECTOR", metavar="URL", help="Where the collector serves."
    ),
]
Device = Annotated[str, typer.Option(metavar="NAME", help="Only this device.")]
Site = Annotated[str, typer.Option(metavar="NAME", help="Only this site.")]


def get(collector: str, path: str, **parameters: Any) -> dict[str, Any]:
    """What ``GET /api/v1/PATH`` answers; parameters that are empty are left out."""
    given = {name: value for name, value in parameters.items() if value}
    return answer(collector, "GET", path, params=given, timeout=30.0)


def answer(collector: str, method: str, path: str, **settings: Any) -> dict[str, Any]:
    """What a collector answers.

    Raises:
        CollectorError: none is there, it is none, or it refuses.
        UsageError: the token of the environment cannot be used.
    """
    import ssl

    import httpx

    from edgeml.collector.access.token import find_token

    token = find_token()
    shown = {"Authorization": f"Bearer {token}"} if token else {}
    if "://" not in collector:  # HOST:PORT, as other options take it
        collector = f"http://{collector}"
    url = f"{collector.rstrip('/')}/api/v1/{path}"
    try:
        # A proxy is for the internet; the collector stands in the house.
        # OpenSSL's defaults: the machine's own authorities, or those that SSL_CERT_FILE names.
        trusted = ssl.create_default_context()
        with httpx.Client(trust_env=False, verify=trusted, headers=shown) as client:
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
        document = from_json(response.content, dict[str, Any])
    except msgspec.DecodeError:
        document = {}
    # A collector in trouble answers 503 with its whole state: that is an answer too.
    if document and "error" not in document and (response.is_success or "ok" in document):
        return document
    if not response.is_success and "error" in document:
        error = from_plain(document["error"], dict[str, str])
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


def utc(time_ms: int) -> str:
    """``2026-03-12 14:05:09``."""
    from datetime import datetime, timezone

    return datetime.fromtimestamp(time_ms / 1000, timezone.utc).strftime("%Y-%m-%d %H:%M:%S")
