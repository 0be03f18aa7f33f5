"""Devices for the collector's tests: real windows, counted by the real observer, sent by paho.

No agent: these tests decide what a device says, in which order, and how often.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import numpy as np
import paho.mqtt.client as mqtt

from edgeml.bundle import Bundle, open_bundle
from edgeml.statistics import Observer, pack
from edgeml.telemetry import (
    ActiveModel,
    DeviceFacts,
    Message,
    Status,
    Stored,
    Topics,
    Window,
    decode,
    encode,
)
from support.weights import images, scores

START_MS = 1_800_000_000_000


class Source:
    """Makes windows of a device with the tiny classifier.

    Args:
        bundle: the classifier's.
        seed: of the images.
    """

    def __init__(self, bundle: Path, *, seed: int, boot: str = "boot-1") -> None:
        self.bundle: Bundle = open_bundle(bundle)
        baseline = self.bundle.baseline()
        assert baseline is not None
        self.baseline = baseline
        self._observer = Observer(baseline)
        self._seed = seed * 100_000
        self.boot = boot
        self.sequence = 0

    def window(self, *, rows: int = 40, broken: bool = False, oldest: int = 0) -> Window:
        """The next window; ``broken`` has dark images of little contrast."""
        self.sequence += 1
        frames = images(rows, seed=self._seed + self.sequence)
        if broken:
            frames = (0.3 * frames).astype(np.float32)
        self._observer.observe({"image": frames}, {"scores": scores(frames)})
        counts = self._observer.take()
        manifest = self.bundle.manifest
        return Window(
            boot=self.boot,
            sequence=self.sequence,
            oldest=oldest or self.sequence,
            model=manifest.name,
            version=manifest.version,
            bundle=self.bundle.sha256,
            artifact=manifest.artifacts[0].id,
            start_ms=START_MS + self.sequence * 1000,
            duration_ms=1000,
            rows=rows,
            outcomes={"served": rows, "late": 1},
            baseline=self.baseline.hash,
            statistics=[pack(each) for each in counts.values()],
        )

    def windows(self, count: int, *, broken: bool = False, rows: int = 40) -> list[Window]:
        """The next windows."""
        return [self.window(broken=broken, rows=rows) for _ in range(count)]

    def status(self, *, online: bool = True, system: str = "Linux 6.6") -> Status:
        """A birth, or what a last will says."""
        manifest = self.bundle.manifest
        model = ActiveModel(
            name=manifest.name,
            version=manifest.version,
            bundle=self.bundle.sha256,
            artifact=manifest.artifacts[0].id,
        )
        facts = DeviceFacts(machine="aarch64", system=system, cores=4, memory_mb=3900)
        return Status(
            online=online,
            boot=self.boot,
            agent="0.1.0",
            started_ms=START_MS,
            facts=facts,
            models=(model,),
        )


class Wire:
    """A device's side of the broker: publishes, and hears what is stored."""

    def __init__(self, topics: Topics, host: str, port: int) -> None:
        self.topics = topics
        self._heard = threading.Condition()
        self._marks: list[Stored] = []
        self._ready = threading.Event()
        self._client = mqtt.Client(
            mqtt.CallbackAPIVersion.VERSION2,
            client_id=f"{topics.site}-{topics.device}",
            protocol=mqtt.MQTTProtocolVersion.MQTTv311,
        )
        will = Status(online=False, boot="boot-1")
        self._client.will_set(topics.status, encode(will), qos=1, retain=True)
        self._client.on_connect = lambda *_: self._client.subscribe(topics.stored, qos=1)
        self._client.on_subscribe = lambda *_: self._ready.set()
        self._client.on_message = self._on_message
        self._client.connect(host, port)
        self._client.loop_start()
        assert self._ready.wait(20)

    def _on_message(self, client: mqtt.Client, userdata: object, message: mqtt.MQTTMessage) -> None:
        if message.topic != self.topics.stored:
            return  # amqtt hands each new client what is retained for any other one
        with self._heard:
            self._marks.append(decode(message.payload, Stored))
            self._heard.notify_all()

    def publish(self, topic: str, payload: bytes, *, retain: bool = False) -> None:
        """Publish raw bytes, and return when the broker has them."""
        self._client.publish(topic, payload, qos=1, retain=retain).wait_for_publish(20)

    def send(self, *messages: Message) -> None:
        """Publish messages where they belong."""
        for message in messages:
            match message:
                case Window():
                    topic, retain = self.topics.stats(message.model), False
                case Status():
                    topic, retain = self.topics.status, True
                case _:
                    raise TypeError(message)
            self.publish(topic, encode(message), retain=retain)

    def wait_stored(self, sequence: int, *, boot: str = "boot-1", timeout_s: float = 30) -> None:
        """Wait until the collector says that everything up to ``sequence`` is stored."""
        with self._heard:
            assert self._heard.wait_for(
                lambda: any(m.boot == boot and m.sequence >= sequence for m in self._marks),
                timeout_s,
            ), f"no mark {sequence} of {boot} in {msgspec.json.encode(self._marks).decode()}"

    def marks(self) -> list[Stored]:
        """What was heard so far."""
        with self._heard:
            return list(self._marks)

    def forget(self) -> None:
        """Forget the marks heard so far."""
        with self._heard:
            self._marks.clear()

    def vanish(self) -> None:
        """Lose the connection, so that the broker publishes the last will."""
        self._client.loop_stop()
        sock = self._client.socket()
        if sock is not None:
            sock.close()

    def close(self) -> None:
        """Disconnect in order."""
        self._client.disconnect()
        self._client.loop_stop()


@contextmanager
def wire(site: str, device: str, host: str, port: int) -> Iterator[Wire]:
    """A connected device."""
    connected = Wire(Topics(site, device), host, port)
    try:
        yield connected
    finally:
        connected.close()
