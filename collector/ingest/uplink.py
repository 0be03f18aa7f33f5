"""The connection to the broker: made, kept, and made again, for as long as the collector runs.

Speaks MQTT 5 where the broker does and 3.1.1 where it does not, with a persistent session under a
client id that stays the same, and acknowledges by hand. Each connection is a client object of its
own, so that an acknowledgement can never reach another connection than its message came from.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable
from typing import Any

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from edgeml.collector.config import BrokerConfig
from edgeml.collector.ingest.counters import Counters
from edgeml.collector.ingest.queueing import Inbox, Item
from edgeml.collector.ingest.validate import Refused, validate
from edgeml.collector.store.marks import Mark
from edgeml.telemetry import Stored, encode, every_device
from edgeml.telemetry.topics import Leaf

log = logging.getLogger(__name__)

_MQTT5 = MQTTProtocolVersion.MQTTv5
_MQTT311 = MQTTProtocolVersion.MQTTv311

SUBSCRIBED: tuple[Leaf, ...] = ("stats", "status", "reported", "event")
IN_FLIGHT = 1000
"""Messages that an MQTT 5 broker may have sent without our acknowledgement."""
LONGEST_PAUSE_S = 30.0
CONNECT_S = 5.0
"""For the broker's answer to a connection. (amqtt gives none, now and then, to MQTT 5.)"""
TOLD_REFUSALS_S = 10.0
"""Log a refusal of each reason at most this often."""


