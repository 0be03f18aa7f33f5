"""Writing the bundle: where it goes, what the manifest says, golden vectors and the baseline.

The same request on the same machine with the same tools gives the same bundle but for what was
measured and for ``created``, which ``SOURCE_DATE_EPOCH`` fixes.
"""

from __future__ import annotations

import contextlib
import datetime
import importlib.metadata
import os
import platform
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgeml.bundle import (
    Accuracy,
    Artifact,
    Budgets,
    Certificate,
    Golden,
    Manifest,
    Measurement,
    Parity,
    Provenance,
    Requirement,
    Tensor,
    describe,
    encode_golden,
    write_bundle,
)
from edgeml.bundle.archive import BASELINE, GOLDEN, LOCK
from edgeml.bundle.manifest import Step
from edgeml.exporter.candidates import Candidate
from edgeml.exporter.naming import make_folder
from edgeml.exporter.repeat.lock import Lock, Recipe, complete
from edgeml.statistics import Baseline
from edgeml.targets.compiling import CompileResult
from edgeml.targets.registry import SourceKind, target

Array = NDArray[Any]

GOLDEN_SAMPLES = 8

_ALWAYS = ("edgeml", "numpy", "scipy")
_BY_KIND: Mapping[SourceKind, tuple[str, ...]] = {
    "tflite": ("ai-edge-litert",),
    "classical": ("scikit-learn", "skl2onnx", "onnxmltools", "xgboost-cpu", "lightgbm", "onnx"),
    "torch": ("torch",),
    "savedmodel": ("tensorflow", "keras", "tf-keras"),
    "onnx": ("onnx", "onnxruntime"),
}
_BY_TARGET: Mapping[str, tuple[str, ...]] = {
    "tflite": ("litert-torch", "tensorflow", "ai-edge-quantizer", "ai-edge-litert"),
    "openvino": ("openvino", "nncf"),
    "onnx": ("onnx", "onnxscript", "onnxruntime", "tf2onnx"),
}
"""The last row stands for every target that runs on ONNX Runtime."""


class Finished(msgspec.Struct, frozen=True, kw_only=True):
    """A chosen artifact with all that was found out about it."""

    candidate: Candidate
    made: CompileResult
    parity: Parity | None
    not_checked: str = ""
    accuracy: Accuracy | None = None
    certificate: Certificate | None = None
    measured: Measurement | None = None
    not_measured: str = ""


class Contents(msgspec.Struct, frozen=True, kw_only=True):
    """What goes into the bundle beside the artifacts."""

    name: str
    version: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    budgets: Budgets
    provenance: Provenance
    golden: Golden
    baseline: Baseline | None
    inside: tuple[Step, ...] = ()
    """Preprocessing that the artifacts do themselves."""
    devices: tuple[str, ...] = ()
    """Device profiles that it was asked for."""


def golden_rows(
    count: int, classes: Array | None, clarity: Array | None = None, *, least: int = GOLDEN_SAMPLES
) -> list[int]:
    """Rows for the golden vectors: one of each class in turn, or else at even distance.

    Of a class those come first that are decided about as clearly as its median. Next to a tie a
    sound int8 artifact decides otherwise now and then, and eight samples are too few to forgive it:
    of eight taken as they come, ResNet-8's failed on two in 5 to 15 of 100 sets of photos, though
    it agreed on .92 to .95 of them all.

    Args:
        count: of samples.
        classes: of each sample, if it is known.
        clarity: of each sample, see :func:`edgeml.bundle.parity.clarity`.
        least: how many rows are wanted; fewer where there are fewer.
    """
    wanted = min(count, least)
    if classes is None:
        return [int(row) for row in np.linspace(0, count - 1, wanted).round()]
    queues = [list(_typical(np.flatnonzero(classes == c), clarity)) for c in np.unique(classes)]
    rows: list[int] = []
    while len(rows) < wanted:
        for queue in queues:
            if queue and len(rows) < wanted:
                rows.append(int(queue.pop(0)))
    return sorted(rows)


