"""Frames from MQTT topics as requests, and answers back to a topic."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from edgeml.device_agent import logs
from edgeml.device_agent.config import ModelConfig, MqttInput
from edgeml.device_agent.inputs import payloads
from edgeml.device_agent.local import oip
from edgeml.device_agent.serving import requests
from edgeml.device_agent.serving.tickets import Ticket
from edgeml.errors import AgentError, SourceError

if TYPE_CHECKING:
    from edgeml.device_agent.serving.service import Service

Publish = Callable[[str, Callable[[], bytes]], None]
"""Takes a topic, and what encodes the message for it on the thread that sends it."""

OnFrame = Callable[[str, bytes], None]
"""Takes topic and payload of a frame that came in."""


def handlers(models: Sequence[tuple[ModelConfig, Service]], publish: Publish) -> dict[str, OnFrame]:
    """Topic filter → what to do with a frame on it, for all models that take some."""
    found: dict[str, list[OnFrame]] = {}
    for model, service in models:
        for entry in model.mqtt:
            found.setdefault(entry.topic, []).append(_handler(entry, service, publish))
    return {topic: _each(several) for topic, several in found.items()}


def _each(several: Sequence[OnFrame]) -> OnFrame:
    def on_frame(topic: str, payload: bytes) -> None:
        for one in several:
            one(topic, payload)

    return on_frame


def answering(topic: str, service: Service, publish: Publish) -> Callable[[Ticket], None]:
    """Publishes what was served on a topic; nothing where that is empty."""

    def answer(ticket: Ticket) -> None:
        if topic and ticket.outcome == "served":
            manifest, outputs = service.manifest, ticket.outputs
            publish(
                topic,
                lambda: (
                    oip.encode_response(outputs, model=manifest.name, version=manifest.version).body
                ),
            )

    return answer


def _handler(entry: MqttInput, service: Service, publish: Publish) -> OnFrame:
    answer = answering(entry.results, service, publish)

    def on_frame(topic: str, payload: bytes) -> None:
        try:
            manifest = service.manifest
        except AgentError:
            return  # it never came up; the reported state says so
        try:
            feed = requests.feed(payloads.arrays(payload), manifest.inputs)
        except SourceError as error:
            service.unfit()
            logs.warn("bad frame", model=manifest.name, topic=topic, reason=error)
            return
        service.submit(feed, stream=f"mqtt:{topic}" if entry.newest else "", done=answer)

    return on_frame
