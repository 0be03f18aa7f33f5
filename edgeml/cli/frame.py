"""The frame of the command line: lazy verbs, global options, and how errors are shown.

Owns the exit statuses: 0 done, 1 not done, 2 wrong usage, 130 interrupted, 143 terminated.
"""

from __future__ import annotations

import os
import sys
import textwrap
from collections.abc import Sequence
from importlib import import_module
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from edgeml import __version__
from edgeml.cli.ending import Terminated
from edgeml.cli.verbs import VERBS
from edgeml.errors import EdgemlError

INTERRUPTED = 130
"""128 + SIGINT, what shells report for a program that Ctrl-C ended."""

TERMINATED = 143
"""Likewise with SIGTERM."""


class LazyGroup(TyperGroup):
    """A group whose commands are rows of :data:`VERBS`, imported when one is asked for."""

    # click's own types are private to typer since 0.29, hence Any.
    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002
        return list(VERBS)

    def get_command(self, ctx: Any, cmd_name: str) -> TyperCommand | TyperGroup | None:  # noqa: ARG002
        verb = VERBS.get(cmd_name)
        if verb is None:
            return None
        command: Any = typer.main.get_command(import_module(verb.module).app)
        command.name = verb.name
        return command

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        # typer's "did you mean" looks at the names it holds, and this group holds none.
        self.commands = dict.fromkeys(VERBS)  # type: ignore[assignment]
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: Any, formatter: Any) -> None:  # noqa: ARG002
        with formatter.section("Commands"):
            formatter.write_dl([(verb.name, verb.summary) for verb in VERBS.values()])


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"edgeml {__version__}")
        raise typer.Exit


app = typer.Typer(
    cls=LazyGroup,
    name="edgeml",
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def edgeml(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version."),
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", help="Show the trace of an error (anywhere on the line).")
    ] = False,
) -> None:
    """Run a trained model within budget on a fleet of devices, and know when their world drifts."""


def run(argv: Sequence[str]) -> int:
    """Run the command line; see :func:`edgeml.cli.main`."""
    arguments, debug = _take_debug(argv)
    try:
        # Any other mode would print and exit by itself, in typer's words.
        status: object = app(arguments, prog_name="edgeml", standalone_mode=False)
        sys.stdout.flush()
    except EdgemlError as error:
        return _fail(str(error), error.exit_code, error if debug else None)
    except (KeyboardInterrupt, Terminated) as ended:
        return TERMINATED if isinstance(ended, Terminated) else INTERRUPTED
    except BrokenPipeError:
        return _reader_has_gone()
    except Exception as error:
        shown = getattr(error, "format_message", None)
        if shown is not None:  # typer's own: an option or an argument was given wrongly
            return _wrong_usage(error, shown())
        if debug:
            raise
        return _fail(
            f"edgeml met a fault of its own ({type(error).__name__}: {error}). "
            "The same command with --debug shows where; please report it with that.",
            1,
        )
    return status if isinstance(status, int) else 0


def _take_debug(argv: Sequence[str]) -> tuple[list[str], bool]:
    """Take ``--debug`` off the line, wherever it stands before a ``--``."""
    arguments = list(argv)
    end = arguments.index("--") if "--" in arguments else len(arguments)
    head = [argument for argument in arguments[:end] if argument != "--debug"]
    return head + arguments[end:], len(head) < end


def _wrong_usage(error: Any, message: str) -> int:
    context = getattr(error, "ctx", None)
    if type(error).__name__ == "NoArgsIsHelpError":
        sys.stderr.write(message + "\n")
        return 2
    hint = f"See `{context.command_path} --help`." if context is not None else ""
    found = message.replace("\n\t", " ").rstrip(".")
    found += "" if found.endswith("?") else "."
    return _fail(f"{found} {hint}".rstrip(), getattr(error, "exit_code", 2))


def _fail(message: str, status: int, error: BaseException | None = None) -> int:
    """Print one paragraph on standard error, after the trace where one is wanted."""
    if error is not None:
        import traceback

        traceback.print_exception(error)
    columns = 100
    if sys.stderr.isatty():
        columns = os.get_terminal_size(sys.stderr.fileno()).columns
    text = f"edgeml: {message}"
    if sys.stderr.isatty():  # a log or a pipe gets the paragraph as one line
        text = textwrap.fill(text, columns, break_long_words=False, break_on_hyphens=False)
    sys.stderr.write(text + "\n")
    return status


def _reader_has_gone() -> int:
    """Leave quietly when whoever read our output (``| head``) has seen enough."""
    # Python flushes standard output once more at exit, which would complain.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 1
