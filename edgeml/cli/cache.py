"""``edgeml cache``: what exports left to be taken again, and making room."""

from __future__ import annotations

import os
import re
import sys
import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgeml.cli.shared import Json, human_bytes, verb_app, write_json, write_table
from edgeml.errors import UsageError

if TYPE_CHECKING:
    from edgeml.exporter.repeat.cache import Cache, Entry

app = verb_app(no_args_is_help=True, help="Show and prune what exports left to be taken again.")

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 7 * 86_400}
_BYTES = {"": 1, "b": 1, "kb": 1e3, "mb": 1e6, "gb": 1e9, "tb": 1e12}


@app.command("list")
def list_(*, as_json: Json = False) -> None:
    """Show every entry, the most recently used first."""
    from edgeml.exporter.repeat.cache import Cache

    cache = Cache()
    rows = [_describe(entry) for entry in cache.entries()]
    total = sum(row["bytes"] for row in rows)
    if as_json:
        write_json(
            {
                "folder": cache.folder,
                "bytes": total,
                "most_bytes": cache.most_bytes,
                "entries": rows,
            }
        )
        return
    if rows:
        write_table(
            ("what", "model", "target", "size", "last used", "hits", "key"),
            [
                (
                    row["kind"],
                    row["model"],
                    row["target"],
                    human_bytes(row["bytes"]),
                    f"{human_age(row['unused_s'])} ago",
                    row["hits"],
                    row["key"][:12],
                )
                for row in rows
            ],
            right=("size", "last used", "hits"),
        )
    of = f"{human_bytes(total)} of at most {human_bytes(cache.most_bytes)}"
    sys.stdout.write(f"{len(rows)} entries in {cache.folder}, {of}\n")


@app.command()
def prune(
    *,
    older_than: Annotated[
        str | None,
        typer.Option(metavar="AGE", help="Remove what was not used for so long: 30d, 12h."),
    ] = None,
    keep: Annotated[
        str | None,
        typer.Option(metavar="SIZE", help="Remove the least recently used beyond it: 5GB, 500MB."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Remove entries by age or down to a size; without either, down to the cache's own bound."""
    from edgeml.exporter.repeat.cache import Cache

    cache = _writable(Cache())
    most = None if keep is None else parse_size(keep)
    if older_than is None and keep is None:
        most = cache.most_bytes
    freed = cache.prune(
        most_bytes=most, older_than_s=None if older_than is None else parse_age(older_than)
    )
    _tell(freed, as_json=as_json)


@app.command()
def clear(*, as_json: Json = False) -> None:
    """Remove everything in the cache."""
    from edgeml.exporter.repeat.cache import Cache

    _tell(_writable(Cache()).clear(), as_json=as_json)


def parse_age(text: str) -> float:
    """Seconds, from ``30d``, ``12h``, ``90m``, ``45s`` or ``2w``.

    Raises:
        UsageError: it is written otherwise.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smhdw])", text.strip().lower())
    if found is None:
        raise UsageError(f"{text!r} is no age", expected="a number and s, m, h, d or w: 30d, 12h")
    return float(found[1]) * _SECONDS[found[2]]


def parse_size(text: str) -> int:
    """Bytes, from ``5GB``, ``500 MB`` or ``1000`` (powers of 1000).

    Raises:
        UsageError: it is written otherwise.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kmgt]?b?)", text.strip().lower())
    if found is None or found[2] not in _BYTES:
        raise UsageError(f"{text!r} is no size", expected="a number and kB, MB, GB or TB: 5GB")
    return int(float(found[1]) * _BYTES[found[2]])


def human_age(seconds: float) -> str:
    """Write a time span as people read it: ``3 d``, ``5 h``, ``12 min``, ``8 s``."""
    for unit, size in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(seconds, 0):.0f} s"


def _writable(cache: Cache) -> Cache:
    if cache.folder.exists() and not os.access(cache.folder, os.W_OK):
        raise UsageError(
            f"Nothing can be removed from {cache.folder}",
            expected="a folder that may be written",
            remedy="EDGEML_CACHE names another one.",
        )
    return cache


def _describe(entry: Entry) -> dict[str, Any]:
    return {
        "kind": entry.record.kind,
        "model": entry.record.model,
        "target": entry.record.target,
        "bytes": entry.record.bytes,
        "unused_s": round(time.time() - entry.used, 1),
        "hits": entry.hits,
        "key": entry.key,
        "folder": entry.folder,
    }


def _tell(freed: int, *, as_json: bool) -> None:
    if as_json:
        write_json({"freed_bytes": freed})
    else:
        sys.stdout.write(f"Freed {human_bytes(freed)}\n")
