"""Importing frameworks late and without their types."""

from __future__ import annotations

import importlib
from typing import Any


def framework(name: str) -> Any:
    """Imports a framework or a part of one, as late as possible and without its types.

    None of them has types of use, and none is installed where this code is checked.
    """
    return importlib.import_module(name)
