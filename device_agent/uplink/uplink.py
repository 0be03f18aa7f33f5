"""The connection to the broker: one thread, one paho client a connection.

Connects and connects again, has the last will say that the device is gone, and feeds frames and
commands that come in to whom they concern; what goes out is the
:mod:`~edgeml.device_agent.uplink.sender`'s. The broker may be absent at the start, go and come
back: nothing else in the agent waits for it.

MQTT 5 is tried first; a broker that refuses it or hangs up on it gets 3.1.1. The session is clean:
what must survive is in the outbox, not at the broker.
"""

from __future__ import annotations

import contextlib
import os
import random
import select
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

import paho.mqtt.client as paho
from paho.mqtt.enums import MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.reasoncodes import ReasonCode

from edgeml.device_agent import logs
from edgeml.device_agent.config import BrokerConfig
from edgeml.device_agent.inputs.frames import OnFrame
from edgeml.device_agent.uplink.backoff import Backoff
from edgeml.device_agent.uplink.dialer import Dialer
from edgeml.device_agent.uplink.outbox import Outbox
from edgeml.device_agent.uplink.sender import Sender
from edgeml.errors import AgentError, TelemetryError
from edgeml.telemetry import Reported, Status, Stored, Topics, decode, encode

_LOOP_S = 1.0
"""paho wants to look at its keep-alive about this often."""

_DISK_S = 1.0
"""Before an outbox that cannot be written to is tried again."""

_MARK_S = 0.5
"""How long the end of the agent waits for a collector that may not be there."""


