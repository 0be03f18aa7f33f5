"""Missing values in the samples: NaN, where the model itself takes it.

A pipeline with an imputer and the trees of XGBoost and LightGBM answer rows with gaps as they do
any other; most models do not. Which it is shows when the source runs: on samples with NaN it gives
finite numbers, or it fails, or gives NaN on. Infinity is refused in any case.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgeml.bundle.manifest import Tensor
from edgeml.columns import blocks, load
from edgeml.data import Samples
from edgeml.data.checks import broken
from edgeml.errors import SourceError, ToolchainError
from edgeml.exporter.child import Child
from edgeml.exporter.samples import calibrate
from edgeml.exporter.sources.forms import Opened, ReferenceJob

Array = NDArray[Any]
Rows = NDArray[np.int64]

PROBED = 16
"""Samples with gaps that the source is tried on before all others, at even distance."""


class Given(NamedTuple):
    """Samples as they were given."""

    name: str
    """What to call them in an error."""
    samples: Samples


def tolerant(inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """The inputs as samples are read for them while it is not known what the source takes."""
    return tuple(
        msgspec.structs.replace(each, missing=np.dtype(each.dtype).kind == "f") for each in inputs
    )


def gaps(samples: Samples) -> NDArray[np.bool_]:
    """Whether each sample has a NaN in one of its inputs, bool [n]."""
    found = np.zeros(len(samples), dtype=bool)
    for name in samples.missing:
        for first, block in blocks(samples.inputs[name]):
            found[first : first + len(block)] |= np.isnan(block.reshape(len(block), -1)).any(axis=1)
    return found


def whole(samples: Samples, rows: Rows) -> Rows:
    """Those of the rows that have no gap."""
    return rows[~gaps(samples)[rows]] if samples.missing else rows


def settled(
    inputs: Sequence[Tensor], given: Sequence[Given], source: Opened, child: Child, folder: Path
) -> tuple[Tensor, ...]:
    """The inputs, with ``missing`` set for those with gaps, which the source was seen to take.

    Args:
        inputs: of the artifacts.
        given: the samples, in the order in which an error names them.
        source: the model.
        child: holds it.
        folder: empty; takes the samples that it is tried on.

    Raises:
        SourceError: there are gaps, and the source does not take them.
    """
    for index, each in enumerate(given):
        if each.samples.missing:
            rows = np.flatnonzero(gaps(each.samples))
            tried = np.unique(np.linspace(0, len(rows) - 1, PROBED).round().astype(np.int64))
            place = folder / str(index)
            probe = calibrate.take(each.samples, inputs, rows[tried], place)
            why = _refusal(source, probe, inputs, child, place)
            if why:
                raise _refused(each, why)
    lacking = {name for each in given for name in each.samples.missing}
    return tuple(msgspec.structs.replace(each, missing=each.name in lacking) for each in inputs)


def _refusal(
    source: Opened, probe: Samples, inputs: Sequence[Tensor], child: Child, folder: Path
) -> str:
    """Why the source does not take samples with gaps, as a clause; empty where it does."""
    try:
        found = answers(
            source, tuple(probe.files[each.name] for each in inputs), folder / "answers", child
        )
    except (SourceError, ToolchainError) as error:
        return f"the model does not take them: {error.found}"
    for name, array in found.items():
        if not all(np.isfinite(block).all() for _, block in blocks(array)):
            return f"the model does not take them: its output '{name}' is not finite then"
    telling = any(array.dtype.kind == "f" for array in found.values())
    # An estimator of scikit-learn raises an error; of other models whole numbers tell nothing.
    if not telling and source.kind != "classical":
        return "whether the model takes them its outputs, whole numbers, do not tell"
    return ""


def _refused(given: Given, why: str) -> SourceError:
    name = given.samples.missing[0]
    count, row = 0, -1
    for first, block in blocks(given.samples.inputs[name]):
        found = np.isnan(block)
        if row < 0 and found.any():
            row = first + int(np.argwhere(found)[0][0])
        count += int(found.sum())
    return broken(name, given.name, row, count, why)


def answers(
    source: Opened, files: tuple[Path, ...], folder: Path, child: Child
) -> dict[str, Array]:
    """The source's outputs on the samples in ``files``, an ``.npy`` an input.

    Args:
        source: the model.
        files: in the order of its inputs.
        folder: takes the outputs.
        child: holds the model.
    """
    folder.mkdir(exist_ok=True)
    results = tuple(folder / f"out{index}.npy" for index in range(len(source.outputs)))
    child.call(
        f"{source.answers}:reference",
        ReferenceJob(source=source, inputs=files, outputs=results),
        int,
        step="The source model on the samples",
    )
    return {tensor.name: load(path) for tensor, path in zip(source.outputs, results, strict=True)}
