"""Reading a declaration, and refusing what cannot be done before anything is converted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from edgeml.decoding import from_plain, from_toml
from edgeml.errors import SourceError
from edgeml.exporter.preprocessing.declaration import Declaration, Input
from edgeml.exporter.preprocessing.program import compile_input


def load(path: Path) -> Declaration:
    """Read a declaration.

    Raises:
        SourceError: there is no such file, or it is no declaration.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise SourceError(
            f"{path} cannot be read: {error.strerror or error}",
            expected="a TOML file that declares preprocessing",
            remedy="Check the path after --preprocess.",
        ) from error
    try:
        inputs = from_plain(_nothing(from_toml(data)), dict[str, Input])
    except (msgspec.DecodeError, ValueError) as error:
        raise SourceError(
            f"{path} is no declaration of preprocessing: {error}",
            expected="a table for each input of the model, with kind and steps",
            remedy="docs/preprocessing.md has examples.",
        ) from error
    if not inputs:
        raise SourceError(f"{path} declares nothing", expected="a table an input of the model")
    for name, each in inputs.items():
        try:
            compile_input(each)
        except ValueError as error:  # noqa: PERF203 - a few inputs
            raise SourceError(
                f"{path} declares for '{name}' what cannot be done: {error}",
                expected="steps that follow from one another",
                remedy="docs/preprocessing.md has examples.",
            ) from error
    return Declaration(inputs, path)


def _nothing(value: Any) -> Any:
    """TOML has no null: the word ``none`` stands for it."""
    if isinstance(value, dict):
        return {key: _nothing(each) for key, each in value.items()}  # pyright: ignore
    if isinstance(value, list):
        return [_nothing(each) for each in value]  # pyright: ignore
    return None if value == "none" else value
