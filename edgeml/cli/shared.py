"""What the verbs share: how an app is made, and how JSON and tables are written."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

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
    spare: Sequence[str] = (),
    empty: str = "",
) -> None:
    """Print a table on standard output, as wide as the terminal.

    Where that is too narrow, cells are folded between words, and numbers not at all: rather spare
    columns are left out, which a line below says.

    Args:
        columns: the headings.
        rows: cells a row, shown with ``str``; ``None`` shows as a dash.
        title: a line above.
        right: headings of the columns that hold numbers and align to the right.
        spare: headings of the columns to do without, the first one first.
        empty: what to say in place of a table without rows.
    """
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    # Text, not str: a tensor's shape "[1, 3]" would read as markup.
    cells = [[Text("–" if cell is None else str(cell)) for cell in row] for row in rows]
    if empty and not cells:
        sys.stdout.write(f"{empty}\n")
        return
    screen = console()
    sizes = {
        heading: _sizes(heading, [row[at] for row in cells], whole=heading in right)
        for at, heading in enumerate(columns)
    }
    shown, left_out, close = list(columns), list[str](), False
    while (widths := _widths([sizes[each] for each in shown], screen.width, close=close)) is None:
        dispensable = next((each for each in spare if each in shown), None)
        if not close:
            close = True
        elif dispensable is not None:
            shown.remove(dispensable)
            left_out.append(dispensable)
        else:
            break
    table = Table(
        box=SIMPLE_HEAD,
        pad_edge=False,
        show_edge=not close,
        padding=(0, 1, 0, 0) if close else (0, 1),
    )
    for at, heading in enumerate(shown):
        table.add_column(
            heading,
            justify="right" if heading in right else "left",
            overflow="fold",
            width=widths[at] if widths else None,
        )
    for row in cells:
        table.add_row(*(row[columns.index(heading)] for heading in shown))
    if title:  # by itself: Rich would fold it to the width of a narrow table
        screen.print(Text(title, style="table.title"))
    screen.print(table)
    if left_out:
        sys.stdout.write(f"Left out, since the terminal is narrow: {', '.join(left_out)}\n")


def _sizes(heading: str, cells: Iterable[Text], *, whole: bool) -> tuple[int, int]:
    """Of a column: the least width that breaks no word of it, or no cell, and that of all of it."""
    from rich.cells import cell_len

    texts = [cell.plain for cell in cells]
    parts = [heading.split(), *([text] if whole else text.split() for text in texts)]
    least = max((cell_len(part) for each in parts for part in each), default=0)
    return least, max(cell_len(line) for text in (heading, *texts) for line in text.split("\n"))


def _widths(sizes: Sequence[tuple[int, int]], screen: int, *, close: bool) -> list[int] | None:
    """How wide columns are to be in that many places, the widest made narrower first; None where
    that breaks something. Three spaces stand between two of them and one at either edge; or two
    and none, where they stand close."""
    widths = [most for _, most in sizes]
    room = screen - (2 if close else 3) * (len(sizes) - 1) - (0 if close else 2)
    while sum(widths) > room:
        loose = [at for at, (least, _) in enumerate(sizes) if widths[at] > least]
        if not loose:
            return None
        widths[max(loose, key=widths.__getitem__)] -= 1
    return widths


def human_bytes(count: int | float) -> str:
    """Write a number of bytes as people read it: ``4.4 GB``, ``512 B`` (powers of 1000)."""
    size = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" or size >= 100 else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"
