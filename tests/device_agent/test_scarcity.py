"""A machine that has run out of descriptors or threads for a while: HTTP comes back.

The socket is in test_client_socket, workers in test_worker.
"""

from __future__ import annotations

import errno
import http.client
import threading
from socketserver import TCPServer
from unittest.mock import Mock
from urllib.parse import urlsplit

import pytest
from support.agents import PATIENCE_S

from edgeml.device_agent.config import MAX_CALLERS
from edgeml.device_agent.local.local_api import LocalApi
from edgeml.device_agent.local.routes import Reply


def live(url: str, timeout_s: float = PATIENCE_S) -> int:
    """The status of an answer, over a connection of its own."""
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=timeout_s)
    try:
        connection.request("GET", "/v2/health/live")
        return connection.getresponse().status
    finally:
        connection.close()


def test_without_descriptors_http_waits_and_does_not_spin(monkeypatch: pytest.MonkeyPatch):
    routes = Mock()
    routes.answer.return_value = Reply(200, b"{}")
    api = LocalApi("127.0.0.1", 0, routes)
    api.start()
    takes = TCPServer.get_request
    nothing_left = Mock(side_effect=OSError(errno.EMFILE, "Too many open files"))
    monkeypatch.setattr(TCPServer, "get_request", nothing_left)
    with pytest.raises(TimeoutError):  # it is in the queue of the listener
        live(api.url, 1.0)
    monkeypatch.setattr(TCPServer, "get_request", takes)
    assert nothing_left.call_count < 20
    assert live(api.url) == 200
    api.stop()


def test_without_threads_http_loses_no_place_for_a_caller(monkeypatch: pytest.MonkeyPatch):
    routes = Mock()
    routes.answer.return_value = Reply(200, b"{}")
    api = LocalApi("127.0.0.1", 0, routes)
    api.start()
    start = threading.Thread.start
    monkeypatch.setattr(threading.Thread, "start", Mock(side_effect=RuntimeError("no thread")))
    for _ in range(MAX_CALLERS + 1):
        with pytest.raises(OSError, match=r"reset|closed|without response"):
            live(api.url)
    monkeypatch.setattr(threading.Thread, "start", start)
    assert live(api.url) == 200
    api.stop()
