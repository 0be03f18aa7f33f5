"""Where benchmarks write what they measured: a section of docs/benchmarks.md between two comments.

A section is ``<!-- NAME -->``, the text, ``<!-- /NAME -->``; what stands between them is replaced
whole, and what stands outside is a person's.
"""

from __future__ import annotations

import importlib.metadata
import platform
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from edgeml import machine

PAGE = Path(__file__).parents[1] / "docs" / "benchmarks.md"


def write_section(name: str, text: str, *, page: Path = PAGE) -> None:
    """Replace a section.

    Raises:
        ValueError: the page has no such section.
    """
    whole = page.read_text()
    pattern = re.compile(f"(<!-- {re.escape(name)} -->\n).*?(<!-- /{re.escape(name)} -->)", re.S)
    replaced, count = pattern.subn(lambda found: f"{found[1]}\n{text.strip()}\n\n{found[2]}", whole)
    if count != 1:
        message = f"{page} has {count} sections <!-- {name} --> … <!-- /{name} -->, one is expected"
        raise ValueError(message)
    page.write_text(replaced)


def table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table; None is an empty cell."""
    lines = ["| " + " | ".join(columns) + " |", "| " + " | ".join("---" for _ in columns) + " |"]
    lines += ["| " + " | ".join("" if c is None else str(c) for c in row) + " |" for row in rows]
    return "\n".join(lines)


def setting(*packages: str) -> str:
    """The machine and the versions that figures were measured with, as one sentence."""
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in packages)
    return (
        f"{machine.processor()}, {machine.isa()}; Python {platform.python_version()}"
        f"{f', {versions}' if versions else ''}."
    )
