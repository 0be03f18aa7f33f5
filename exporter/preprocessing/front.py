"""The stage: a declared program in front of an opened source, and the proof that it is right.

The proof: on samples that artifacts are checked on, the source behind the reference implementation
and the source with the program in front give the same.
"""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np

from edgeml.bundle.manifest import Step, Tensor, Tolerance
from edgeml.bundle.parity import compare, shortfall
from edgeml.data import Samples
from edgeml.errors import RefusedError, SourceError
from edgeml.exporter import meaning
from edgeml.exporter.child import Child
from edgeml.exporter.preprocessing.declaration import Declaration, ImageInput, Input
from edgeml.exporter.preprocessing.program import compile_input
from edgeml.exporter.samples import missing
from edgeml.exporter.sources.forms import ArrayShape, Opened
from edgeml.targets.registry import SourceKind

FRONTS: dict[SourceKind, str] = {
    "torch": "edgeml.exporter.preprocessing.torch_front",
    "savedmodel": "edgeml.exporter.preprocessing.tf_front",
    "onnx": "edgeml.exporter.preprocessing.onnx_front",
}
"""Where each kind's ``put_in_front`` is."""

CHECKED = 32
"""Samples of the proof: the reference is slow, and a wrong program is wrong on all."""

TOLERANCE = Tolerance(cosine=0.9999)


class FrontJob(msgspec.Struct, frozen=True, kw_only=True):
    """A source to be wrapped."""

    source: Opened
    inputs: dict[str, Input]
    """Declared, by the source's input name."""
    path: Path
    """Where the wrapped source goes."""


class MakeJob(msgspec.Struct, frozen=True, kw_only=True):
    """Raw samples for the reference implementation, an input at a time."""

    inputs: tuple[Input | None, ...]
    """In the order of the files; None: nothing is declared for it."""
    raw: tuple[Path, ...]
    made: tuple[Path, ...]
    count: int


class Wrapped(msgspec.Struct, frozen=True, kw_only=True):
    """A source that takes raw input."""

    source: Opened
    inputs: tuple[Tensor, ...]
    """With their meanings."""
    inside: tuple[Step, ...]


def refuse_kind(kind: SourceKind) -> None:
    """Refuse a source that nothing can be put in front of.

    Raises:
        RefusedError: it is one.
    """
    if kind in FRONTS:
        return
    if kind == "classical":
        raise RefusedError(
            "The steps of a scikit-learn pipeline are inside its artifacts already",
            remedy="Leave out --preprocess: put scaling and encoding into the pipeline, and give "
            "raw columns.",
        )
    raise RefusedError(
        f"Nothing can be put in front of a {kind} model: its operators are final",
        remedy="Give the model that it was made from (PyTorch, Keras, a SavedModel or ONNX).",
    )


def made_shapes(declaration: Declaration) -> tuple[ArrayShape, ...]:
    """Shapes and types that the model itself sees, for a model that does not know its own."""
    return tuple(
        ArrayShape(name, compile_input(each).shape[1:], "float32")
        for name, each in declaration.inputs.items()
    )


def put_in_front(declaration: Declaration, source: Opened, child: Child) -> Wrapped:
    """Wrap a source.

    Args:
        declaration: what is declared.
        source: the model.
        child: where it was opened.

    Raises:
        RefusedError: nothing can be put in front of its kind.
        SourceError: what is declared does not fit the model.
    """
    refuse_kind(source.kind)
    inputs = _raw_inputs(declaration, source)
    opened = child.call(
        f"{FRONTS[source.kind]}:put_in_front",
        FrontJob(
            source=source,
            inputs=declaration.inputs,
            path=source.path.with_name(f"raw-{source.path.name}"),
        ),
        Opened,
        step="Putting the preprocessing in front of the model",
    )
    return Wrapped(
        # What answers for the model may be the model itself, without its preprocessing.
        source=msgspec.structs.replace(opened, inputs=inputs, reference=""),
        inputs=inputs,
        inside=declaration.steps(),
    )


def check(
    declaration: Declaration,
    bare: Opened,
    wrapped: Opened,
    samples: Samples,
    child: Child,
    folder: Path,
) -> None:
    """Prove the wrapped source on real samples.

    Raises:
        SourceError: it does not give what the source gives behind the reference implementation.
    """
    count = min(CHECKED, len(samples))
    place = folder / "reference"
    place.mkdir()
    raw = tuple(place / f"raw{index}.npy" for index in range(len(bare.inputs)))
    made = tuple(place / f"made{index}.npy" for index in range(len(bare.inputs)))
    for file, tensor in zip(raw, bare.inputs, strict=True):
        np.save(file, samples.inputs[tensor.name][:count])
    child.call(
        "edgeml.exporter.preprocessing.reference:make",
        MakeJob(
            inputs=tuple(declaration.inputs.get(tensor.name) for tensor in bare.inputs),
            raw=raw,
            made=made,
            count=count,
        ),
        int,
        step="The reference implementation of the preprocessing",
    )
    found = [
        missing.answers(source, files, place / name, child)
        for source, files, name in ((bare, made, "bare"), (wrapped, raw, "wrapped"))
    ]
    parity = compare(found[0], found[1], (), TOLERANCE)
    missed = shortfall(parity)
    if missed:
        raise SourceError(
            f"The preprocessing of {declaration.path} does not give what its reference "
            f"implementation gives: on {count} samples the model's outputs have {missed}",
            expected="the same outputs but for rounding",
            remedy="A floor far below what float32 can tell from nothing makes silence random: "
            "raise it to 1e-8 of full scale or so. Otherwise this is an error of edgeml: please "
            "report it with the file.",
        )


def _raw_inputs(declaration: Declaration, source: Opened) -> tuple[Tensor, ...]:
    known = {tensor.name: tensor for tensor in source.inputs}
    unknown = sorted(declaration.inputs.keys() - known.keys())
    if unknown:
        raise SourceError(
            f"{declaration.path} declares {', '.join(map(repr, unknown))}",
            expected=f"inputs of the model: {', '.join(map(repr, known))}",
            remedy="Name the tables after the model's inputs.",
        )
    raw: list[Tensor] = []
    for tensor in source.inputs:
        declared = declaration.inputs.get(tensor.name)
        if declared is None:
            raw.append(meaning.infer_input(tensor, source.kind))
            continue
        program = compile_input(declared)
        if tensor.dtype != "float32" or tensor.shape != program.shape:
            raise SourceError(
                f"What {declaration.path} declares for '{tensor.name}' ends in float32 "
                f"{list(program.shape)}",
                expected=f"what the model takes: {tensor.dtype} {list(tensor.shape)}",
                remedy="Check sizes and the layout step."
                if tensor.dtype == "float32"
                else "The model takes raw numbers already: leave the declaration out.",
            )
        image = isinstance(declared, ImageInput)
        raw.append(
            Tensor(
                name=tensor.name,
                shape=program.raw,
                dtype=program.dtype,
                meaning="image" if image else "audio",
                layout="NHWC" if image else "",
            )
        )
    return tuple(raw)
