"""What DATA is: its forms taken apart, and samples once they are read."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal, NamedTuple

import msgspec
from numpy.typing import NDArray

from edgeml.errors import SourceError, UsageError

LABELS = "labels"
"""The name in an ``.npz`` that holds the truth, not an input."""

Array = NDArray[Any]
Kind = Literal["npz", "npy", "code", "folder"]

FORMS = (
    "FILE.npz, FILE.npy (for a model with one input), a folder of images or WAV files, or "
    "FILE.py:ITERABLE"
)


class DataSource(NamedTuple):
    """DATA, taken apart but not yet read."""

    kind: Kind
    path: Path
    attribute: str = ""
    """The name inside ``FILE.py``; empty for the other kinds."""

    def __str__(self) -> str:
        return f"{self.path}:{self.attribute}" if self.attribute else str(self.path)


class Samples(msgspec.Struct, frozen=True):
    """Samples that fit a model.

    Attributes:
        inputs: input name to array [n, ...] in the input's dtype, for every input of the model.
            They may be mapped files: go through them with :func:`edgeml.columns.blocks`.
        labels: the truth, [n] or [n, ...], or None where none was given.
        classes: what the labels count, where the data names them: label 0's name first.
        files: input name to the ``.npy`` that holds exactly that array, where there is one.
        missing: inputs with a NaN in some sample. Only those whose
            :attr:`~edgeml.bundle.manifest.Tensor.missing` is set may have one.
    """

    inputs: dict[str, Array]
    labels: Array | None = None
    classes: tuple[str, ...] = ()
    files: dict[str, Path] = {}
    missing: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(next(iter(self.inputs.values())))


def parse_source(text: str) -> DataSource:
    """Take DATA apart.

    Raises:
        UsageError: it has none of the forms.
        SourceError: there is no such file.
    """
    head, colon, attribute = text.rpartition(":")
    if colon and head.endswith(".py"):
        if not attribute.replace(".", "_").isidentifier():
            raise UsageError(f"{text!r} names no iterable", expected="FILE.py:ITERABLE")
        source = DataSource("code", Path(head), attribute)
    elif Path(text).is_dir():
        return DataSource("folder", Path(text))
    elif text.endswith(".npz"):
        source = DataSource("npz", Path(text))
    elif text.endswith(".npy"):
        source = DataSource("npy", Path(text))
    elif text.endswith(".py"):
        raise UsageError(
            f"{text!r} names a file but nothing in it",
            expected="FILE.py:ITERABLE",
            remedy="Add a colon and the name of what gives the samples.",
        )
    elif not Path(text).exists() and (not Path(text).suffix or text.endswith("/")):
        raise SourceError(f"There is no folder {text}", expected=FORMS, remedy="Check the path.")
    else:
        raise UsageError(f"{text!r} is no form of data that edgeml reads", expected=FORMS)
    if not source.path.is_file():
        raise SourceError(
            f"There is no file {source.path}", expected="samples", remedy="Check the path."
        )
    return source


def names(arrays: Iterable[str]) -> str:
    """Names as an error shows them."""
    return ", ".join(f"'{name}'" for name in arrays)
