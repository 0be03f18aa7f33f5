"""``edgeml toolchain``: list, install and remove converters' environments."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Generator
from typing import Annotated, Any

import typer

from edgeml.cli.ending import unwinding
from edgeml.cli.shared import Json, console, human_bytes, verb_app, write_json, write_table

app = verb_app(no_args_is_help=True, help="List, install and remove converters' environments.")

Name = Annotated[str, typer.Argument(metavar="NAME", help="Which toolchain, e.g. export.")]


@app.command("list")
def list_(*, as_json: Json = False) -> None:
    """Show every toolchain: what it holds, how large it is and what state it is in."""
    from edgeml.toolchain.spec import TOOLCHAINS

    rows = [describe(name) for name in TOOLCHAINS]
    if as_json:
        write_json({"toolchains": rows})
        return
    write_table(
        ("name", "state", "size", "Python", "folder", "holds"),
        [
            (
                row["name"],
                f"{row['state']}: {row['why']}" if row["why"] else row["state"],
                human_bytes(row["size_bytes"])
                + ("" if row["state"] != "absent" else " when installed"),
                row["python"],
                row["folder"],
                row["holds"],
            )
            for row in rows
        ],
        right=("size",),
    )


@app.command()
def install(
    name: Name,
    *,
    afresh: Annotated[
        bool, typer.Option("--afresh", help="Make it again even where it is as wanted.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Install a toolchain, or bring it up to date."""
    from edgeml.toolchain import install as installing
    from edgeml.toolchain.spec import toolchain

    spec = toolchain(name)
    with unwinding(), showing() as (say, progress):
        found = installing.install(spec, say=say, progress=progress, afresh=afresh)
    if as_json:
        write_json(describe(name))
    else:
        size = human_bytes(found.record.size_bytes) if found.record else ""
        sys.stdout.write(f"{name}: {found.state} in {found.folder} ({size})\n")


@app.command()
def remove(name: Name, *, as_json: Json = False) -> None:
    """Remove a toolchain and free its space."""
    from edgeml.toolchain import install as installing
    from edgeml.toolchain.spec import toolchain

    with showing() as (say, _):
        removed = installing.remove(toolchain(name), say=say)
    if as_json:
        write_json({"name": name, "removed": removed})
    else:
        sys.stdout.write(f"{name}: {'removed' if removed else 'was not installed'}\n")


def describe(name: str) -> dict[str, Any]:
    """A toolchain as a row of ``--json``."""
    from edgeml.toolchain import store
    from edgeml.toolchain.spec import toolchain

    spec = toolchain(name)
    found = store.find(spec)
    return {
        "name": spec.name,
        "state": found.state,
        "why": found.why,
        "holds": spec.holds,
        "size_bytes": found.record.size_bytes if found.record else spec.size_bytes,
        "python": found.record.python if found.record else None,
        "folder": str(found.folder),
        "created": found.record.created if found.record else None,
        "in_place": store.serves_in_place(spec),
    }


@contextlib.contextmanager
def showing() -> Generator[tuple[Callable[[str], None], Callable[[str], None]]]:
    """Show an installation on standard error: sentences, and on a terminal what pip is at."""
    err = console(stderr=True)
    if not err.is_terminal:
        yield (lambda text: err.print(text, soft_wrap=True, markup=False)), (lambda _: None)
        return
    with err.status("") as status:
        status.stop()

        def progress(text: str) -> None:
            status.start()
            status.update(f"[dim]{text}[/dim]")

        yield (lambda text: err.print(text, markup=False)), progress