def _typical(rows: Array, clarity: Array | None) -> Array:
    """Those near the median first."""
    if clarity is None:
        return rows
    mine = clarity[rows]
    return rows[np.argsort(np.abs(mine - np.median(mine)), kind="stable")]


def tools(kind: SourceKind, targets: Iterable[str]) -> dict[str, str]:
    """Versions of every tool that touched the model."""
    names = [*_ALWAYS, *_BY_KIND[kind]]
    for name in targets:
        names += _BY_TARGET.get(name, _BY_TARGET["onnx"])
    found = {"python": platform.python_version()}
    for name in names:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return dict(sorted(found.items()))


class Packed(msgspec.Struct, frozen=True, kw_only=True):
    """An artifact as it stands in the bundle."""

    artifact: Artifact
    members: dict[str, bytes]


def packed(each: Finished) -> Packed:
    """Read an artifact's files and describe it."""
    members = {
        f"artifacts/{each.candidate.id}/{file.name}": file.read_bytes() for file in each.made.files
    }
    row = target(each.candidate.target)
    artifact = Artifact(
        id=each.candidate.id,
        target=each.candidate.target,
        precision=each.candidate.precision,
        files=tuple(describe(name, content) for name, content in members.items()),
        inputs=each.made.inputs,
        outputs=each.made.outputs,
        requires=Requirement(packages=row.packages, options=each.made.options),
        parity=each.parity,
        not_checked=each.not_checked,
        float_layers=each.candidate.keep_float,
        accuracy=each.accuracy,
        certificate=each.certificate,
        measured=each.measured,
        not_measured=each.not_measured,
        chosen=True,
    )
    return Packed(artifact=artifact, members=members)


def assemble(
    contents: Contents, artifacts: Iterable[Packed], *, lock: Lock | None, created: str
) -> tuple[Manifest, dict[str, bytes]]:
    """The manifest, and all other members of the bundle by path.

    Args:
        contents: what goes in beside the artifacts.
        artifacts: those that were chosen.
        lock: what it was made from and by, to be completed here.
        created: RFC 3339, UTC.
    """
    members: dict[str, bytes] = {}
    whole = tuple(artifacts)
    for each in whole:
        members |= each.members
    members[GOLDEN] = encode_golden(contents.golden)
    if contents.baseline is not None:
        members[BASELINE] = contents.baseline.encode()
    if lock is not None:
        members[LOCK] = complete(lock, contents.provenance, map(_recipe, whole))
    manifest = Manifest(
        name=contents.name,
        version=contents.version,
        created=created,
        inputs=contents.inputs,
        inside=contents.inside,
        outputs=contents.outputs,
        artifacts=tuple(each.artifact for each in whole),
        golden=describe(GOLDEN, members[GOLDEN]),
        baseline=describe(BASELINE, members[BASELINE]) if contents.baseline else None,
        budgets=contents.budgets,
        provenance=contents.provenance,
        devices=contents.devices,
        lock=describe(LOCK, members[LOCK]) if lock is not None else None,
    )
    return manifest, members


def pack(
    path: Path, contents: Contents, finished: Iterable[Finished], *, lock: Lock | None = None
) -> int:
    """Write the bundle in one step; returns its size in bytes.

    Raises:
        BundleError: the disk does not take it; what stood there before still does.
    """
    manifest, members = assemble(
        contents, [packed(each) for each in finished], lock=lock, created=_created()
    )
    make_folder(path.parent)
    write_bundle(path, manifest, members)
    return path.stat().st_size


def _recipe(each: Packed) -> Recipe:
    found = each.artifact
    return Recipe(
        id=found.id,
        target=found.target,
        precision=found.precision,
        keep_float=found.float_layers,
    )


def _created() -> str:
    epoch = os.environ.get("SOURCE_DATE_EPOCH", "")
    zone = datetime.timezone.utc
    if epoch.isdigit():
        now = datetime.datetime.fromtimestamp(int(epoch), zone)
    else:
        now = datetime.datetime.now(zone)
    return now.isoformat(timespec="seconds").replace("+00:00", "Z")
