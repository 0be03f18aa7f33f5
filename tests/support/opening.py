"""Opening a model as an export does, in a child, and asking the source what it makes of samples."""

from pathlib import Path

import numpy as np

from edgeml.exporter.child import Child
from edgeml.exporter.sources.forms import (
    ArrayShape,
    Opened,
    OpenJob,
    ReferenceJob,
    parse_model,
)


def read(
    child: Child,
    model: str,
    folder: Path,
    *shapes: ArrayShape,
    trust: bool = False,
    python: str = "",
    **more: object,
) -> Opened:
    """The normalised source, made in ``folder``."""
    source = parse_model(model, trust=trust, python=python)
    job = OpenJob(
        form=source.form,
        path=source.path,
        attribute=source.attribute,
        python=python,
        workdir=folder,
        shapes=shapes,
        **more,  # type: ignore[arg-type]
    )
    return child.call(
        f"{source.opener}:open_source", job, Opened, step=f"Reading {source.path.name}"
    )


def reference(child: Child, opened: Opened, *columns: np.ndarray) -> dict[str, np.ndarray]:
    """What the source makes of samples, an array an input."""
    folder = opened.path.parent / "reference"
    folder.mkdir(exist_ok=True)
    files = tuple(folder / f"in{index}.npy" for index in range(len(columns)))
    for file, column in zip(files, columns, strict=True):
        np.save(file, column)
    results = tuple(folder / f"out{index}.npy" for index in range(len(opened.outputs)))
    job = ReferenceJob(source=opened, inputs=files, outputs=results)
    child.call(f"{opened.answers}:reference", job, int, step="The reference")
    return {
        tensor.name: np.load(file) for tensor, file in zip(opened.outputs, results, strict=True)
    }
