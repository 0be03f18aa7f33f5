"""The ``edgeml`` command: one module a verb, and a frame that loads a verb only when it runs.

A verb is a module with ``app``, a :class:`typer.Typer`; :mod:`edgeml.cli.verbs` lists them by
dotted name. A verb raises :class:`edgeml.errors.EdgemlError` for what a person can act on and
``typer.Exit(1)`` for a status; the frame prints and exits.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status (0, 1, 2 for wrong usage, 130 for Ctrl-C).

    Args:
        argv: the arguments after the program's name; ``sys.argv[1:]`` by default.
    """
    # A Ctrl-C while modules load is a Ctrl-C like any other.
    arguments = sys.argv[1:] if argv is None else argv
    try:
        from edgeml.cli.ahead import ahead

        with ahead(arguments):
            from edgeml.cli.frame import run

            return run(arguments)
    except KeyboardInterrupt:
        return 130
