"""Where each message goes: ``edgeml/v1/{site}/{device}/{leaf}[/{name}]``.

Parts of a topic are plain names (letters, digits, ``.``, ``_``, ``-``), so that no wildcard and no
separator can hide in one. The version in the topic is that of the whole contract.
"""

from __future__ import annotations

import re
from typing import Literal, get_args

import msgspec

from edgeml.errors import TelemetryError

ROOT = "edgeml"
VERSION = "v1"

Leaf = Literal["status", "desired", "reported", "stats", "event", "cmd", "cmd/result", "stored"]
NAMED_LEAVES = frozenset({"stats", "event"})
"""Leaves that are followed by a name: the model, or the kind of event."""

NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")


def check_name(name: str, what: str) -> str:
    """Return ``name`` where it may stand in a topic.

    Raises:
        TelemetryError: it may not.
    """
    if NAME.fullmatch(name) is None:
        raise TelemetryError(
            f"the {what} is called {name!r}",
            expected="1 to 64 letters, digits, '.', '_' or '-'",
            remedy="Choose a plain name: it becomes part of an MQTT topic.",
        )
    return name


class Topics(msgspec.Struct, frozen=True):
    """The topics of one device."""

    site: str
    device: str

    def __post_init__(self) -> None:
        check_name(self.site, "site")
        check_name(self.device, "device")

    def leaf(self, leaf: Leaf, name: str = "") -> str:
        """The topic of a leaf; ``name`` exactly for the leaves that have one."""
        if (leaf in NAMED_LEAVES) != bool(name):
            raise TelemetryError(
                f"topic leaf '{leaf}' with the name {name!r}",
                expected=f"a name for {', '.join(sorted(NAMED_LEAVES))} and none for others",
            )
        parts = [ROOT, VERSION, self.site, self.device, leaf]
        return "/".join([*parts, check_name(name, "name")] if name else parts)

    @property
    def status(self) -> str:
        """Birth, and the last will. Retained."""
        return self.leaf("status")

    @property
    def desired(self) -> str:
        """What should run. Retained."""
        return self.leaf("desired")

    @property
    def reported(self) -> str:
        """What does run. Retained."""
        return self.leaf("reported")

    @property
    def stored(self) -> str:
        """The collector's high-water mark."""
        return self.leaf("stored")

    def stats(self, model: str) -> str:
        """Closed windows of a model."""
        return self.leaf("stats", model)

    def event(self, kind: str) -> str:
        """Events of a kind."""
        return self.leaf("event", kind)


class Topic(msgspec.Struct, frozen=True):
    """A topic taken apart."""

    site: str
    device: str
    leaf: Leaf
    name: str = ""


def parse_topic(topic: str) -> Topic:
    """Take a topic apart.

    Raises:
        TelemetryError: it is none of this contract's, or of another version of it.
    """
    parts = topic.split("/")
    if len(parts) > 1 and parts[0] == ROOT and parts[1] != VERSION:
        raise TelemetryError(
            f"topic {topic!r} belongs to version {parts[1]!r} of the telemetry contract",
            expected=VERSION,
            remedy="Update the older side: the agent there or the collector here.",
        )
    if len(parts) >= 5 and parts[0] == ROOT:
        site, device, *rest = parts[2:]
        leaf, name = ("/".join(rest), "")
        if rest[0] in NAMED_LEAVES and len(rest) == 2:
            leaf, name = rest
        plain = all(NAME.fullmatch(part) for part in parts[2:])
        if plain and leaf in get_args(Leaf) and (leaf in NAMED_LEAVES) == bool(name):
            return Topic(site, device, leaf, name)  # type: ignore[arg-type]  # checked just above
    raise TelemetryError(
        f"topic {topic!r}",
        expected=f"{ROOT}/{VERSION}/SITE/DEVICE/LEAF, LEAF one of {', '.join(get_args(Leaf))}",
    )


def every_device(leaf: Leaf) -> str:
    """The subscription that takes a leaf of all sites and devices."""
    return f"{ROOT}/{VERSION}/+/+/{leaf}" + ("/+" if leaf in NAMED_LEAVES else "")
