"""The collector as a process: what is started, in which order, and how it ends.

Start: lock, database, bundles, broker (where it is embedded), writer, uplink, HTTP. End, on SIGTERM
or SIGINT, in the reverse sense: nothing more is taken in, what was taken in is committed and
acknowledged, then the connection to the broker ends, then the rest.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import os
import platform
import signal
import socket
import sys
import time
from collections.abc import Generator
from pathlib import Path
from typing import Any, TypeVar

import uvicorn
from fastapi import FastAPI

from edgeml import __version__
from edgeml.collector.access.guard import Guard
from edgeml.collector.access.token import find_token, require_token
from edgeml.collector.api.routes import add_routes
from edgeml.collector.broker import EmbeddedBroker
from edgeml.collector.config import CollectorConfig
from edgeml.collector.ingest.counters import Counters
from edgeml.collector.ingest.queueing import Inbox
from edgeml.collector.ingest.uplink import Uplink
from edgeml.collector.ingest.writer import AddedBundle, Writer
from edgeml.collector.keep.keeper import Keeper, needed
from edgeml.collector.store.change import Change
from edgeml.collector.store.database import database_url, lock_database, open_database
from edgeml.collector.store.evaluation import Evaluator
from edgeml.collector.store.fleet_queries import FleetReader
from edgeml.collector.store.intake import Intake
from edgeml.collector.store.marks import Mark
from edgeml.collector.store.queries import Reader
from edgeml.collector.views import KeptView
from edgeml.collector.web.pages import add_pages
from edgeml.errors import CollectorError

T = TypeVar("T")

log = logging.getLogger(__name__)

SUBSCRIBED_S = 10.0
LINGER_S = 3
"""How long open pages may take to end before they are cut."""


def now_ms() -> int:
    """Unix time in milliseconds."""
    return time.time_ns() // 1_000_000


class Collector:
    """Everything that runs. :meth:`run` starts it and returns when it was told to stop."""

    def __init__(self, config: CollectorConfig) -> None:
        self._config = config
        self._token = find_token(config.http.token_file)
        require_token(config.http.host, self._token)
        self._engine = open_database(config.database)
        self.reader = Reader(self._engine)
        self.fleet = FleetReader(self._engine, config.alarms.budget)
        self._counters = Counters(now_ms())
        self._inbox = Inbox()
        intake = Intake(self._engine, Evaluator(config.alarms.policy, config.alarms.budget))
        self._keeper = Keeper(
            self._engine,
            intake.judging,
            config.keep.rule,
            kept=needed(config.alarms.policy),
        )
        self._writer = Writer(
            intake=intake,
            keeper=self._keeper,
            inbox=self._inbox,
            counters=self._counters,
            tell=self._tell,
            clock_ms=now_ms,
        )
        self._broker: EmbeddedBroker | None = None
        if config.embedded_broker:
            self._broker = EmbeddedBroker(config.broker.host, config.broker.port)
        self._uplink = self._make_uplink(config.broker.port)
        self.max_bundle_bytes = config.http.max_bundle_mb * 1_000_000
        self.user_header = config.http.user_header

    def _make_uplink(self, port: int) -> Uplink:
        broker = self._config.broker
        self._address = f"{broker.host}:{port}"
        return Uplink(
            config=type(broker)(
                host=broker.host,
                port=port,
                client_id=broker.client_id,
                keepalive_s=broker.keepalive_s,
                session_days=broker.session_days,
            ),
            client_id=broker.client_id or derived_client_id(self._config.database),
            inbox=self._inbox,
            counters=self._counters,
            clock_ms=now_ms,
            mqtt5=self._broker is None,
        )

    def _tell(self, mark: Mark) -> None:
        self._uplink.tell(mark)

    def run(self) -> None:
        """Run until SIGTERM or SIGINT.

        Raises:
            CollectorError: a port is taken.
            BundleError: a bundle of the configuration cannot be read.
        """
        config = self._config
        with contextlib.ExitStack() as ending:  # what is started last is ended first
            ending.callback(self._engine.dispose)
            listener = _listen(config.http.host, config.http.port)
            ending.callback(listener.close)
            if self._broker is not None:
                self._broker.start()
                ending.callback(self._broker.stop)
                self._uplink = self._make_uplink(self._broker.port)
            ending.callback(self._uplink.disconnect)
            self._writer.start()
            ending.callback(self._writer.stop)
            for path in config.bundles:
                self._writer.add_bundle(Path(path)).result()
            self._uplink.start()
            ending.callback(self._uplink.stop_receiving)
            if self._broker is not None:  # what starts after "ready" finds us listening
                self._uplink.wait_subscribed(SUBSCRIBED_S)
            self._serve(listener)

    def _serve(self, listener: socket.socket) -> None:
        app = FastAPI(title="edgeml collector", version=__version__, docs_url=None, redoc_url=None)
        add_routes(app, self)
        add_pages(app, self)
        app.add_middleware(Guard, token=self._token, names=self._config.http.allowed_hosts)
        host, port = listener.getsockname()[:2]
        shown = f"[{host}]" if ":" in host else host
        # Read by programs that start a collector, so keep its form.
        ready = f"ready page=http://{shown}:{port}/ broker={self._address} pid={os.getpid()}"
        server = _Server(
            uvicorn.Config(
                app, log_level="warning", timeout_graceful_shutdown=LINGER_S, ws_ping_interval=20
            ),
            ready,
        )
        server.run(sockets=[listener])

    def now_ms(self) -> int:
        """Unix time in milliseconds."""
        return now_ms()

    def health(self) -> dict[str, Any]:
        """What ``GET /api/v1/health`` answers."""
        store = self._writer.trouble or ("" if self._writer.alive else "the writer has stopped")
        broker = self._uplink.trouble
        return {
            "ok": not store and not broker,
            "version": __version__,
            "broker": {
                "ok": not broker,
                "trouble": broker,
                "address": self._address,
                "protocol": self._uplink.protocol,
                "embedded": self._broker is not None,
            },
            "store": {"ok": not store, "trouble": store},
            "budget": self._config.alarms.budget.describe(),
        }

    def counters(self) -> dict[str, Any]:
        """What ``GET /api/v1/counters`` answers."""
        return {**self._counters.snapshot(), "queued": len(self._inbox)}

    def kept(self) -> KeptView:
        """What ``GET /api/v1/keep`` answers."""
        return self.reader.kept(self._config.keep.rule, self._keeper.done)

    def add_bundle(self, path: Path) -> asyncio.Future[AddedBundle]:
        """Hand a bundle to the writer."""
        return asyncio.wrap_future(self._writer.add_bundle(path))

    def change(self, work: Change[T]) -> asyncio.Future[T]:
        """Have the writer change the store."""
        return asyncio.wrap_future(self._writer.change(work))


def run_collector(config: CollectorConfig) -> None:
    """Run a collector until it is told to stop.

    Raises:
        CollectorError: another one has the database, the database or a port cannot be used.
    """
    logging.basicConfig(
        level=logging.WARNING, stream=sys.stderr, format="%(asctime)s %(levelname)s %(message)s"
    )
    lock = lock_database(config.database)
    try:
        Collector(config).run()
    finally:
        if lock is not None:
            lock.close()


def derived_client_id(database: str) -> str:
    """The same for each start of this collector, and another for every other one."""
    name = f"{platform.node()}\n{database_url(database).render_as_string(hide_password=True)}"
    return f"edgeml-collector-{hashlib.sha256(name.encode()).hexdigest()[:12]}"


def _listen(host: str, port: int) -> socket.socket:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(address)
        except OSError:
            listener.close()
            raise
    except OSError as error:
        raise CollectorError(
            f"the page cannot be served on {host}:{port}: {error.strerror or error}",
            expected="a free port of this machine",
            remedy="Name another with --http HOST:PORT, or port 0 for any.",
        ) from error
    return listener


class _Server(uvicorn.Server):
    """uvicorn, but a signal ends it in order and is not raised again when it has ended."""

    def __init__(self, config: uvicorn.Config, ready: str) -> None:
        super().__init__(config)
        self._ready = ready

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        """Have SIGTERM and SIGINT end the server, the second one at once."""
        before = {
            number: signal.signal(number, self.handle_exit)
            for number in (signal.SIGTERM, signal.SIGINT)
        }
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, and say so."""
        await super().startup(sockets)
        if self.started:
            sys.stderr.write(self._ready + "\n")
            sys.stderr.flush()
