"""Looks where the outputs of an artifact part from its source's, sample by sample. In a child."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np

from edgeml.columns import load
from edgeml.errors import EdgemlError
from edgeml.exporter.diagnosis import parting
from edgeml.exporter.diagnosis.traces import artifact_layers, source_layers
from edgeml.targets.registry import SourceKind
from edgeml.targets.runtime import NamedSession, open_session

MOST_SAMPLES = 256


class LookJob(msgspec.Struct, frozen=True, kw_only=True):
    """An artifact, its source, and the samples that it was checked on.

    Attributes:
        target: whose runtime is to run it.
        entry: the artifact's first file.
        inputs: source name to runtime name.
        outputs: likewise.
        options: of the session.
        names: of the source's inputs, in the order of ``samples``.
        samples: an ``.npy`` an input.
        reference: an ``.npy`` an output, in the order of ``outputs``: what the source makes.
        source_kind: what ``source`` is.
        source: the model.
    """

    target: str
    entry: Path
    inputs: dict[str, str]
    outputs: dict[str, str]
    options: dict[str, str]
    names: tuple[str, ...]
    samples: tuple[Path, ...]
    reference: tuple[Path, ...]
    source_kind: SourceKind
    source: Path


class Looked(msgspec.Struct, frozen=True, kw_only=True):
    """What was found; ``output`` is empty where no element differs enough to be pointed at.

    Attributes:
        output: name of the output that differs most.
        sample: the first sample in which it does.
        index: of the element that differs most there.
        source: the source's value; None where it is not finite.
        artifact: the artifact's; likewise.
        text: all that for people.
        layer: the first layer of the source whose values are not in the artifact.
        module: its module's path.
        line: file and line of the source.
    """

    output: str = ""
    sample: int = 0
    index: tuple[int, ...] = ()
    source: float | None = None
    artifact: float | None = None
    text: str = ""
    layer: str = ""
    module: str = ""
    line: str = ""


def look(job: LookJob) -> Looked:
    """In the child: find where the outputs part, and behind which layer."""
    columns = [load(file) for file in job.samples]
    count = min(MOST_SAMPLES, len(columns[0]))
    reference = {
        name: np.array(load(file)[:count])
        for name, file in zip(job.outputs, job.reference, strict=True)
    }
    found: dict[str, list[parting.Array]] = {name: [] for name in job.outputs}
    session = open_session(job.target, job.entry, options=job.options)
    with NamedSession(session, job.inputs, job.outputs) as named:
        for row in range(count):
            feeds = {n: np.array(c[row : row + 1]) for n, c in zip(job.names, columns, strict=True)}
            for name, array in named.run(feeds).items():
                found[name].append(array)
    made = {
        name: np.concatenate(arrays).reshape(reference[name].shape)
        for name, arrays in found.items()
    }
    difference = parting.first_difference(reference, made)
    if difference is None:
        return Looked()
    row = difference.sample
    feeds = {n: np.array(c[row : row + 1]) for n, c in zip(job.names, columns, strict=True)}
    between, words = _between(job, feeds)
    layer = between.first if between else None
    return Looked(
        output=difference.output,
        sample=difference.sample,
        index=difference.index,
        source=_finite(difference.source),
        artifact=_finite(difference.artifact),
        text=". ".join(filter(None, (parting.sentence(difference), words))),
        layer=layer.name if layer else "",
        module=layer.module if layer else "",
        line=layer.line if layer else "",
    )


def _between(job: LookJob, feeds: dict[str, parting.Array]) -> tuple[parting.Between | None, str]:
    """The layers between which the values part, and that for people, or why it cannot be told."""
    try:
        ours = artifact_layers(
            job.target, job.entry, {job.inputs[name]: array for name, array in feeds.items()}
        )
        theirs = source_layers(job.source_kind, job.source, feeds)
    except EdgemlError as error:
        return None, f"Its layers cannot be compared: {error.found}"
    except Exception as error:  # noqa: BLE001 - a framework's; the outputs' difference stands anyway
        return None, f"Its layers cannot be compared ({type(error).__name__})"
    if not ours or not theirs:
        return None, f"The runtime of {job.target} shows nothing of what its layers compute"
    between = parting.part(theirs, ours)
    return between, parting.layers_sentence(between)


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None
