"""A small MQTT broker inside the collector, for demos and try-outs. Not for production.

`amqtt <https://amqtt.readthedocs.io>`_ in a thread with an event loop of its own. It speaks MQTT
3.1.1 only, keeps everything in memory, and forgets a persistent session's unacknowledged messages
when its client reconnects; devices send again what the collector has not confirmed, so nothing is
lost. It also hands each new client what is retained for anybody's subscription: clients check
topics.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from typing import Any

from edgeml.errors import CollectorError

STOP_S = 5.0


class EmbeddedBroker:
    """An MQTT 3.1.1 broker on ``host``.

    Args:
        host: the address to listen on.
        port: 0 takes a free one.
    """

    def __init__(self, host: str = "127.0.0.1", port: int = 0) -> None:
        self.host = host
        self.port = port
        """The real port, once started."""
        self._started = threading.Event()
        self._failure: BaseException | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._thread = threading.Thread(target=self._run, name="embedded-broker", daemon=True)

    def start(self) -> None:
        """Start it, and return when it listens.

        Raises:
            CollectorError: the port is taken.
        """
        self._thread.start()
        self._started.wait()
        if self._failure is not None:
            raise CollectorError(
                f"the embedded broker cannot listen on {self.host}:{self.port}: {self._failure}",
                expected="a free port",
                remedy="Name another with --broker HOST:PORT, or port 0 for any.",
            ) from self._failure

    def stop(self) -> None:
        """End it, and all its connections."""
        if self._loop is not None and self._stop is not None and self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except BaseException as error:  # noqa: BLE001 - told by start()
            self._failure = error
        finally:
            self._started.set()

    async def _serve(self) -> None:
        from amqtt.broker import Broker  # pyright: ignore[reportMissingTypeStubs]

        # It logs each client that comes and goes at warning level, and some of its own teardown.
        for name in ("amqtt", "transitions"):
            logging.getLogger(name).setLevel(logging.CRITICAL)
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        self._loop.set_exception_handler(_note)
        anonymous = "amqtt.plugins.authentication.AnonymousAuthPlugin"
        config: dict[str, Any] = {
            "listeners": {"default": {"type": "tcp", "bind": f"{self.host}:{self.port}"}},
            "plugins": {anonymous: {"allow_anonymous": True}},
        }
        broker: Any = Broker(config)
        await broker.start()
        # amqtt has no public way to ask which port it got.
        listener = broker._servers["default"].instance  # noqa: SLF001
        self.port = int(listener.sockets[0].getsockname()[1])
        self._started.set()
        await self._stop.wait()
        try:
            await asyncio.wait_for(broker.shutdown(), STOP_S)
        except Exception:
            logging.getLogger(__name__).debug("amqtt's shutdown failed", exc_info=True)


def _note(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:  # noqa: ARG001
    """amqtt leaves an exception behind for each client that it turns away: not ours to tell."""
    logging.getLogger(__name__).debug("in the embedded broker: %s", context.get("message"))
