"""A folder of images or of WAV files as the samples of a model's single raw input.

Files are taken in the order of their paths. Labels are the sub-folder's number among the sorted
names of all sub-folders, or stand in ``labels.csv`` (columns ``file`` and ``label``) in the folder
itself, which wins; a flat folder without one has none.

What a file becomes is declared (the step ``image`` or ``audio`` in ``Manifest.inside``). Without a
declaration it is what the file holds, and a model that takes anything else is refused: how pixels
and samples are scaled is never guessed.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from edgeml.bundle.manifest import Step, Tensor
from edgeml.columns import ColumnWriter, load
from edgeml.data import pictures, recordings
from edgeml.data.samples import Array, Samples
from edgeml.errors import SourceError

TABLE = "labels.csv"


class Folder(NamedTuple):
    """A folder, looked through."""

    path: Path
    kind: str
    """``image`` or ``audio``."""
    files: tuple[Path, ...]
    labels: Array | None
    """int64 [files]."""
    classes: tuple[str, ...]
    """Names of the labels; empty where they are numbers."""


def look(path: Path) -> Folder:
    """Look a folder through, without opening its files.

    Raises:
        SourceError: it holds neither images nor recordings, or both; files lie beside class
            folders; ``labels.csv`` is no table of theirs.
    """
    found = sorted(
        (each for each in path.rglob("*") if each.is_file() and not _hidden(each, path)),
        key=lambda each: each.relative_to(path).as_posix(),
    )
    images = [each for each in found if each.suffix.lower() in pictures.SUFFIXES]
    waves = [each for each in found if each.suffix.lower() in recordings.SUFFIXES]
    if bool(images) == bool(waves):
        raise SourceError(
            f"The folder {path} holds {len(images)} images and {len(waves)} WAV files",
            expected=f"either images ({', '.join(pictures.SUFFIXES)}) or WAV files, directly or in "
            "a folder a class",
        )
    files = tuple(images or waves)
    table = path / TABLE
    if table.is_file():
        labels, classes = _from_table(table, [each.relative_to(path).as_posix() for each in files])
    else:
        labels, classes = _from_folders(path, files)
    return Folder(path, "image" if images else "audio", files, labels, classes)


def read_folder(
    path: Path, inputs: Sequence[Tensor], folder: Path, *, inside: Sequence[Step] = ()
) -> Samples:
    """Read a folder's files into ``folder``, one after another.

    Args:
        path: of the folder.
        inputs: the model's; there must be one.
        folder: takes ``0.npy``.
        inside: what the artifacts do themselves, with what stands before it.

    Raises:
        SourceError: a file is damaged, or does not fit the input.
    """
    found = look(path)
    if len(inputs) != 1:
        raise SourceError(
            f"{path} is a folder of one kind of file, and the model has {len(inputs)} inputs",
            expected=f"an .npz with {', '.join(repr(tensor.name) for tensor in inputs)}",
        )
    tensor = inputs[0]
    reader = _reader(found, tensor, inside)
    folder.mkdir(parents=True, exist_ok=True)
    written = folder / "0.npy"
    with ColumnWriter(written) as writer:
        for file in found.files:
            writer.append(reader(file)[np.newaxis])
    arrays, files = {tensor.name: load(written)}, {tensor.name: written}
    return Samples(arrays, found.labels, found.classes, files)


def first_sample(path: Path) -> Array:
    """What the first file holds, for a model whose shapes are not known yet.

    Raises:
        SourceError: see :func:`read_folder`.
    """
    found = look(path)
    first = found.files[0]
    return pictures.pixels(first) if found.kind == "image" else recordings.wave(first)[1]


def _reader(found: Folder, tensor: Tensor, inside: Sequence[Step]) -> Callable[[Path], Array]:
    declared: dict[str, Any] | None = next(
        (
            step.parameters
            for step in inside
            if step.name in {"image", "audio"} and step.parameters.get("input") == tensor.name
        ),
        None,
    )
    kinds = {step.name for step in inside if step.parameters.get("input") == tensor.name}
    if declared is not None and found.kind not in kinds:
        raise SourceError(
            f"{found.path} holds {found.kind} files",
            expected=f"{'audio' if 'audio' in kinds else 'image'} files, as declared for "
            f"'{tensor.name}'",
        )
    if found.kind == "image":
        return pictures.reader(tensor, declared)
    return recordings.reader(tensor, declared)


def _hidden(file: Path, folder: Path) -> bool:
    return any(part.startswith(".") for part in file.relative_to(folder).parts)


def _from_folders(path: Path, files: tuple[Path, ...]) -> tuple[Array | None, tuple[str, ...]]:
    parts = [file.relative_to(path).parts for file in files]
    loose = [part[0] for part in parts if len(part) == 1]
    if len(loose) == len(files):
        return None, ()
    if loose:
        raise SourceError(
            f"In {path} files such as {loose[0]} lie beside folders with files",
            expected="all of them in it directly, or each in a folder named after its class",
            remedy=f"Move them, or list every file in {path / TABLE} (columns file, label).",
        )
    classes = tuple(sorted({part[0] for part in parts}))
    place = {name: index for index, name in enumerate(classes)}
    return np.array([place[part[0]] for part in parts], dtype=np.int64), classes


def _from_table(table: Path, files: list[str]) -> tuple[Array, tuple[str, ...]]:
    with table.open(newline="", encoding="utf-8-sig") as stream:
        reader = csv.DictReader(stream)
        if not {"file", "label"} <= set(reader.fieldnames or ()):
            raise SourceError(
                f"{table} has the columns {', '.join(reader.fieldnames or ()) or 'of no header'}",
                expected="a header with the columns file and label",
            )
        labels = {row["file"]: (row["label"] or "").strip() for row in reader}
    missing = [file for file in files if not labels.get(file)]
    if missing:
        raise SourceError(
            f"{table} has no label for {missing[0]}"
            + (f" and {len(missing) - 1} others" if len(missing) > 1 else ""),
            expected="a row for every file, by its path in the folder",
        )
    texts = [labels[file] for file in files]
    if all(text.isdecimal() for text in texts):
        return np.array([int(text) for text in texts], dtype=np.int64), ()
    classes = tuple(sorted(set(texts)))
    return np.array([classes.index(text) for text in texts], dtype=np.int64), classes
