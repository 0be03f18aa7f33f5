"""``python -m edgeml``: the same as the ``edgeml`` command."""

from __future__ import annotations

import sys

from edgeml.cli import main

if __name__ == "__main__":
    sys.exit(main())