class Uplink:
    """Args:
    config: of the broker.
    topics: of this device.
    outbox: what to deliver.
    status: makes the birth message.
    reported: makes the reported state.
    frames: topic filter → whom to give what comes on it.
    commands: whom to give what is asked of this device, and whether the broker had kept it.
    """

    def __init__(
        self,
        config: BrokerConfig,
        *,
        topics: Topics,
        outbox: Outbox,
        status: Callable[[bool], Status],
        reported: Callable[[], Reported],
        frames: Mapping[str, OnFrame],
        commands: Callable[[bytes, bool], None],
    ) -> None:
        self._config = config
        self._topics = topics
        self._status = status
        self._frames = frames
        self._commands = commands
        self._sender = Sender(
            config, topics=topics, outbox=outbox, status=status, reported=reported
        )
        self._backoff = Backoff(config.retry_s, config.retry_cap_s, random.SystemRandom())
        self._disk_at = 0.0
        """When to try the outbox again, which could not be written to."""
        self._protocol = MQTTProtocolVersion.MQTTv5
        self._connected = False
        self._stopping = threading.Event()
        self._connected_at = 0.0
        self._answer_s = config.answer_s
        self._skip_delay = False
        self._news = False
        """There may be something to send that was not there at the last look."""
        self._flushed = threading.Condition()
        self._reader, self._writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._dialer = Dialer(config, client_id=f"edgeml-{topics.site}-{topics.device}")
        self._thread = threading.Thread(target=self._run, name="uplink", daemon=True)

    def start(self) -> None:
        """Begin to connect; returns at once."""
        self._thread.start()

    @property
    def connected(self) -> bool:
        """Whether the broker has accepted the connection that stands."""
        return self._connected

    def changed(self) -> None:
        """Status and reported state are others: say so. From any thread."""
        self._sender.changed()
        self.wake()

    def wake(self) -> None:
        """There is something new in the outbox. From any thread."""
        with contextlib.suppress(BlockingIOError, OSError):
            os.write(self._writer, b"\0")

    def publish_result(self, topic: str, encode: Callable[[], bytes], *, qos: int = 0) -> None:
        """Send an answer, or lose it with the connection. From any thread.

        Args:
            topic: to send it to.
            encode: makes the message, on the uplink's thread: a large tensor takes JSON longer than
                many a model, and whoever has served it has the next one waiting.
            qos: MQTT's.
        """
        self._sender.result(topic, encode, qos)
        self.wake()

    def flush(self, timeout_s: float) -> None:
        """Wait until the broker has everything, as long as the connection stands.

        Args:
            timeout_s: at most this long, and then a moment for the collector's mark: what is
                acknowledged now need not be sent again by the next run.
        """
        self._sender.hurry()
        self.wake()
        with self._flushed:
            self._flushed.wait_for(
                lambda: not self._connected or self._sender.is_taken(), timeout_s
            )
            self._flushed.wait_for(
                lambda: not self._connected or self._sender.is_empty(), min(_MARK_S, timeout_s)
            )

    def stop(self) -> None:
        """Say goodbye with an offline status, where there is a connection, and end the thread."""
        self._stopping.set()
        self.wake()
        self._thread.join()
        os.close(self._reader)
        os.close(self._writer)

    # On the uplink's own thread, from here on.

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                self._one_connection()
            except Exception:  # noqa: BLE001 - a fault of ours must not cost the uplink
                logs.fault("uplink fault")
            self._set_connected(False)
            if self._skip_delay:  # the other protocol, while the broker is there
                self._skip_delay = False
            elif not self._stopping.is_set():
                self._stopping.wait(self._backoff.next())

    def _one_connection(self) -> None:
        client = self._client()
        try:
            client.connect(self._config.host, self._config.port, self._config.keepalive_s)
        except (OSError, ValueError) as error:
            logs.warn("no broker", host=self._config.host, port=self._config.port, reason=error)
            return
        answered = False
        patience = time.monotonic() + self._answer_s
        try:
            while not self._stopping.is_set():
                if not self._turn(client):
                    break
                if self._connected:
                    answered = True
                    self._pump_if_needed(client)
                elif time.monotonic() > patience:
                    break
            else:
                self._goodbye(client)
        finally:
            with contextlib.suppress(Exception):
                client.disconnect()
            sock: Any = client.socket()
            if sock is not None:
                sock.close()
        if answered:
            # One that lets us in and throws us out at once is not to be hammered.
            if time.monotonic() - self._connected_at >= self._config.retry_cap_s:
                self._backoff.reset()
            if not self._stopping.is_set():
                logs.warn("broker lost", host=self._config.host, port=self._config.port)
        else:
            self._try_other_protocol()

    def _client(self) -> paho.Client:
        client = self._dialer.client(self._protocol)
        client.will_set(self._topics.status, encode(self._status(False)), qos=1, retain=True)
        client.on_connect = self._on_connect
        client.on_message = self._on_message
        client.on_publish = self._on_publish
        return client

    def _turn(self, client: paho.Client) -> bool:
        """Wait for the socket or for news, and do what paho has to do; False where it is over."""
        sock: Any = client.socket()
        if sock is None:
            return False
        pending = getattr(sock, "pending", None)
        wait = 0.0 if pending is not None and pending() else self._patience()
        writers = [sock] if client.want_write() else []
        try:
            readable, writable, _ = select.select([sock, self._reader], writers, [], wait)
        except (OSError, ValueError):
            return False
        if self._reader in readable:
            self._news = True
            with contextlib.suppress(BlockingIOError):
                os.read(self._reader, 4096)
        outcome = MQTTErrorCode.MQTT_ERR_SUCCESS
        if sock in readable or (pending is not None and pending()):
            outcome = client.loop_read()
        if outcome == MQTTErrorCode.MQTT_ERR_SUCCESS and sock in writable:
            outcome = client.loop_write()
        if outcome == MQTTErrorCode.MQTT_ERR_SUCCESS:
            outcome = client.loop_misc()
        return outcome == MQTTErrorCode.MQTT_ERR_SUCCESS

    def _patience(self) -> float:
        if not self._connected:
            return min(_LOOP_S, self._answer_s / 4)
        now = time.monotonic()
        due = min(self._sender.next_due(), now + _LOOP_S)
        return max(0.0, due - now, min(_LOOP_S, self._disk_at - now))

    def _pump_if_needed(self, client: paho.Client) -> None:
        now = time.monotonic()
        if now < self._disk_at or not (self._news or self._sender.next_due() <= now):
            return
        self._news = False
        try:
            self._sender.send(client)
        except AgentError as error:
            logs.warn("outbox not usable", reason=error)
            self._news = True
            self._disk_at = time.monotonic() + _DISK_S
        with self._flushed:
            self._flushed.notify_all()

    def _goodbye(self, client: paho.Client) -> None:
        """An offline status that the broker has taken before the connection ends."""
        if not self._connected:
            return
        offline = encode(self._status(False))
        sent = client.publish(self._topics.status, offline, qos=1, retain=True)
        end = time.monotonic() + self._config.connect_timeout_s
        while not sent.is_published() and time.monotonic() < end:
            if not self._turn(client):
                return

    def _on_connect(
        self,
        client: paho.Client,
        userdata: object,  # noqa: ARG002 - paho's signature, here and below
        flags: paho.ConnectFlags,  # noqa: ARG002
        reason: ReasonCode,
        properties: object,  # noqa: ARG002
    ) -> None:
        if reason.is_failure:
            logs.warn("broker refused", reason=reason, protocol=self._protocol.name)
            return
        self._connected_at = time.monotonic()
        self._answer_s = self._config.answer_s
        self._news = True
        self._sender.connected(self._connected_at)
        asked = [(self._topics.stored, 1), (self._topics.leaf("cmd"), 1)]
        filters = [*asked, *((topic, 0) for topic in self._frames)]
        client.subscribe(filters)
        self._sender.send_state(client)
        self._set_connected(True)
        logs.info(
            "connected",
            host=self._config.host,
            port=self._config.port,
            protocol=self._protocol.name,
        )

    def _on_message(
        self,
        client: paho.Client,  # noqa: ARG002
        userdata: object,  # noqa: ARG002
        message: paho.MQTTMessage,
    ) -> None:
        if message.topic == self._topics.stored:
            self._take_mark(bytes(message.payload))
            return
        if message.topic == self._topics.leaf("cmd"):
            self._commands(bytes(message.payload), bool(message.retain))
            return
        for topic, on_frame in self._frames.items():
            if paho.topic_matches_sub(topic, message.topic):
                on_frame(message.topic, bytes(message.payload))

    def _take_mark(self, payload: bytes) -> None:
        try:
            mark = decode(payload, Stored)
        except TelemetryError as error:
            logs.warn("bad message", topic=self._topics.stored, reason=error)
            return
        try:
            self._news |= self._sender.stored(mark)
        except AgentError as error:  # it will be told again
            logs.warn("outbox not usable", reason=error)
        with self._flushed:
            self._flushed.notify_all()

    def _on_publish(
        self,
        client: paho.Client,  # noqa: ARG002
        userdata: object,  # noqa: ARG002
        mid: int,
        reason: ReasonCode,
        properties: object,  # noqa: ARG002
    ) -> None:
        self._news |= self._sender.taken(mid, failed=reason.is_failure)
        if reason.is_failure:
            logs.warn("message refused by the broker", reason=reason)
        with self._flushed:
            self._flushed.notify_all()

    def _try_other_protocol(self) -> None:
        """The broker did not accept us: it may not speak MQTT 5, or was just starting."""
        if self._protocol == MQTTProtocolVersion.MQTTv5:
            self._protocol = MQTTProtocolVersion.MQTTv311
            self._skip_delay = True
        else:
            self._protocol = MQTTProtocolVersion.MQTTv5
            self._answer_s = min(self._config.retry_cap_s, self._answer_s * 2)

    def _set_connected(self, connected: bool) -> None:
        with self._flushed:
            self._connected = connected
            self._flushed.notify_all()
