"""The connection to the broker: one thread, one paho client a connection.

Says birth (retained ``status``) and ``reported`` on every connection, the last will says the
contrary; sends windows until the collector has them and events until the broker has them; feeds
frames from MQTT topics in. The broker may be absent at the start, go and come back: nothing else in
the agent waits for it.

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
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

import paho.mqtt.client as paho
from paho.mqtt.enums import MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.reasoncodes import ReasonCode

from edgeml.device_agent import config as bounds
from edgeml.device_agent import logs
from edgeml.device_agent.config import BrokerConfig
from edgeml.device_agent.uplink.backoff import Backoff
from edgeml.device_agent.uplink.delivery import Delivery, Key, Trickle
from edgeml.device_agent.uplink.dialer import Dialer
from edgeml.device_agent.uplink.outbox import Outbox
from edgeml.errors import AgentError, TelemetryError
from edgeml.telemetry import Message, Reported, Status, Stored, Topics, decode, encode

OnFrame = Callable[[str, bytes], None]
"""Takes topic and payload of a frame that came in."""

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
        self._outbox = outbox
        self._status = status
        self._reported = reported
        self._frames = frames
        self._commands = commands
        self._delivery = Delivery(
            in_flight=config.in_flight,
            resend_s=config.resend_s,
            resend_cap_s=config.resend_cap_s,
        )
        self._backoff = Backoff(config.retry_s, config.retry_cap_s, random.SystemRandom())
        self._trickle = Trickle(config.backlog_s, random.SystemRandom())
        self._backlog = False
        """Windows wait that may be sent when it is their time."""
        self._ending = False
        """What waits is to go as fast as it can."""
        self._disk_at = 0.0
        """When to try the outbox again, which could not be written to."""
        self._protocol = MQTTProtocolVersion.MQTTv5
        self._connected = False
        self._stopping = threading.Event()
        self._dirty = threading.Event()
        self._events_sent: dict[int, int] = {}
        """Message id of this connection → the event's id in the outbox."""
        self._windows_sent: dict[int, Key] = {}
        self._taken: set[Key] = set()
        """Windows that the broker has taken on this connection."""
        self._connected_at = 0.0
        self._answer_s = config.answer_s
        self._skip_delay = False
        self._news = False
        """There may be something to send that was not there at the last look."""
        self._results: deque[tuple[str, bytes, int]] = deque(maxlen=bounds.MAX_RESULTS)
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
        self._dirty.set()
        self.wake()

    def wake(self) -> None:
        """There is something new in the outbox. From any thread."""
        with contextlib.suppress(BlockingIOError, OSError):
            os.write(self._writer, b"\0")

    def publish_result(self, topic: str, payload: bytes, *, qos: int = 0) -> None:
        """Send an answer, or lose it with the connection. From any thread."""
        self._results.append((topic, payload, qos))
        self.wake()

    def flush(self, timeout_s: float) -> None:
        """Wait until the broker has everything, as long as the connection stands.

        Args:
            timeout_s: at most this long, and then a moment for the collector's mark: what is
                acknowledged now need not be sent again by the next run.
        """
        self._ending = True
        self.wake()
        with self._flushed:
            self._flushed.wait_for(lambda: not self._connected or self._is_taken(), timeout_s)
            self._flushed.wait_for(
                lambda: not self._connected or self._is_empty(), min(_MARK_S, timeout_s)
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
                logs.LOG.exception("uplink fault")
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
        due = min(self._next_due(), now + _LOOP_S)
        return max(0.0, due - now, min(_LOOP_S, self._disk_at - now))

    def _next_due(self) -> float:
        """When something is to be sent that is known by now; monotonic, infinite where nothing
        is."""
        again = self._delivery.next_due()
        backlog = self._trickle.due if self._backlog else float("inf")
        return backlog if again is None else min(again, backlog)

    def _pump_if_needed(self, client: paho.Client) -> None:
        now = time.monotonic()
        if now < self._disk_at or not (self._news or self._next_due() <= now):
            return
        self._news = False
        try:
            self._pump(client)
        except AgentError as error:
            logs.warn("outbox not usable", reason=error)
            self._news = True
            self._disk_at = time.monotonic() + _DISK_S

    def _pump(self, client: paho.Client) -> None:
        """Send what is to be sent now."""
        if self._dirty.is_set():
            self._dirty.clear()
            self._publish_state(client)
        while self._results:
            topic, payload, qos = self._results.popleft()
            client.publish(topic, payload, qos=qos)
        underway = set(self._events_sent.values())
        for number, event in self._outbox.events():
            if number not in underway and len(self._events_sent) < self._config.in_flight:
                sent = self._publish(client, self._topics.event(event.kind), event)
                self._events_sent[sent.mid] = number
        now = time.monotonic()
        self._number_windows(now)
        for key in self._delivery.due(self._outbox.pending(), now):
            window = self._outbox.load(key)
            if window is not None:
                sent = self._publish(client, self._topics.stats(window.model), window)
                self._windows_sent[sent.mid] = key
                self._delivery.sent(key, now)
        with self._flushed:
            self._flushed.notify_all()

    def _number_windows(self, now: float) -> None:
        """Take windows that wait into what is on its way, as many as may be: new ones at once, one
        of the backlog when it is due. Half of the room is for new ones alone."""
        half = self._config.in_flight // 2
        filling = self._outbox.filling()
        room = self._config.in_flight - filling.numbered
        if filling.waiting and room > 0:
            backlog = 0
            if self._ending:
                backlog = room
            elif room > half and self._trickle.due <= now:
                backlog = 1
                self._trickle.pause(now)
            self._outbox.number(room, backlog=backlog)
            filling = self._outbox.filling()
        self._backlog = filling.waiting > 0 and self._config.in_flight - filling.numbered > half

    def _publish(
        self, client: paho.Client, topic: str, message: Message, *, retain: bool = False
    ) -> paho.MQTTMessageInfo:
        return client.publish(topic, encode(message), qos=1, retain=retain)

    def _publish_state(self, client: paho.Client) -> None:
        self._publish(client, self._topics.status, self._status(True), retain=True)
        self._publish(client, self._topics.reported, self._reported(), retain=True)

    def _goodbye(self, client: paho.Client) -> None:
        """An offline status that the broker has taken before the connection ends."""
        if not self._connected:
            return
        sent = self._publish(client, self._topics.status, self._status(False), retain=True)
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
        self._delivery.connected()
        self._trickle.pause(self._connected_at)
        self._events_sent.clear()
        self._windows_sent.clear()
        self._taken.clear()
        self._dirty.clear()
        asked = [(self._topics.stored, 1), (self._topics.leaf("cmd"), 1)]
        filters = [*asked, *((topic, 0) for topic in self._frames)]
        client.subscribe(filters)
        self._publish_state(client)
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
            self._keep_mark(mark)
        except AgentError as error:  # it will be told again
            logs.warn("outbox not usable", reason=error)
        with self._flushed:
            self._flushed.notify_all()

    def _keep_mark(self, mark: Stored) -> None:
        if self._outbox.stored(mark.boot, mark.sequence):
            self._delivery.stored()
            self._news = True
            self._taken = {
                key
                for key in self._taken
                if key > (mark.boot, mark.sequence) or key.boot != mark.boot
            }
        left = [key for key in self._outbox.pending() if key.boot == mark.boot]
        if left and self._delivery.refused(min(left)):
            logs.warn("window given up: the collector refuses it", sequence=min(left).sequence)
            self._outbox.give_up(min(left))
            self._news = True

    def _on_publish(
        self,
        client: paho.Client,  # noqa: ARG002
        userdata: object,  # noqa: ARG002
        mid: int,
        reason: ReasonCode,
        properties: object,  # noqa: ARG002
    ) -> None:
        number = self._events_sent.pop(mid, None)
        if number is not None:
            self._news = True
            with contextlib.suppress(AgentError):  # then it is sent once more
                self._outbox.event_sent(number)
        key = self._windows_sent.pop(mid, None)
        if key is not None and not reason.is_failure:
            self._taken.add(key)
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

    def _is_taken(self) -> bool:
        with contextlib.suppress(AgentError):
            pending = self._outbox.pending()
            full = len(pending) >= self._config.in_flight
            filling = self._outbox.filling()
            return self._taken.issuperset(pending) and not filling.events and (
                full or not filling.waiting
            )  # fmt: skip
        return True

    def _is_empty(self) -> bool:
        with contextlib.suppress(AgentError):
            filling = self._outbox.filling()
            return not (filling.waiting or filling.numbered or filling.events)
        return True
