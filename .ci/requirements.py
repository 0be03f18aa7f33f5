"""Prints what edgeml needs, one requirement a line: ``requirements.py EXTRA,EXTRA``.

For environments into which pip cannot install a checkout: of another platform.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

import tomllib


def main(extras: str) -> None:
    """Markers are left out with what they are on: they speak of other Pythons."""
    project = tomllib.loads(Path("pyproject.toml").read_text())["project"]
    wanted = list(project["dependencies"])
    for extra in extras.split(","):
        wanted += project["optional-dependencies"][extra]
    for requirement in wanted:
        if ";" not in requirement:
            print(re.sub(r"\s", "", requirement))


if __name__ == "__main__":
    main(sys.argv[1])
