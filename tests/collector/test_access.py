"""Who may call the collector: tested against the real server process."""

from __future__ import annotations

import functools
import time
from pathlib import Path

import httpx
import pytest
from support.collectors import TOKEN, CollectorProcess, Start, fleet, token_file
from support.devices import Source
from support.fleets import FleetStore
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from edgeml.collector.access import session
from edgeml.collector.access.login import own_path
from edgeml.collector.access.token import find_token
from edgeml.errors import UsageError

REACHED = 422
"""The store's own answer: an empty one has nothing that could start anew."""
get = functools.partial(httpx.get, timeout=60.0)
post = functools.partial(httpx.post, timeout=60.0)
"""With the patience that a busy machine takes."""

SOCKET = "/_nicegui_ws/socket.io/?EIO=4&transport=websocket"


@pytest.fixture
def guarded(start: Start, tmp_path: Path) -> CollectorProcess:
    """A collector that wants a token."""
    return start("--embedded-broker", "--token-file", str(token_file(tmp_path))).wait_ready()


def rebaseline(collector: CollectorProcess, **headers: str) -> httpx.Response:
    """Something that changes the store."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    url = f"{collector.page}/api/v1/rebaseline"
    return post(url, json={"all": True}, headers=named)


def opens(collector: CollectorProcess, **headers: str) -> int:
    """The status that a handshake of a web socket gets; 101 where it is taken."""
    url = collector.page.replace("http:", "ws:") + SOCKET
    try:
        with connect(url, additional_headers=headers, proxy=None):
            return 101
    except InvalidStatus as refused:
        return refused.response.status_code


def test_web_pages_of_others_change_and_read_nothing_on_loopback(start: Start) -> None:
    collector = start("--embedded-broker").wait_ready()
    own = collector.page
    port = own.rsplit(":", 1)[1]
    assert rebaseline(collector).status_code == REACHED  # a program
    assert rebaseline(collector, Origin=own).status_code == REACHED
    assert rebaseline(collector, Origin=own, Sec_Fetch_Site="same-origin").status_code == REACHED
    for headers in (
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:1"},  # another service of this machine
        {"Origin": own, "Sec_Fetch_Site": "cross-site"},
        {"Sec_Fetch_Site": "same-site"},
    ):
        answer = rebaseline(collector, **headers)
        assert answer.status_code == 403, headers
        assert "web page of" in answer.json()["error"]["found"]
    # DNS rebinding: the page's own name points here, so it is of one origin with what it asks.
    name = f"evil.example:{port}"
    rebound = rebaseline(collector, Host=name, Origin=f"http://{name}")
    assert rebound.status_code == 403
    assert f"for the host '{name}'" in rebound.json()["error"]["found"]
    assert "http.allowed_hosts" in rebound.json()["error"]["remedy"]
    assert get(f"{own}/api/v1/fleet", headers={"Host": name}).status_code == 403
    assert get(own, headers={"Host": f"localhost:{port}"}).status_code == 200
    # A script of another site reads nothing; who follows its link sees the page.
    foreign = {"Origin": "http://evil.example", "Sec-Fetch-Site": "cross-site"}
    assert get(f"{own}/api/v1/fleet", headers=foreign).status_code == 403
    assert get(own, headers={"Sec-Fetch-Site": "cross-site"}).status_code == 200
    assert opens(collector, Origin=own) == 101
    assert opens(collector, Origin="http://evil.example") == 403


def test_a_proxys_name_is_called_and_its_pages_are_ours(start: Start) -> None:
    collector = start("--embedded-broker", "--allowed-host", "Fleet.example.org").wait_ready()
    behind = {"Host": "fleet.example.org", "Origin": "https://fleet.example.org"}
    assert rebaseline(collector, **behind).status_code == REACHED
    # A proxy that calls us by our address, as nginx does by default.
    assert rebaseline(collector, Origin=behind["Origin"]).status_code == REACHED
    assert opens(collector, Origin=behind["Origin"]) == 101
    assert rebaseline(collector, Host="other.example.org").status_code == 403


def test_who_the_proxy_found_stands_with_what_was_changed(
    start: Start, bundle: Path, tmp_path: Path
) -> None:
    store = FleetStore(tmp_path / "fleet.sqlite", bundle)
    store.send(("hall/cam", Source(bundle, seed=1).window()))
    store.engine.dispose()
    config = tmp_path / "collector.toml"
    config.write_text('[http]\nuser_header = "X-Forwarded-User"\n')
    collector = start("--embedded-broker", "--config", str(config)).wait_ready()
    said = {"X-Forwarded-User": "ada", "X-Edgeml-User": "somebody"}
    url = f"{collector.page}/api/v1/retractions"
    assert post(url, json={"device": "cam"}, headers=said).status_code == 201
    assert [row["by"] for row in collector.get("retractions")["retractions"]] == ["ada"]


def test_beyond_loopback_a_token_is_needed(start: Start, tmp_path: Path) -> None:
    open_to_all = start("--embedded-broker", "--http", "0.0.0.0:0")
    open_to_all.wait_for(r"served on 0\.0\.0\.0 without a token.*openssl rand -hex 32")
    assert open_to_all.wait() == 2
    path = token_file(tmp_path)
    collector = start("--embedded-broker", "--http", "0.0.0.0:0", "--token-file", str(path))
    page = collector.wait_ready().page.replace("0.0.0.0", "127.0.0.1")
    assert get(f"{page}/api/v1/fleet").status_code == 401


@pytest.mark.parametrize(
    ("text", "mode", "found"),
    [
        (TOKEN, 0o640, "others can read the token file .*mode 640.*chmod 600"),
        ("short", 0o600, "holds 5 characters.*at least 16"),
        ("", 0o600, "holds 0 characters"),
        ("two words that are long", 0o600, "not all of them plain"),
        ("schlüssel-schlüssel", 0o600, "no ASCII text"),
    ],
)
def test_a_bad_token_file_is_refused_by_name(
    tmp_path: Path, text: str, mode: int, found: str
) -> None:
    path = token_file(tmp_path, text)
    path.chmod(mode)
    with pytest.raises(UsageError, match=found):
        find_token(str(path))


def test_programs_show_the_token(
    guarded: CollectorProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    at = ("--collector", guarded.page)
    refused = fleet("status", *at)
    assert refused.returncode == 1
    for part in ("no valid token", "EDGEML_COLLECTOR_TOKEN_FILE"):
        assert part in refused.stderr
    monkeypatch.setenv("EDGEML_COLLECTOR_TOKEN", TOKEN)
    assert fleet("status", *at).returncode == 0
    monkeypatch.setenv("EDGEML_COLLECTOR_TOKEN", TOKEN[:-1] + "x")
    assert "no valid token" in fleet("status", *at).stderr
    monkeypatch.setenv("EDGEML_COLLECTOR_TOKEN_FILE", str(tmp_path / "token"))
    assert fleet("status", *at).returncode == 0
    (tmp_path / "token").chmod(0o644)
    assert "others can read" in fleet("status", *at).stderr
    # Nothing is to be had without it, by no path and no method.
    for path in ("/", "/api/v1/health", "/openapi.json", "/device/a/b", "/_nicegui/static/x.js"):
        answer = get(guarded.page + path)
        assert (answer.status_code, answer.headers["WWW-Authenticate"]) == (401, "Bearer"), path
    assert opens(guarded) == 403
    assert opens(guarded, Authorization=f"Bearer {TOKEN}") == 101


def test_a_session_ends_and_cannot_be_made_up() -> None:
    now = time.time()
    cookie = session.issue(TOKEN, now_s=now)
    assert session.is_valid(TOKEN, cookie, now_s=now + session.SESSION_S - 2)
    assert not session.is_valid(TOKEN, cookie, now_s=now + session.SESSION_S + 2)
    assert not session.is_valid(TOKEN + "x", cookie, now_s=now)  # a new token ends it
    expiry, _, signature = cookie.partition(".")
    for forged in ("", ".", f"{int(expiry) + 9}.{signature}", f"{expiry}.", f"nan.{signature}"):
        assert not session.is_valid(TOKEN, forged, now_s=now)


@pytest.mark.parametrize(
    ("given", "gone_to"),
    [
        ("/device/hall/cam?a=1", "/device/hall/cam?a=1"),
        ("//evil.example", "/"),
        ("/\\evil.example", "/"),
        ("/\t/evil.example", "/"),
        ("https://evil.example", "/"),
        ("/login?next=/login", "/"),
    ],
)
def test_the_login_leads_to_our_own_pages_only(given: str, gone_to: str) -> None:
    assert own_path(given) == gone_to
