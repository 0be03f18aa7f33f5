"""Devices by name: what to make for each, what it has, and what a model may take of it.

A profile is a TOML file beside this one. :func:`resolve` is how the words after ``-t``, targets and
devices mixed, become targets.
"""

from __future__ import annotations

import difflib
import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

from edgeml.bundle.manifest import Budgets
from edgeml.decoding import from_toml
from edgeml.errors import UsageError
from edgeml.targets.registry import TARGETS

_FOLDER = Path(__file__).parent


class System(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What runs on a device: versions that belong together, as major.minor."""

    name: str
    python: str
    """The system's own."""
    jetpack: str = ""
    cuda: str = ""
    tensorrt: str = ""


class Profile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A device, or a family of devices that are alike to a model."""

    title: str
    targets: tuple[str, ...]
    """To be exported for, the best first."""
    machine: str
    """As ``platform.machine`` calls it."""
    processor: str
    instructions: tuple[str, ...]
    """Instruction sets that matter to inference and that all of them have, as ``/proc/cpuinfo``
    calls them."""
    memory_gb: tuple[int, ...]
    """What it is sold with, the least first."""
    gpu: str = ""
    systems: tuple[System, ...] = ()
    budgets: Budgets = Budgets()
    """Defaults of ours, where the user names none: a frame of a camera (33 ms at 30 a second,
    100 ms on the slowest), and a quarter of the least memory or less."""


class Resolved(NamedTuple):
    """What the words after ``-t`` mean."""

    targets: tuple[str, ...]
    devices: tuple[str, ...]
    """Those of the words that are devices."""
    budgets: Budgets
    """The tightest of the devices' defaults; empty where there is no device."""


@functools.lru_cache(maxsize=1)
def profiles() -> Mapping[str, Profile]:
    """All profiles by name."""
    found: dict[str, Profile] = {}
    for path in sorted(_FOLDER.glob("*.toml")):
        found[path.stem] = from_toml(path.read_bytes(), Profile)
    return found


def names() -> tuple[str, ...]:
    """The devices' names. Reads no profile."""
    return tuple(sorted(path.stem for path in _FOLDER.glob("*.toml")))


def profile(name: str) -> Profile:
    """The profile of a device.

    Raises:
        UsageError: there is no such device; near matches are named.
    """
    found = profiles().get(name)
    if found is not None:
        return found
    raise UsageError(
        f"There is no device {name!r}",
        expected=f"one of {', '.join(names())}",
        remedy=_hint(name, names(), "See `edgeml devices`."),
    )


def resolve(words: Sequence[str]) -> Resolved:
    """Targets and devices, mixed, as targets.

    Args:
        words: names of either; an order of targets is kept, and none comes twice.

    Raises:
        UsageError: a word is neither; near matches are named.
    """
    targets: list[str] = []
    devices: list[str] = []
    known = names()
    for word in words:
        if word in TARGETS:
            targets.append(word)
        elif word in known:
            devices.append(word)
            targets += profile(word).targets
        else:
            raise UsageError(
                f"There is no target or device {word!r}",
                expected=f"targets ({', '.join(TARGETS)}) or devices ({', '.join(known)})",
                remedy=_hint(word, [*TARGETS, *known], "See `edgeml targets`, `edgeml devices`."),
            )
    budgets = [profile(name).budgets for name in devices]
    return Resolved(
        tuple(dict.fromkeys(targets)),
        tuple(dict.fromkeys(devices)),
        Budgets(
            deadline_ms=_tightest([each.deadline_ms for each in budgets]),
            memory_mb=_tightest([each.memory_mb for each in budgets]),
        ),
    )


def _tightest(values: Sequence[float | None]) -> float | None:
    return min((value for value in values if value is not None), default=None)


def _hint(word: str, known: Sequence[str], otherwise: str) -> str:
    text = word.lower().replace("_", "-").replace(" ", "-")
    # Half a name is the likeliest slip: "orin-nano" is nearer to jetson-orin-nano than to orin-nx.
    parts = [name for name in known if text in name or name in text]
    near = parts[:3] or difflib.get_close_matches(text, known, n=2, cutoff=0.5)
    return f"Did you mean {' or '.join(near)}?" if near else otherwise
