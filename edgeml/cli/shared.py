"""What the verbs share: how an app is made, and how JSON and tables are written."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.console import Console

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of a table.")]
"""The ``--json`` option, the same for each verb that lists something."""

PIPE_COLUMNS = 160
"""Width of a table that goes to a file or a pipe, where there is no terminal to ask."""


def verb_app(**settings: Any) -> typer.Typer:
    """Make a verb's app: plain help and ``-h``, as everywhere on this command line.

    A verb of one command needs no callback; one with verbs of its own (``toolchain list``) passes
    ``help=`` and, while it has only one, adds an empty callback to stay a group.
    """
    return typer.Typer(
        add_completion=False,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
        no_args_is_help=bool(settings.pop("no_args_is_help", False)),
        **settings,
    )


def write_json(document: object) -> None:
    """Print ``document`` (msgspec structs, dicts, paths …) as indented JSON on standard output."""
    import msgspec

    text = msgspec.json.format(msgspec.json.encode(document, enc_hook=str), indent=2)
    sys.stdout.write(text.decode() + "\n")


def console(*, stderr: bool = False) -> Console:
    """Return a rich console; wide enough for tables where the output is no terminal."""
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() else PIPE_COLUMNS
    return Console(file=stream, width=width, highlight=False, soft_wrap=False)


def write_table(
    columns: Sequence[str],
    rows: Iterable[Sequence[object]],
    *,
    title: str = "",
    right: Sequence[str] = (),
    empty: str = "",
) -> None:
    """Print a table on standard output.

    Args:
        columns: the headings.
        rows: cells a row, shown with ``str``; ``None`` shows as a dash.
        title: a line above.
        right: headings of the columns that hold numbers and align to the right.
        empty: what to say in place of a table without rows.
    """
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title or None, title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        table.add_column(column, justify="right" if column in right else "left", overflow="fold")
    for row in rows:
        # Text, not str: a tensor's shape "[1, 3]" would read as markup.
        table.add_row(*(Text("–" if cell is None else str(cell)) for cell in row))
    if empty and not table.rows:
        sys.stdout.write(f"{empty}\n")
        return
    console().print(table)


def human_bytes(count: int | float) -> str:
    """Write a number of bytes as people read it: ``4.4 GB``, ``512 B`` (powers of 1000)."""
    size = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" or size >= 100 else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"
