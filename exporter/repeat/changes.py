"""What is not as it was, in words: since a bundle was locked, or since an export was kept."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, cast

import msgspec

from edgeml.exporter.repeat.keys import Basis, Environment
from edgeml.exporter.repeat.lock import Lock

_MOST = 4
"""So many versions are told in a single line, and how many more there are."""

_CALLED = {
    "evaluation": "evaluate",
    "preprocessing": "preprocess",
    "accuracy_drop": "max-accuracy-drop",
    "latency_ms": "max-latency",
    "size_bytes": "max-size",
}
"""Fields of a request and of its limits, as its author wrote them, where that is otherwise."""


_HASH = re.compile(r"\b([0-9a-f]{8})[0-9a-f]{56}\b")
"""In the paths of what Python gave from memory."""


def since_locked(then: Lock, now: Lock) -> dict[str, str]:
    """What explains that a bundle came out otherwise.

    Returns:
        By what it is, each in words; empty where all is as it was.
    """
    found: dict[str, str] = {}
    for name in _unlike(then.source, now.source):
        found[name] = f"{then.request.get(name)} is not the same file"
    read = _unlike(then.dependencies, now.dependencies)
    if read:
        found["dependencies"] = f"files that the code reads: {', '.join(read)}"
    for name in ("calibration", "evaluation"):
        if getattr(then, name) != getattr(now, name):
            found[f"{name} samples"] = f"the {name} samples are others"
    if theirs := _versions(then.theirs, now.theirs):
        found["their tools"] = f"versions beside {then.request.get('python')}: {theirs}"
    for target in _unlike(then.bridges, now.bridges):
        other = _versions(then.bridges.get(target, {}), now.bridges.get(target, {}))
        found[f"tools on the way to {target}"] = f"versions on the way to {target}: {other}"
    return found | _of_environment(then.here, now.here)


def since_kept(then: Basis, now: Basis) -> tuple[str, ...]:
    """What two exports differ in, each in words; empty where their keys are the same."""
    were, are = _options(then), _options(now)
    found = [
        f"{name} ({_brief(were.get(name))} then, {_brief(are.get(name))} now)"
        for name in _unlike(were, are)
    ]
    found += [
        f"what {are[_CALLED.get(field, field)]} holds"
        for field in _unlike(then.given, now.given)
        if then.request.get(field) == now.request.get(field)
    ]
    if then.folder and now.folder and then.folder != now.folder:  # else there was no code
        found.append(f"the folder ({then.folder} then, {now.folder} now)")
    theirs = _versions(then.theirs, now.theirs, most=_MOST)
    if theirs and were["python"] == are["python"]:
        found.append(f"versions beside {are['python']}: {theirs}")
    return (*found, *_of_environment(then.here, now.here, most=_MOST).values())


def _options(basis: Basis) -> dict[str, Any]:
    """What was asked for, by name."""
    limits = cast("dict[str, Any]", basis.request.get("limits") or {})
    plain = {name: value for name, value in basis.request.items() if name != "limits"}
    report, minimize = basis.beside
    return {
        **{_CALLED.get(name, name): value for name, value in plain.items()},
        **{"max-memory" if n == "memory_mb" else _CALLED[n]: v for n, v in limits.items()},
        "report": report,
        "minimize": minimize,
    }


def _of_environment(
    then: Environment, now: Environment, *, most: int | None = None
) -> dict[str, str]:
    found: dict[str, str] = {}
    python = {"python": then.python}, {"python": now.python}
    if tools := _versions(python[0] | then.tools, python[1] | now.tools, most=most):
        found["tools"] = f"versions: {tools}"
    if then.edgeml != now.edgeml:
        found["edgeml"] = "edgeml's own code"
    here = (then.machine, then.isa, then.platform), (now.machine, now.isa, now.platform)
    if here[0] != here[1]:
        found["machine"] = f"the machine: {', '.join(here[0])} then, {', '.join(here[1])} now"
    return found


def _versions(then: Mapping[str, str], now: Mapping[str, str], *, most: int | None = None) -> str:
    unlike = _unlike(then, now)
    told = [
        f"{name} {then.get(name, 'absent')} then, {now.get(name, 'absent')} now"
        for name in unlike[:most]
    ]
    more = len(unlike) - len(told)
    return ", ".join([*told, f"and {more} more"] if more else told)


def _unlike(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    return [name for name in sorted(then.keys() | now.keys()) if then.get(name) != now.get(name)]


def _brief(value: object) -> str:
    if value is None or value in ("", [], {}, ()):
        return "none"
    if isinstance(value, str):
        return _HASH.sub(lambda found: f"{found[1]}…", value)
    if isinstance(value, list | tuple):
        return " ".join(map(str, cast("list[object]", value)))
    return msgspec.json.encode(value).decode()
