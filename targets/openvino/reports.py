"""OpenVINO reports nothing to its makers from here."""

from __future__ import annotations

import sys


def withhold() -> None:
    """Have OpenVINO, its converter and NNCF do without the package by which they report their
    imports and their use over the internet, from a fork, wherever it can be imported. Before any of
    them is."""
    sys.modules.setdefault("openvino_telemetry", None)  # pyright: ignore[reportArgumentType]
