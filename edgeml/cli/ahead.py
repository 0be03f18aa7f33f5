"""What a verb will need of another process, begun while its command line is still being read.

To read one takes .2 s, most of it to import what reads it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Sequence


@contextlib.contextmanager
def ahead(arguments: Sequence[str]) -> Generator[None]:
    """Have the exporter begin with its imports, where it is what is called for.

    Args:
        arguments: the command line, as it was typed.
    """
    verb, *words = arguments or ("",)
    if verb != "export" or not {"-h", "--help"}.isdisjoint(words):
        yield
        return
    from edgeml.toolchain import hop
    from edgeml.toolchain.spec import toolchain

    with hop.ahead(toolchain("export"), "edgeml.exporter", words):
        yield
