"""Programs of system packages that tests use."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

EXECUTABLES = {
    "mosquitto": ("mosquitto",),
    "chromium": ("chromium", "chromium-browser", "google-chrome"),
    "chromium-driver": ("chromedriver",),
}
"""Debian package → names of its program, here and on other systems."""

SEARCH_PATH = os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/sbin", "/usr/local/sbin"))


def find_program(package: str) -> Path:
    """A system package's program. Without it the test is skipped; with ``CI=true`` it fails."""
    for name in EXECUTABLES[package]:
        path = shutil.which(name, path=SEARCH_PATH)
        if path is not None:
            return Path(path)
    message = f"needs the system package {package}: apt-get install {package}"
    if os.environ.get("CI", "").lower() in ("1", "true"):
        pytest.fail(f"{message} (CI=true, so this is no skip)", pytrace=False)
    pytest.skip(message)
