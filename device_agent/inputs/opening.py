"""All sources of frames besides local calls and MQTT, as the configuration has them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from edgeml.device_agent.config import ModelConfig
from edgeml.device_agent.inputs.folder import FolderSource
from edgeml.device_agent.inputs.frames import Publish, answering
from edgeml.device_agent.inputs.source import Source

if TYPE_CHECKING:
    from edgeml.device_agent.serving.service import Service


def open_sources(
    models: Sequence[tuple[ModelConfig, Service]], *, state: Path, publish: Publish
) -> list[FolderSource | Source]:
    """Folders, cameras and sound of all models; none is read yet.

    Args:
        models: with their services, which have come up or failed to.
        state: the agent's state folder.
        publish: sends an answer to an MQTT topic.

    Raises:
        AgentError: a folder cannot be made.
        UsageError: a model takes nothing that its sensor gives.
    """
    sources: list[FolderSource | Source] = []
    for model, service in models:
        sources += [FolderSource(entry, service, state) for entry in model.folder]
        if service.state.phase != "active":  # what it takes may not even be known
            continue
        # An agent without a sensor does without their libraries.
        for camera in model.camera:
            from edgeml.device_agent.inputs.camera import Camera

            sources.append(Camera(camera, service, answering(camera.results, service, publish)))
        for audio in model.audio:
            from edgeml.device_agent.inputs.audio import Audio

            sources.append(Audio(audio, service, answering(audio.results, service, publish)))
    return sources
