"""What runs in a user's own interpreter (``--python``): their factory and the code that gives their
samples, with their frameworks.

This folder stands alone: nothing of edgeml and nothing but the standard library, NumPy and what
their model needs is imported, and Python 3.8 reads it. :data:`BEGIN` is how an interpreter runs it:
the rest of edgeml is on no path of theirs.
"""

from __future__ import annotations

BEGIN = (
    "import sys; sys.path[:] = [sys.argv[1], *filter(None, sys.path)]; "
    "sys.dont_write_bytecode = True; from users_python.orders import main; "
    "sys.dont_write_bytecode = False; del sys.path[0]; main(int(sys.argv[2]))"
)
"""A program for ``python -c``, with the folder that this one is in and the number of a descriptor
for its answers. That folder is on the path for this import alone, and nothing is written into it;
the working directory is not on it."""


class Wrong(Exception):  # noqa: N818
    """Something that a person can mend: what was found, what was expected, what to do."""
