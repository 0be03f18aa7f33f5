"""``python -m edgeml.exporter.sources.readable FILE.pt2``: whether the torch here reads a program
that another one wrote. Prints why not; nothing where it does.
"""

from __future__ import annotations

import sys
from pathlib import Path

from edgeml.errors import EdgemlError
from edgeml.exporter.child import first_line


def main(path: Path) -> str:
    """Why a ``.pt2`` cannot be read here; empty where it can."""
    from edgeml.exporter.sources.pt2 import load_program

    try:
        load_program(path)
    except EdgemlError as error:
        return first_line(error.__cause__ or error)
    return ""


if __name__ == "__main__":
    sys.stdout.write(main(Path(sys.argv[1])))
