"""Apache Arrow, which reads every form of table here; imported when a table is read."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from edgeml.errors import UsageError


def arrow(module: str = "") -> Any:
    """``pyarrow``, or its submodule.

    Raises:
        UsageError: it is not installed.
    """
    try:
        return import_module(f"pyarrow.{module}" if module else "pyarrow")
    except ImportError as error:
        raise UsageError(
            f"Tables are read with pyarrow, which cannot be imported here: {error}",
            expected="edgeml[drift]",
            remedy="Install it: pip install 'edgeml[drift]'.",
        ) from error
