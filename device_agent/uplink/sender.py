"""What goes out on the connection that stands: the retained ``status`` and ``reported``, answers,
events until the broker has them, and windows until the collector has them.

The outbox holds what must not be lost, :mod:`~edgeml.device_agent.uplink.delivery` decides what is
due; here it becomes messages. On the uplink's thread, but for what says otherwise.
"""

from __future__ import annotations

import contextlib
import random
import threading
import time
from collections import deque
from collections.abc import Callable

import paho.mqtt.client as paho

from edgeml.device_agent import config as bounds
from edgeml.device_agent import logs
from edgeml.device_agent.config import BrokerConfig
from edgeml.device_agent.uplink.delivery import Delivery, Key, Trickle
from edgeml.device_agent.uplink.outbox import Outbox
from edgeml.errors import AgentError
from edgeml.telemetry import Message, Reported, Status, Stored, Topics, encode


class Sender:
    """Args:
    config: of the broker.
    topics: of this device.
    outbox: what to deliver.
    status: makes the birth message.
    reported: makes the reported state.
    """

    def __init__(
        self,
        config: BrokerConfig,
        *,
        topics: Topics,
        outbox: Outbox,
        status: Callable[[bool], Status],
        reported: Callable[[], Reported],
    ) -> None:
        self._config = config
        self._topics = topics
        self._outbox = outbox
        self._status = status
        self._reported = reported
        self._delivery = Delivery(
            in_flight=config.in_flight,
            resend_s=config.resend_s,
            resend_cap_s=config.resend_cap_s,
        )
        self._trickle = Trickle(config.backlog_s, random.SystemRandom())
        self._backlog = False
        """Windows wait that may be sent when it is their time."""
        self._ending = False
        """What waits is to go as fast as it can."""
        self._dirty = threading.Event()
        self._events_sent: dict[int, int] = {}
        """Message id of this connection → the event's id in the outbox."""
        self._windows_sent: dict[int, Key] = {}
        self._taken: set[Key] = set()
        """Windows that the broker has taken on this connection."""
        self._results: deque[tuple[str, Callable[[], bytes], int]] = deque(
            maxlen=bounds.MAX_RESULTS
        )

    # From any thread.

    def changed(self) -> None:
        """Status and reported state are others."""
        self._dirty.set()

    def result(self, topic: str, encode: Callable[[], bytes], qos: int) -> None:
        """An answer, which may be lost with the connection; encoded when it goes out."""
        self._results.append((topic, encode, qos))

    def hurry(self) -> None:
        """The agent is ending: what waits is to go as fast as it can."""
        self._ending = True

    def is_taken(self) -> bool:
        """Whether the broker has everything that may be on its way."""
        with contextlib.suppress(AgentError):
            pending = self._outbox.pending()
            full = len(pending) >= self._config.in_flight
            filling = self._outbox.filling()
            return self._taken.issuperset(pending) and not filling.events and (
                full or not filling.waiting
            )  # fmt: skip
        return True

    def is_empty(self) -> bool:
        """Whether nothing is left to send or to be acknowledged."""
        with contextlib.suppress(AgentError):
            filling = self._outbox.filling()
            return not (filling.waiting or filling.numbered or filling.events)
        return True

    # On the uplink's thread.

    def connected(self, now: float) -> None:
        """A connection stands: what was on its way on the last one may be lost."""
        self._delivery.connected()
        self._trickle.pause(now)
        self._events_sent.clear()
        self._windows_sent.clear()
        self._taken.clear()
        self._dirty.clear()

    def next_due(self) -> float:
        """When something is to be sent that is known by now; monotonic, infinite where nothing
        is."""
        again = self._delivery.next_due()
        backlog = self._trickle.due if self._backlog else float("inf")
        return backlog if again is None else min(again, backlog)

    def send(self, client: paho.Client) -> None:
        """Send what is to be sent now.

        Raises:
            AgentError: the outbox cannot be used.
        """
        if self._dirty.is_set():
            self._dirty.clear()
            self.send_state(client)
        while self._results:
            topic, encode_result, qos = self._results.popleft()
            client.publish(topic, encode_result(), qos=qos)
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

    def send_state(self, client: paho.Client) -> None:
        """Send birth and reported state."""
        self._publish(client, self._topics.status, self._status(True), retain=True)
        self._publish(client, self._topics.reported, self._reported(), retain=True)

    def taken(self, mid: int, *, failed: bool) -> bool:
        """The broker has answered for a message.

        Args:
            mid: its id on this connection.
            failed: whether it refused it.

        Returns:
            Whether there may be more to send now.
        """
        number = self._events_sent.pop(mid, None)
        if number is not None:
            with contextlib.suppress(AgentError):  # then it is sent once more
                self._outbox.event_sent(number)
        key = self._windows_sent.pop(mid, None)
        if key is not None and not failed:
            self._taken.add(key)
        return number is not None

    def stored(self, mark: Stored) -> bool:
        """The collector has everything up to a mark.

        Returns:
            Whether there may be more to send now.

        Raises:
            AgentError: the outbox cannot be used; it will be told again.
        """
        news = False
        if self._outbox.stored(mark.boot, mark.sequence):
            self._delivery.stored()
            news = True
            self._taken = {
                key
                for key in self._taken
                if key > (mark.boot, mark.sequence) or key.boot != mark.boot
            }
        left = [key for key in self._outbox.pending() if key.boot == mark.boot]
        if left and self._delivery.refused(lowest := min(left)):
            window = self._outbox.load(lowest)
            logs.warn(
                "window given up",
                model=window.model if window is not None else "",
                sequence=lowest.sequence,
                reason="the collector refuses it",
            )
            self._outbox.give_up(lowest)
            news = True
        return news