class Uplink:
    """Receives into ``inbox``, and publishes marks.

    Args:
        config: where the broker is.
        client_id: stays the same over restarts.
        inbox: takes what is valid.
        counters: takes what is refused.
        clock_ms: Unix time.
        mqtt5: try MQTT 5 first.
    """

    def __init__(
        self,
        *,
        config: BrokerConfig,
        client_id: str,
        inbox: Inbox,
        counters: Counters,
        clock_ms: Callable[[], int],
        mqtt5: bool = True,
    ) -> None:
        self._config = config
        self._client_id = client_id
        self._inbox = inbox
        self._counters = counters
        self._clock_ms = clock_ms
        self._stopping = threading.Event()
        self._lost = threading.Event()
        self._client: mqtt.Client | None = None
        self._protocol = _MQTT5 if mqtt5 else _MQTT311
        self._subscribed = threading.Event()
        self._accepted = False
        self._told: dict[str, float] = {}
        self._thread = threading.Thread(target=self._run, name="collector-uplink")
        self.trouble = "not connected yet"
        """Why there is no connection; empty while there is one."""

    def start(self) -> None:
        """Start connecting, and return at once."""
        self._thread.start()

    @property
    def protocol(self) -> str:
        """``5`` or ``3.1.1``."""
        return "5" if self._protocol == _MQTT5 else "3.1.1"

    def wait_subscribed(self, timeout_s: float) -> bool:
        """Wait for the first subscription to be in place; False after ``timeout_s``."""
        return self._subscribed.wait(timeout_s)

    def stop_receiving(self) -> None:
        """Take nothing in any more; what comes stays unacknowledged and comes again."""
        self._stopping.set()

    def disconnect(self) -> None:
        """End the connection after all acknowledgements are sent. After :meth:`stop_receiving`."""
        self._stopping.set()
        client = self._client
        if client is not None and client.is_connected():
            client.disconnect()
            self._lost.wait(5.0)
        self._lost.set()
        if self._thread.ident is not None:
            self._thread.join()

    def tell(self, mark: Mark) -> None:
        """Publish a device's high-water mark. Without a connection it is dropped: the device sends
        again what it has not heard of, and is told then."""
        client = self._client
        if client is not None and client.is_connected():
            message = Stored(boot=mark.boot, sequence=mark.through)
            client.publish(mark.topics.stored, encode(message), qos=1)

    def _run(self) -> None:
        failures = 0
        while not self._stopping.is_set():
            self._lost.clear()
            self._accepted = False
            client = self._make_client()
            self._client = client
            refused_protocol = False
            try:
                self._connect(client)
                client.loop_start()
                lost = self._lost.wait(CONNECT_S)
                refused_protocol = not self._accepted and not self._stopping.is_set()
                if self._accepted and not lost:
                    self._lost.wait()
            except (OSError, ValueError) as error:
                self._complain(str(error))
            finally:
                client.disconnect()
                client.loop_stop()
            failures = 0 if self._accepted else failures + 1
            if refused_protocol:  # or the broker is in trouble: try the other one
                self._change_protocol()
            if refused_protocol and failures == 1:
                continue
            # Full jitter, so that many clients do not come back as one.
            ceiling = min(0.5 * 2**failures, LONGEST_PAUSE_S)
            self._stopping.wait(random.uniform(0.1, ceiling))  # noqa: S311

    def _make_client(self) -> mqtt.Client:
        settings: dict[str, Any] = {}
        if self._protocol != _MQTT5:
            settings["clean_session"] = False
        client = mqtt.Client(
            CallbackAPIVersion.VERSION2,
            client_id=self._client_id,
            protocol=self._protocol,
            manual_ack=True,
            reconnect_on_failure=False,
            **settings,
        )
        client.connect_timeout = CONNECT_S
        client.on_connect = self._on_connect
        client.on_disconnect = self._on_disconnect
        client.on_subscribe = self._on_subscribe
        client.on_message = self._on_message
        return client

    def _connect(self, client: mqtt.Client) -> None:
        settings: dict[str, Any] = {}
        if self._protocol == _MQTT5:
            properties = Properties(PacketTypes.CONNECT)
            properties.SessionExpiryInterval = self._config.session_days * 86_400
            properties.ReceiveMaximum = IN_FLIGHT
            settings = {"clean_start": False, "properties": properties}
        config = self._config
        client.connect(config.host, config.port, keepalive=config.keepalive_s, **settings)

    def _change_protocol(self) -> None:
        self._protocol = _MQTT311 if self._protocol == _MQTT5 else _MQTT5

    def _complain(self, reason: str) -> None:
        if self.trouble != reason:
            log.warning(
                "no connection to the broker at %s:%d (%s); trying again",
                self._config.host,
                self._config.port,
                reason,
            )
        self.trouble = reason

    def _on_connect(
        self, client: mqtt.Client, _data: Any, _flags: Any, reason: Any, _properties: Any
    ) -> None:
        if reason.is_failure:
            self.trouble = f"the broker refused: {reason}"
            self._lost.set()
            return
        self._accepted = True
        if self.trouble:
            log.warning(
                "connected to the broker at %s:%d (MQTT %s)",
                self._config.host,
                self._config.port,
                self.protocol,
            )
        self.trouble = ""
        # Again on each connection: it brings what is retained, and an amqtt forgets sessions.
        client.subscribe([(every_device(leaf), 1) for leaf in SUBSCRIBED])

    def _on_subscribe(
        self, _client: mqtt.Client, _data: Any, _mid: int, _reasons: Any, _properties: Any
    ) -> None:
        self._subscribed.set()

    def _on_disconnect(
        self, _client: mqtt.Client, _data: Any, _flags: Any, reason: Any, _properties: Any
    ) -> None:
        if not self._stopping.is_set() and self._accepted:
            self._complain(f"connection lost: {reason}")
        self._lost.set()

    def _on_message(self, client: mqtt.Client, _data: Any, message: mqtt.MQTTMessage) -> None:
        if self._stopping.is_set():
            return
        try:
            self._take(client, message)
        except Exception:  # an exception would end the connection's thread
            log.exception("fault over a message on %r", message.topic)
            self._counters.refuse("fault")
            _acknowledge(client, message)

    def _take(self, client: mqtt.Client, message: mqtt.MQTTMessage) -> None:
        found = validate(
            message.topic,
            bytes(message.payload),
            received_ms=self._clock_ms(),
            retained=message.retain,
        )
        if isinstance(found, Refused):
            self._counters.refuse(found.reason)
            self._tell_refusal(message.topic, found)
            _acknowledge(client, message)
            return
        # A full inbox holds up this thread, and so the broker. Longer than the keep-alive allows,
        # and the connection is given up: the broker keeps what is not acknowledged and sends it
        # again.
        item = Item(found, lambda: _acknowledge(client, message))
        if not self._inbox.put(item, timeout_s=self._config.keepalive_s / 2):
            self._complain("the database does not keep up")
            self._lost.set()

    def _tell_refusal(self, topic: str, refused: Refused) -> None:
        now = time.monotonic()
        if now - self._told.get(refused.reason, -TOLD_REFUSALS_S) >= TOLD_REFUSALS_S:
            self._told[refused.reason] = now
            log.warning("refused a payload on %.200r: %.300s", topic, refused.detail)


def _acknowledge(client: mqtt.Client, message: mqtt.MQTTMessage) -> None:
    # amqtt delivers retained messages at QoS 0, where there is nothing to acknowledge.
    if message.qos > 0:
        client.ack(message.mid, message.qos)
