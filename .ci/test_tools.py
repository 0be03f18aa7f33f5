"""Puts pytest and its companions into a toolchain: ``test_tools.py PYTHON CONSTRAINTS``.

Quick and silent where they already stand in it.
"""

from __future__ import annotations

import subprocess
import sys

TOOLS = {"hypothesis": "hypothesis", "pytest": "pytest", "xdist": "pytest-xdist==3.8.0"}
"""Module to what pip is asked for."""


def main(python: str, constraints: str) -> int:
    """Returns pip's exit status."""
    probe = (
        "import sys; from importlib.util import find_spec; "
        "sys.exit(any(find_spec(name) is None for name in sys.argv[1:]))"
    )
    if subprocess.run([python, "-c", probe, *TOOLS], check=False).returncode == 0:
        return 0
    command = [sys.executable, "-m", "pip", "--python", python]  # it may have none of its own
    command += ["install", "--quiet", "--constraint", constraints]
    return subprocess.run([*command, *TOOLS.values()], check=False).returncode


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
