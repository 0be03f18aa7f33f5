"""Samples in NumPy's files: an ``.npy`` is mapped where it lies, an archive unpacked first."""

from __future__ import annotations

import shutil
import zipfile
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgeml.bundle.manifest import Step, Tensor
from edgeml.columns import load, room
from edgeml.data import folders
from edgeml.data.checks import check_samples
from edgeml.data.samples import FORMS, LABELS, Array, DataSource, Samples, names
from edgeml.errors import SourceError, UsageError


def read_samples(
    source: DataSource,
    inputs: Sequence[Tensor],
    folder: Path,
    *,
    inside: Sequence[Step] = (),
    unpacked: Callable[[], dict[str, Path]] | None = None,
) -> Samples:
    """Read and check samples from a file or a folder.

    Args:
        source: DATA.
        inputs: the model's.
        folder: takes what cannot be mapped where it lies; as long-lived as the samples.
        inside: the bundle's :attr:`~edgeml.bundle.manifest.Manifest.inside`, which says how
            images and recordings become raw input.
        unpacked: gives or raises what :func:`unpack` did, where that was done before.

    Raises:
        UsageError: the source is code, which this process does not run.
        SourceError: the data is damaged, or what it holds does not fit the inputs.
    """
    if source.kind == "code":
        raise UsageError(
            f"{source} is code, which is not run here",
            expected="FILE.npz, FILE.npy, or a folder of images or WAV files",
            remedy="Save its samples with numpy.savez and give that file.",
        )
    folder.mkdir(parents=True, exist_ok=True)
    if source.kind == "folder":
        return folders.read_folder(source.path, inputs, folder, inside=inside)
    try:
        if source.kind == "npy":
            files = {_single(source, inputs): source.path.absolute()}
        else:
            files = unpack(source.path, folder) if unpacked is None else unpacked()
        arrays = {name: _mapped(file) for name, file in files.items()}
    except (OSError, EOFError, ValueError, zipfile.BadZipFile, zlib.error) as error:
        if "Python objects" in str(error):
            raise SourceError(
                f"{source} holds Python objects, not numbers",
                expected="arrays of numbers, every sample of the same shape",
                remedy="Stack the samples into one array before saving.",
            ) from error
        raise SourceError(
            f"{source} cannot be read as NumPy data: {error}",
            expected=FORMS,
            remedy="Write the file again with numpy.savez or numpy.save.",
        ) from error
    if LABELS in arrays:
        arrays[LABELS] = np.array(arrays[LABELS])
    return check_samples(arrays, inputs, str(source), folder, files)


def _mapped(path: Path) -> Array:
    with path.open("rb") as stream:
        shape, _, _ = read_header(stream)
        if 0 in shape or not shape:  # nothing to map
            stream.seek(0)
            return np.asarray(np.lib.format.read_array(stream, allow_pickle=False))
    return load(path)


def unpack(path: Path, folder: Path) -> dict[str, Path]:
    """The arrays of an ``.npz``, each in a file of its own in ``folder``, which exists.

    Raises:
        OSError, EOFError, ValueError, zipfile.BadZipFile, zlib.error: it cannot be read; the disk
            is full.
    """
    found: dict[str, Path] = {}
    with zipfile.ZipFile(path) as archive:
        for index, info in enumerate(archive.infolist()):
            if info.filename.endswith(".npy"):
                file = found[info.filename.removesuffix(".npy")] = folder / f"member{index}.npy"
                with archive.open(info) as stream, room(folder), file.open("wb") as out:
                    shutil.copyfileobj(stream, out, 1 << 20)
    return found


def read_header(stream: Any) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Shape, whether in Fortran's order, and dtype of an ``.npy`` file, its head read off.

    Raises:
        ValueError: it is none, or one of Python objects.
    """
    version = np.lib.format.read_magic(stream)
    readers = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }
    if version not in readers:
        raise ValueError(f"array format {version} is not one of numbers")
    shape, fortran, dtype = readers[version](stream)
    if dtype.hasobject:
        raise ValueError("Python objects")
    return tuple(shape), fortran, dtype


def _single(source: DataSource, inputs: Sequence[Tensor]) -> str:
    if len(inputs) == 1:
        return inputs[0].name
    raise SourceError(
        f"{source} is one array, and the model has {len(inputs)} inputs",
        expected=f"an .npz with {names(tensor.name for tensor in inputs)}",
    )
