"""Reads the agent's configuration: TOML in, a :class:`~edgeml.device_agent.config.Config` out.

A key that is not known is refused, with the nearest one that is: a misspelt ``memory_mb`` would
otherwise be no limit at all.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import msgspec

from edgeml.decoding import from_plain, from_toml
from edgeml.device_agent.config import Config
from edgeml.errors import UsageError


def read_config(path: Path) -> Config:
    """Read a configuration file; relative paths in it are relative to its folder.

    Raises:
        UsageError: no such file, no TOML, an unknown key, or a value out of bounds.
    """
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise UsageError(
            f"{path} cannot be read: {error.strerror}", expected="the agent's configuration"
        ) from error
    try:
        document: Any = from_toml(raw)
    except msgspec.DecodeError as error:
        raise UsageError(f"{path} is no TOML: {error}", expected="see docs/agent.md") from error
    return _anchored(parse_config(document, str(path)), path.parent)


def parse_config(document: Mapping[str, Any], where: str) -> Config:
    """Check a document against :class:`Config`.

    Raises:
        UsageError: an unknown key, or a value out of bounds.
    """
    _refuse_unknown(document, msgspec.inspect.type_info(Config), where, "")
    try:
        return from_plain(document, Config, hook=_path)
    except msgspec.ValidationError as error:
        problem, _, place = str(error).partition(" - at ")
        key = place.strip("`").removeprefix("$.").replace("$", "") or "The top level"
        wanted = problem.removeprefix("Expected ")
        remedy = "docs/agent.md lists every key with its bounds."
        if wanted == problem:  # a sentence of its own, such as a missing field
            raise UsageError(f"{key} in {where}: {problem}", remedy=remedy) from error
        raise UsageError(
            f"{key} in {where} has a wrong value", expected=wanted, remedy=remedy
        ) from error


def _anchored(config: Config, folder: Path) -> Config:
    """With every relative path made relative to ``folder``."""
    replace = msgspec.structs.replace
    models = tuple(
        replace(
            model,
            bundle=folder / model.bundle,
            folder=tuple(
                replace(
                    entry,
                    path=folder / entry.path,
                    results=folder / entry.results if entry.results else None,
                )
                for entry in model.folder
            ),
        )
        for model in config.model
    )
    broker = config.broker
    if broker is not None:
        broker = replace(
            broker,
            password_file=folder / broker.password_file if broker.password_file else None,
            ca_file=folder / broker.ca_file if broker.ca_file else None,
        )
    state = folder / config.state if config.state else None
    token_file = folder / config.token_file if config.token_file else None
    socket = folder / config.socket if config.socket else None
    return replace(
        config, model=models, broker=broker, state=state, token_file=token_file, socket=socket
    )


def _refuse_unknown(value: object, kind: object, where: str, place: str) -> None:
    if isinstance(kind, msgspec.inspect.UnionType):
        for option in kind.types:
            if isinstance(option, msgspec.inspect.StructType):
                _refuse_unknown(value, option, where, place)
    elif isinstance(kind, msgspec.inspect.VarTupleType) and isinstance(value, list):
        for index, item in enumerate(cast("list[object]", value)):
            _refuse_unknown(item, kind.item_type, where, f"{place}[{index}]")
    elif isinstance(kind, msgspec.inspect.StructType) and isinstance(value, Mapping):
        fields = {field.encode_name: field.type for field in kind.fields}
        for key, item in cast("Mapping[str, object]", value).items():
            path = f"{place}.{key}" if place else key
            if key not in fields:
                near = difflib.get_close_matches(key, fields, n=2, cutoff=0.5)
                raise UsageError(
                    f"{where} has the unknown key '{path}'",
                    expected=f"one of {', '.join(fields)}",
                    remedy=f"Did you mean {' or '.join(near)}?" if near else "",
                )
            _refuse_unknown(item, fields[key], where, path)


def _path(kind: type[Any], value: Any) -> Path:
    if kind is Path and isinstance(value, str) and value:
        return Path(value)
    raise ValueError(f"Expected a path, got `{value!r}`")
