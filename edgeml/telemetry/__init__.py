"""The telemetry contract: topics, messages, codec. The agent writes, the collector reads."""

from edgeml.telemetry.codec import decode, encode
from edgeml.telemetry.merging import merge, merge_key
from edgeml.telemetry.messages import (
    SCHEMA,
    ActiveModel,
    Building,
    Command,
    CommandResult,
    DeviceFacts,
    Event,
    Message,
    ModelState,
    Reported,
    Status,
    Stored,
    Window,
)
from edgeml.telemetry.topics import Topic, Topics, check_name, every_device, parse_topic

__all__ = [
    "SCHEMA",
    "ActiveModel",
    "Building",
    "Command",
    "CommandResult",
    "DeviceFacts",
    "Event",
    "Message",
    "ModelState",
    "Reported",
    "Status",
    "Stored",
    "Topic",
    "Topics",
    "Window",
    "check_name",
    "decode",
    "encode",
    "every_device",
    "merge",
    "merge_key",
    "parse_topic",
]
