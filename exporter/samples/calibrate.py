"""The samples: read, checked, split, hashed and put where children find them.

The rule of the split. Where ``--evaluate`` is given, all calibration samples calibrate, and the
artifacts are checked on the evaluation samples. Where it is not, a part of the calibration samples
is held back from calibration, drawn at random with the request's seed, and the artifacts are
checked on it: a fifth, but at least 16 samples, and never more than half of all. A single sample
serves for both, which the user is told.

The baseline is fitted on all calibration samples: it describes the data, not the quantizer.

Samples lie on disk from first to last, in files that are mapped (:mod:`edgeml.columns`).
"""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeml.bundle.manifest import SampleSet, Step, Tensor
from edgeml.columns import release, save_rows, spans
from edgeml.data import LABELS, DataSource, Samples, read_samples
from edgeml.data.files import read_header
from edgeml.data.folders import first_sample
from edgeml.data.items import gathered
from edgeml.errors import SourceError
from edgeml.exporter.child import Child
from edgeml.exporter.samples.iterables import Gathered, IterableJob
from edgeml.exporter.sources.forms import ArrayShape

Array = NDArray[Any]
Rows = NDArray[np.int64]

HELD_SHARE = 0.2
HELD_LEAST = 16


def split(count: int, *, seed: int) -> tuple[Rows, Rows]:
    """Rows that calibrate, and rows that are held back to check the artifacts; both sorted.

    Args:
        count: of samples, at least 1.
        seed: of the draw.
    """
    held = min(max(round(HELD_SHARE * count), HELD_LEAST), count // 2)
    if held == 0:
        only = np.arange(count)
        return only, only
    order = np.random.default_rng(seed).permutation(count)
    return np.sort(order[held:]), np.sort(order[:held])


def peek(source: DataSource) -> tuple[ArrayShape, ...]:
    """Names, shapes and types of the arrays in a file, from their headers alone; of a folder, from
    its first file.

    Empty for code. Labels are left out.

    Raises:
        SourceError: the file is no NumPy data, or the folder holds no samples.
    """
    if source.kind == "code":
        return ()
    if source.kind == "folder":
        first = first_sample(source.path)
        return (ArrayShape("", first.shape, str(first.dtype)),)
    try:
        if source.kind == "npy":
            with source.path.open("rb") as stream:
                return (_header("", stream),)
        with zipfile.ZipFile(source.path) as archive:
            members = [name for name in archive.namelist() if name.endswith(".npy")]
            shapes: list[ArrayShape] = []
            for member in members:
                with archive.open(member) as stream:
                    shapes.append(_header(member.removesuffix(".npy"), stream))
    except (OSError, EOFError, ValueError, zipfile.BadZipFile) as error:
        raise SourceError(
            f"{source} cannot be read as NumPy data: {error}",
            expected="a file that numpy.savez or numpy.save wrote",
            remedy="Write it again; it may be cut short.",
        ) from error
    return tuple(shape for shape in shapes if shape.name != LABELS)


def read(
    source: DataSource,
    inputs: Sequence[Tensor],
    child: Child,
    folder: Path,
    *,
    inside: Sequence[Step] = (),
    python: str = "",
    unpacked: Callable[[], dict[str, Path]] | None = None,
) -> Samples:
    """Read and check samples into ``folder``; code is run in ``child``.

    Args:
        source: DATA.
        inputs: what the artifacts take: raw input, where they preprocess it themselves.
        child: runs code.
        folder: takes what must be written.
        inside: what the artifacts do themselves, for folders of images and recordings.
        python: the interpreter that code runs in; empty: the child's own.
        unpacked: see :func:`edgeml.data.read_samples`.

    Raises:
        SourceError: the data is damaged or does not fit the inputs, or its code fails.
    """
    if source.kind != "code":
        return read_samples(source, inputs, folder, inside=inside, unpacked=unpacked)
    found = child.call(
        "edgeml.exporter.samples.iterables:read",
        IterableJob(
            path=source.path,
            attribute=source.attribute,
            inputs=tuple(inputs),
            folder=folder,
            python=python,
        ),
        Gathered,
        step=f"Reading {source}",
    )
    return gathered(inputs, folder, missing=found.missing)


def take(samples: Samples, inputs: Sequence[Tensor], rows: Rows, folder: Path) -> Samples:
    """Some of the samples, written to ``folder``: an ``.npy`` an input, in the order of
    ``inputs``, since names need not be file names.

    Raises:
        SourceError: the disk is full.
    """
    folder.mkdir(parents=True, exist_ok=True)
    files = {tensor.name: folder / f"{index}.npy" for index, tensor in enumerate(inputs)}
    return Samples(
        {name: save_rows(file, samples.inputs[name], rows) for name, file in files.items()},
        None if samples.labels is None else samples.labels[rows],
        samples.classes,
        files,
        samples.missing,
    )


def sample_set(samples: Samples, inputs: Sequence[Tensor]) -> SampleSet:
    """Hashes of the samples for the manifest: which took part, without what they hold.

    A sample's hash is the first 16 hexadecimal digits of the SHA-256 over its values, input after
    input; the set's is the SHA-256 over those of all samples in full, in order.
    """
    whole = hashlib.sha256()
    short: list[str] = []
    columns = [samples.inputs[tensor.name] for tensor in inputs]
    for first, last in spans(max(columns, key=lambda column: column.nbytes)):
        for row in range(first, last):
            one = hashlib.sha256()
            for column in columns:
                one.update(np.ascontiguousarray(column[row]).tobytes())
            whole.update(one.digest())
            short.append(one.hexdigest()[:16])
        for column in columns:
            release(column)
    return SampleSet(count=len(samples), sha256=whole.hexdigest(), samples=tuple(short))


def _header(name: str, stream: Any) -> ArrayShape:
    shape, _, dtype = read_header(stream)
    return ArrayShape(name, shape[1:], str(dtype))
